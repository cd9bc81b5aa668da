"""A small local server that speaks the Hub's protocol, for the real huggingface_hub client.

    with FakeHub(tmp_path) as hub:
        Hub(hub.endpoint, token=hub.token("alice")).publish(...)

Model repositories only. Large files go to a second "host" (the same server by another name) as on the real Hub,
so that a token sent where it must not go is seen. ``faults`` make it misbehave, ``requests`` is its log.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fake_hub_jobs import CloudRun, JobRoutes
from fake_hub_types import EXPIRED, LFS_SUFFIXES, Fault, Repo, Request

__all__ = ["EXPIRED", "FakeHub", "Fault", "Repo", "Request"]


class FakeHub:
    """The server. Attributes ``endpoint``, ``storage``, ``requests``, ``faults``, ``repos`` may be read freely.

    Args:
        storage: Folder for the blobs; a temporary one by default.
    """

    def __init__(self, storage: Path | None = None) -> None:
        self._own = storage is None
        self.storage = Path(storage or tempfile.mkdtemp(prefix="fake-hub-"))
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.listed_sizes: dict[tuple[str, str], int] = {}
        """Sizes to lie about in listings, by (repo id, file)."""
        self.served: dict[tuple[str, str], bytes] = {}
        """Contents to serve instead of the true ones, by (repo id, file)."""
        self.sleep_times: list[tuple[str, int]] = []
        self.buckets: dict[str, bool] = {}
        """Name -> private."""
        self.jobs: dict[str, CloudRun] = {}
        self.job_environment: dict[str, str] = {}
        """What the image of every Job would have set."""
        self.credit = True
        self.lock = threading.RLock()
        self._users: dict[str, str] = {}

    def __enter__(self) -> FakeHub:
        (self.storage / "blobs").mkdir(parents=True, exist_ok=True)
        handler = type("Handler", (JobRoutes,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        for job in self.jobs.values():
            job.cancelled = True
            job.kill()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._own:
            shutil.rmtree(self.storage, ignore_errors=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def cdn(self) -> str:
        """The other host: no request to it may carry a token."""
        return f"http://localhost:{self._server.server_port}"

    def token(self, user: str) -> str:
        """A working token of ``user``."""
        token = f"hf_fake_{user}"
        self._users[token] = user
        return token

    def user(self, token: str | None) -> str | None:
        return self._users.get(token or "")

    def fail(self, method: str, path: str, status: int = 0, **options: Any) -> Fault:
        """Add a fault; see :class:`Fault`."""
        fault = Fault(method, path, status, **options)
        self.faults.append(fault)
        return fault

    def seed(
        self, repo_id: str, files: dict[str, bytes], *, private: bool = False, gated: bool = False
    ) -> str:
        """Make or extend a repository directly; returns the commit."""
        with self.lock:
            repo = self.repos.setdefault(repo_id, Repo(private, gated))
            listing = dict(repo.commits[-1][1]) if repo.commits else {}
            for name, content in files.items():
                listing[name] = (self.store(content), name.endswith(LFS_SUFFIXES))
            return self.commit(repo, listing)

    def files(self, repo_id: str) -> dict[str, bytes]:
        """Contents of the newest commit."""
        with self.lock:
            return {name: self.blob(oid) for name, (oid, _) in self.repos[repo_id].commits[-1][1].items()}

    def paths(self, method: str = "") -> list[str]:
        """Paths asked for, in order."""
        return [r.path for r in self.requests if not method or r.method == method]

    # --- storage

    def store(self, content: bytes) -> str:
        oid = hashlib.sha256(content).hexdigest()
        (self.storage / "blobs" / oid).write_bytes(content)
        return oid

    def blob(self, oid: str) -> bytes:
        return (self.storage / "blobs" / oid).read_bytes()

    def has(self, oid: str) -> bool:
        return (self.storage / "blobs" / oid).is_file()

    def commit(self, repo: Repo, listing: dict[str, tuple[str, bool]]) -> str:
        text = json.dumps([sorted(listing.items()), len(repo.commits), id(repo)])
        sha = hashlib.sha1(text.encode()).hexdigest()
        repo.commits.append((sha, listing))
        repo.modified = time.time()
        return sha

    def listing(self, repo: Repo, revision: str) -> tuple[str, dict[str, tuple[str, bool]]] | None:
        if revision in ("main", "HEAD"):
            return repo.commits[-1]
        return next((c for c in repo.commits if c[0] == revision), None)
