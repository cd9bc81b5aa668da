"""A real PostgreSQL server for a test, from whatever binaries the machine has."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PLACES = (Path("/usr/local/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))


def binaries() -> Path | None:
    """Folder with ``initdb`` and ``pg_ctl``; None where there is no server."""
    found = shutil.which("initdb")
    places = ([Path(found).parent] if found else []) + list(PLACES)
    return next((p for p in places if (p / "initdb").exists() and (p / "pg_ctl").exists()), None)


def missing() -> str:
    """Why no server can be started here; empty if one can."""
    if binaries() is None:
        return "no PostgreSQL server binaries (initdb, pg_ctl) on this machine"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "initdb refuses root and there is no runuser"
    return ""


@dataclass
class Server:
    """A running server."""

    folder: Path
    port: int
    listen: str

    def url(self, host: str = "127.0.0.1", database: str = "talker") -> str:
        return f"postgresql://talker@{host}:{self.port}/{database}"

    def stop(self, mode: str = "fast") -> None:
        _run("pg_ctl", "-D", str(self.folder / "data"), "-m", mode, "-w", "stop")

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses={self.listen} -c fsync=off"
        log = str(self.folder / "log")
        _run("pg_ctl", "-D", str(self.folder / "data"), "-o", options, "-l", log, "-w", "start")


def _run(name: str, *arguments: str) -> None:
    bin_folder = binaries()
    assert bin_folder is not None
    as_other = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
    # Output to a file: the server inherits it, and a pipe would never end.
    with tempfile.TemporaryFile() as output:
        command = [*as_other, str(bin_folder / name), *arguments]
        done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False, timeout=120)
        output.seek(0)
        assert done.returncode == 0, output.read().decode()


@contextlib.contextmanager
def postgres(listen: str = "127.0.0.1") -> Iterator[Server]:
    """A fresh server on a free port, deleted afterwards.

    Args:
        listen: Addresses it listens on.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="talker-pg-"))  # short: the path of a socket may have 107 bytes
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
    server = Server(folder, port, listen)
    try:
        _run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "talker", "--no-sync")
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 0.0.0.0/0 trust\n")
        server.start()
        yield server
    finally:
        with contextlib.suppress(AssertionError):
            server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)
