"""A small local server that speaks the Hub's protocol, for the real huggingface_hub client.

    with FakeHub(tmp_path) as hub:
        Hub(hub.endpoint, token=hub.token("alice")).publish(...)

Model repositories only. Large files go to a second "host" (the same server by another name) as on the real Hub,
so that a token sent where it must not go is seen. ``faults`` make it misbehave, ``requests`` is its log.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".png", ".jpg", ".mp4", ".ply")
EXPIRED = "hf_expired"


@dataclass
class Request:
    """One line of the log."""

    method: str
    path: str
    host: str
    token: str | None
    status: int = 0
    sent: int = 0
    """Bytes of body that were sent back."""


@dataclass
class Fault:
    """What happens instead of the next ``times`` requests that match."""

    method: str
    path: str  # regular expression, searched in the path
    status: int = 0
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    """Answer properly, but hang up after so many bytes of the body."""
    hang_up: bool = False
    """Close the connection without an answer."""
    after: bool = False
    """Do the work first, then lose the answer."""
    dribble_s: float = 0.0
    """Pause between the bytes of the answer."""


@dataclass
class Repo:
    """One model repository: a line of commits, each a full listing of name -> (blob, is_lfs)."""

    private: bool
    gated: bool = False
    commits: list[tuple[str, dict[str, tuple[str, bool]]]] = field(default_factory=list)
    created: float = field(default_factory=time.time)
    modified: float = field(default_factory=time.time)


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
        self.lock = threading.RLock()
        self._users: dict[str, str] = {}

    def __enter__(self) -> FakeHub:
        (self.storage / "blobs").mkdir(parents=True, exist_ok=True)
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
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


class _Answer(Exception):  # noqa: N818 - not an error
    """Ends the handling of a request with a response."""

    def __init__(
        self, status: int, body: Any = None, *, code: str = "", message: str = "", **headers: str
    ) -> None:
        super().__init__(status)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if code:
            self.headers["X-Error-Code"] = code
        if message:
            self.headers["X-Error-Message"] = message
            body = body or {"error": message}
        if isinstance(body, bytes):
            self.body = body
            self.headers.setdefault("Content-Type", "application/octet-stream")
        else:
            self.body = b"" if body is None else json.dumps(body).encode()
            self.headers.setdefault("Content-Type", "application/json")


def _not_found() -> _Answer:
    return _Answer(404, code="RepoNotFound", message="Repository not found")


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - named by the standard library

    def _handle(self) -> None:
        url = urlsplit(self.path)
        self.route, self.query = unquote(url.path), parse_qs(url.query)
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        self.token = token if scheme == "Bearer" else None
        self.record = Request(self.command, self.route, self.headers.get("Host", ""), self.token)
        with self.hub.lock:
            self.hub.requests.append(self.record)
            fault = self._fault()
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault and fault.hang_up and not fault.after:
            self._hang_up()
            return
        try:
            if fault and fault.status and not fault.after:
                raise _Answer(fault.status, fault.body or {"error": "fault"}, **fault.headers)
            self._dispatch()
            raise _Answer(404, message=f"no such route: {self.command} {self.route}")
        except _Answer as answered:
            answer = answered
            if fault and fault.after:
                if fault.hang_up:
                    self._hang_up()
                    return
                answer = _Answer(fault.status, {"error": "fault"}, **fault.headers)
            self._send(answer, fault)

    def _fault(self) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times > 0 and fault.method in ("", self.command) and re.search(fault.path, self.route):
                fault.times -= 1
                return fault
        return None

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, answer: _Answer, fault: Fault | None) -> None:
        self.record.status = answer.status
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        body = answer.body
        try:
            if fault and fault.dribble_s:
                for i in range(len(body)):
                    self.wfile.write(body[i : i + 1])
                    self.wfile.flush()
                    self.record.sent += 1
                    time.sleep(fault.dribble_s)
                return
            if fault and fault.cut_after is not None:
                self.wfile.write(body[: fault.cut_after])
                self.wfile.flush()
                self.record.sent = fault.cut_after
                self._hang_up()
                return
            for i in range(0, len(body), 1 << 16):
                self.wfile.write(body[i : i + (1 << 16)])
                self.record.sent += len(body[i : i + (1 << 16)])
        except OSError:  # the client hung up
            self.close_connection = True

    # --- routes

    def _dispatch(self) -> None:
        for method, pattern, function in _ROUTES:
            match = re.fullmatch(pattern, self.route)
            if match and self.command in method.split():
                function(self, **match.groupdict())

    def _json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")

    def _signed_in(self) -> str:
        if self.token == EXPIRED or (self.token and not self.hub.user(self.token)):
            raise _Answer(401, message="Invalid credentials in Authorization header")
        user = self.hub.user(self.token)
        if user is None:
            raise _Answer(401, message="Invalid username or password.")
        return user

    def _repo(self, repo_id: str, *, write: bool = False, files: bool = False) -> Repo:
        """As on the real Hub: who may not see a private repository is told that there is none."""
        if self.token == EXPIRED or (self.token and not self.hub.user(self.token)):
            raise _Answer(401, message="Invalid credentials in Authorization header")
        user, repo = self.hub.user(self.token), self.hub.repos.get(repo_id)
        owner = repo_id.split("/", maxsplit=1)[0]
        if repo is None or (repo.private and user != owner):
            if user is None:
                raise _Answer(401, code="RepoNotFound", message="Invalid username or password.")
            raise _not_found()
        if files and repo.gated and user != owner:
            raise _Answer(403 if user else 401, code="GatedRepo", message="Access to model is restricted")
        if write and user != owner:
            raise _Answer(403 if user else 401, message="You don't have the required permissions")
        return repo

    def _at(self, repo: Repo, revision: str) -> tuple[str, dict[str, tuple[str, bool]]]:
        found = self.hub.listing(repo, revision)
        if found is None:
            raise _Answer(404, code="RevisionNotFound", message="Invalid rev id")
        return found

    def whoami(self) -> None:
        raise _Answer(200, {"type": "user", "name": self._signed_in(), "orgs": []})

    def create(self) -> None:
        user, body = self._signed_in(), self._json()
        owner = body.get("organization") or user
        repo_id = f"{owner}/{body['name']}"
        if owner != user:
            raise _Answer(403, message="You don't have the rights to create a model under this namespace")
        url = f"{self.hub.endpoint}/{repo_id}"
        with self.hub.lock:
            if repo_id in self.hub.repos:
                raise _Answer(409, {"error": "You already created this model repo", "url": url})
            private = body.get("visibility") == "private" or bool(body.get("private"))
            repo = self.hub.repos[repo_id] = Repo(private)
            self.hub.commit(repo, {".gitattributes": (self.hub.store(b"*.safetensors filter=lfs\n"), False)})
        raise _Answer(200, {"url": url, "name": repo_id, "id": repo_id})

    def delete(self) -> None:
        user, body = self._signed_in(), self._json()
        repo_id = f"{body.get('organization') or user}/{body['name']}"
        with self.hub.lock:
            self._repo(repo_id, write=True)
            del self.hub.repos[repo_id]
        raise _Answer(200, b"OK")

    def validate_yaml(self) -> None:
        errors = []
        try:
            data = yaml.safe_load(self._json()["content"].split("---\n", 2)[1])
            if not isinstance(data, dict) or not all(isinstance(t, str) for t in data.get("tags", [])):
                errors = [{"message": '"tags" must be a list of texts'}]
            if data.get("license") == "other" and not data.get("license_name"):
                errors = [{"message": '"license_name" is required'}]
        except (IndexError, yaml.YAMLError) as error:
            errors = [{"message": str(error)}]
        raise _Answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id, write=True)
        _, listing = self._at(repo, revision)
        files = []
        for file in self._json()["files"]:
            lfs = file["path"].endswith(LFS_SUFFIXES)
            known = listing.get(file["path"])
            oid = None if known is None else (known[0] if lfs else _git_oid(self.hub.blob(known[0])))
            mode = "lfs" if lfs else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        raise _Answer(200, {"files": files})

    def lfs_batch(self, repo_id: str) -> None:
        self._repo(repo_id, write=True)
        objects = []
        for item in self._json()["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if not self.hub.has(item["oid"]):
                entry["actions"] = {"upload": {"href": f"{self.hub.cdn}/_upload/{item['oid']}"}}
            objects.append(entry)
        raise _Answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Answer(400, message="wrong content")
        self.hub.store(self.body)
        raise _Answer(200, b"")

    def commit(self, repo_id: str, revision: str) -> None:
        lines = [json.loads(line) for line in self.body.splitlines()]
        with self.hub.lock:
            repo = self._repo(repo_id, write=True)
            head, listing = self._at(repo, revision)
            listing = dict(listing)
            for line in lines:
                value = line["value"]
                if line["key"] == "header" and value.get("parentCommit") not in (None, head):
                    raise _Answer(412, message="A commit has happened since. Please refresh and try again.")
                if line["key"] == "file":
                    listing[value["path"]] = (self.hub.store(base64.b64decode(value["content"])), False)
                elif line["key"] == "lfsFile":
                    if not self.hub.has(value["oid"]):
                        raise _Answer(400, message="LFS object was never uploaded")
                    listing[value["path"]] = (value["oid"], True)
                elif line["key"] == "deletedFile":
                    listing.pop(value["path"])
            sha = self.hub.commit(repo, listing)
        url = f"{self.hub.endpoint}/{repo_id}/commit/{sha}"
        raise _Answer(200, {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def settings(self, repo_id: str) -> None:
        repo, body = self._repo(repo_id, write=True), self._json()
        if "visibility" in body or "private" in body:
            repo.private = body.get("visibility") == "private" or bool(body.get("private"))
        repo.gated = bool(body.get("gated", repo.gated))
        raise _Answer(200, {"private": repo.private})

    def info(self, repo_id: str, revision: str | None = None) -> None:
        repo = self._repo(repo_id)
        sha, listing = self._at(repo, revision or "main")
        raise _Answer(
            200, self._describe(repo_id, repo) | {"sha": sha, "siblings": [{"rfilename": n} for n in listing]}
        )

    def list_models(self) -> None:
        user, found = self.hub.user(self.token), []
        for repo_id, repo in self.hub.repos.items():
            if repo.private and user != repo_id.split("/")[0]:
                continue
            entry = self._describe(repo_id, repo)
            if not set(self.query.get("filter", [])) <= set(entry["tags"]):
                continue
            if self.query.get("search", [""])[0].lower() not in repo_id.lower():
                continue
            if self.query.get("author", [repo_id.split("/")[0]])[0] != repo_id.split("/")[0]:
                continue
            found.append(entry)
        found.sort(key=lambda entry: entry["lastModified"], reverse=True)
        raise _Answer(200, found[: int(self.query.get("limit", ["100"])[0])])

    def _describe(self, repo_id: str, repo: Repo) -> dict[str, Any]:
        card: dict[str, Any] = {}
        readme = repo.commits[-1][1].get("README.md")
        if readme:
            try:
                card = yaml.safe_load(self.hub.blob(readme[0]).decode().split("---\n", 2)[1]) or {}
            except (IndexError, ValueError, yaml.YAMLError):
                card = {}
        tags = [*card.get("tags", []), *([card["library_name"]] if "library_name" in card else [])]
        when = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(repo.modified))
            + f".{int(repo.modified % 1 * 1e3):03d}Z"
        )
        return {
            "_id": hashlib.md5(repo_id.encode()).hexdigest(),
            "id": repo_id,
            "modelId": repo_id,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "downloads": 0,
            "likes": 0,
            "lastModified": when,
            "tags": tags,
            "library_name": card.get("library_name"),
        }

    def _entry(self, repo_id: str, name: str, oid: str, lfs: bool) -> dict[str, Any]:
        content = self.hub.blob(oid)
        size = self.hub.listed_sizes.get((repo_id, name), len(content))
        entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": _git_oid(content)}
        if lfs:
            entry["lfs"] = {"oid": oid, "size": size, "pointerSize": 134}
        return entry

    def tree(self, repo_id: str, revision: str) -> None:
        _, listing = self._at(self._repo(repo_id), revision)
        raise _Answer(200, [self._entry(repo_id, name, *file) for name, file in listing.items()])

    def paths_info(self, repo_id: str, revision: str) -> None:
        _, listing = self._at(self._repo(repo_id), revision)
        names = parse_qs(self.body.decode()).get("paths", [])
        raise _Answer(200, [self._entry(repo_id, name, *listing[name]) for name in names if name in listing])

    def resolve(self, repo_id: str, revision: str, name: str) -> None:
        sha, listing = self._at(self._repo(repo_id, files=True), revision)
        if name not in listing:
            raise _Answer(404, code="EntryNotFound", message="Entry not found", X_Repo_Commit=sha)
        oid, lfs = listing[name]
        content = self.hub.served.get((repo_id, name), self.hub.blob(oid))
        if lfs:
            target = f"{self.hub.cdn}/_cdn/{repo_id}/{name}/{oid}"
            linked = {"X_Linked_Size": str(len(content)), "X_Linked_ETag": f'"{oid}"', "Location": target}
            raise _Answer(302, b"", X_Repo_Commit=sha, ETag=f'"{oid}"', **linked)
        self._content(content, ETag=f'"{_git_oid(content)}"', X_Repo_Commit=sha)

    def from_cdn(self, repo_id: str, name: str, oid: str) -> None:
        self._content(self.hub.served.get((repo_id, name), self.hub.blob(oid)), ETag=f'"{oid}"')

    def _content(self, content: bytes, **headers: str) -> None:
        headers |= {"Accept_Ranges": "bytes", "Last_Modified": formatdate(usegmt=True)}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not match:
            raise _Answer(200, content, Content_Length=str(len(content)), **headers)
        start, end = int(match[1]), int(match[2] or len(content) - 1)
        if start >= len(content):
            raise _Answer(416, b"", Content_Range=f"bytes */{len(content)}")
        part = content[start : end + 1]
        where = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        raise _Answer(206, part, Content_Range=where, Content_Length=str(len(part)), **headers)


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_ID = r"(?P<repo_id>[A-Za-z0-9._-]+/[A-Za-z0-9._-]+)"
_ROUTES = (
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create),
    ("DELETE", "/api/repos/delete", _Handler.delete),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("GET", "/api/models", _Handler.list_models),
    ("POST", rf"/api/models/{_ID}/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", rf"/api/models/{_ID}/commit/(?P<revision>.+)", _Handler.commit),
    ("POST", rf"/api/models/{_ID}/paths-info/(?P<revision>.+)", _Handler.paths_info),
    ("GET", rf"/api/models/{_ID}/tree/(?P<revision>.+)", _Handler.tree),
    ("PUT", rf"/api/models/{_ID}/settings", _Handler.settings),
    ("GET", rf"/api/models/{_ID}/revision/(?P<revision>.+)", _Handler.info),
    ("GET", rf"/api/models/{_ID}", _Handler.info),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/_upload/(?P<oid>[0-9a-f]{64})", _Handler.upload),
    ("GET HEAD", rf"/_cdn/{_ID}/(?P<name>.+)/(?P<oid>[0-9a-f]{{64}})", _Handler.from_cdn),
    ("GET HEAD", rf"/{_ID}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", _Handler.resolve),
)
