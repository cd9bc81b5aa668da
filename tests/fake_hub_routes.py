"""The Hub's protocol, route by route, over the state of a ``FakeHub``; and what the faults do to an answer."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from fake_hub_types import EXPIRED, LFS_SUFFIXES, Fault, Repo, Request

if TYPE_CHECKING:
    from fake_hub import FakeHub


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


class Handler(BaseHTTPRequestHandler):
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
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create),
    ("DELETE", "/api/repos/delete", Handler.delete),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("GET", "/api/models", Handler.list_models),
    ("POST", rf"/api/models/{_ID}/preupload/(?P<revision>.+)", Handler.preupload),
    ("POST", rf"/api/models/{_ID}/commit/(?P<revision>.+)", Handler.commit),
    ("POST", rf"/api/models/{_ID}/paths-info/(?P<revision>.+)", Handler.paths_info),
    ("GET", rf"/api/models/{_ID}/tree/(?P<revision>.+)", Handler.tree),
    ("PUT", rf"/api/models/{_ID}/settings", Handler.settings),
    ("GET", rf"/api/models/{_ID}/revision/(?P<revision>.+)", Handler.info),
    ("GET", rf"/api/models/{_ID}", Handler.info),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/_upload/(?P<oid>[0-9a-f]{64})", Handler.upload),
    ("GET HEAD", rf"/_cdn/{_ID}/(?P<name>.+)/(?P<oid>[0-9a-f]{{64}})", Handler.from_cdn),
    ("GET HEAD", rf"/{_ID}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", Handler.resolve),
)
