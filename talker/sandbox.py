"""Run work on untrusted bytes in a child process with hard limits.

Media parsers are large C programs fed with strangers' files. They run here: another process, without the
parent's environment, with limits on memory, processor time, file size and open files, and killed with its
whole process group when the wall clock runs out. Whatever happens inside, the parent sees a result, a typed
user error, or one :class:`SandboxError`.

Protocol: the request is one JSON object on the child's standard input; the child answers with JSON lines
(``{"progress": n}`` any number of times, then ``{"result": ...}``, ``{"error": ...}`` or ``{"failure":
...}``). Large arrays travel as files.
"""

from __future__ import annotations

import errno
import importlib
import json
import logging
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import IO, Any

from talker import errors

log = logging.getLogger(__name__)

_BOOT = "import json,sys; sys.path[:] = json.loads(sys.argv[1]); from talker.sandbox import child; child()"
_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")


@dataclass(frozen=True)
class Limits:
    """What the child may use."""

    wall_s: float = 60.0
    memory_mb: int = 2048
    """Address space, not resident memory: libraries and thread stacks count."""
    file_mb: int = 64
    """Largest file the child may write."""
    open_files: int = 64


class SandboxError(Exception):
    """The child gave no answer. ``reason``: ``timeout``, ``memory``, ``disk`` or ``crash``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def run(
    target: str,
    request: dict[str, Any],
    limits: Limits,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Call ``target`` (``"package.module:function"``) with ``request`` in a limited child process.

    Args:
        target: Function ``(request: dict, progress: Callable[[int], None]) -> dict``, all JSON-able. Its
        module must
            not import torch, whose libraries alone would exceed the memory limit.
        request: Argument of the function.
        limits: Limits of the child.
        on_progress: Called in this thread with each number the child reports.

    Raises:
        TalkerError: As raised inside the child.
        SandboxError: When the child was stopped, crashed or ran out of something.
    """
    environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    deadline = time.monotonic() + limits.wall_s
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, json.dumps([os.fspath(p) for p in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        )
        try:
            answer = _converse(
                process,
                {"target": target, "request": request, "limits": asdict(limits)},
                deadline,
                on_progress,
            )
        finally:
            _kill_group(process)
        if "failure" in answer:
            stderr.seek(0)
            log.info(
                "sandbox %s: %s\n%s",
                target,
                answer["failure"],
                stderr.read()[-2000:].decode(errors="replace"),
            )
    if "error" in answer:
        raise _typed_error(answer["error"])
    if "failure" in answer:
        raise SandboxError(answer["failure"])
    return answer["result"]


def _converse(
    process: subprocess.Popen[bytes],
    message: dict[str, Any],
    deadline: float,
    on_progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Send the request, relay progress, return the last line of the child."""
    assert process.stdin and process.stdout
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
    try:
        process.stdin.write(json.dumps(message).encode())
        process.stdin.close()
    except BrokenPipeError:
        return {"failure": "crash"}
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return {"failure": "timeout"}
        if line is None:
            return {"failure": _reason_of_death(process)}
        answer = json.loads(line)
        if "progress" not in answer:
            return answer
        if on_progress is not None:
            on_progress(answer["progress"])


def _pump(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _reason_of_death(process: subprocess.Popen[bytes]) -> str:
    """Why the child ended without an answer; its processor-time limit shows as SIGXCPU or SIGKILL."""
    code = process.wait()
    over_time = (-getattr(signal, "SIGXCPU", 0), -getattr(signal, "SIGKILL", 0))
    return "timeout" if code < 0 and code in over_time else "crash"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)  # the group outlives its leader when that left children
        except ProcessLookupError:
            pass
        except PermissionError:  # macOS: the group holds only the zombie
            pass
    elif process.poll() is None:
        process.kill()
    process.wait()


def _typed_error(fields: dict[str, str]) -> errors.TalkerError:
    kind = getattr(errors, fields["kind"])
    assert issubclass(kind, errors.TalkerError)
    return kind(fields["code"], fields["found"], expected=fields["expected"], todo=fields["todo"])


def child() -> None:
    """Entry point of the child process; never called by the parent."""
    # Libraries may write to standard output: keep it for the protocol alone and send theirs to standard
    # error.
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**message: object) -> None:
        protocol.write(json.dumps(message) + "\n")
        protocol.flush()

    message = json.load(sys.stdin)
    _limit_self(Limits(**message["limits"]))
    module, function = message["target"].split(":")
    try:
        work = getattr(importlib.import_module(module), function)
        result = work(message["request"], lambda n: say(progress=n))
    except errors.TalkerError as e:
        say(
            error={
                "kind": type(e).__name__,
                "code": e.code,
                "found": e.found,
                "expected": e.expected,
                "todo": e.todo,
            }
        )
    except MemoryError:
        say(failure="memory")
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise
        say(failure="disk")
    else:
        say(result=result)


def _limit_self(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; the wall clock still holds
        return
    wanted = {
        resource.RLIMIT_AS: limits.memory_mb << 20,
        resource.RLIMIT_CPU: 2 * math.ceil(limits.wall_s),
        resource.RLIMIT_FSIZE: limits.file_mb << 20,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_CORE: 0,
    }
    for name, value in wanted.items():
        _, hard = resource.getrlimit(name)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (allowed, allowed))
