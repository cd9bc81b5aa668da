"""Unfinished work on the Hub: one private repository for each job, deleted with it, history and all.

A machine that trains may vanish with its disk. What it needs to go on (request, clip, newest checkpoint) is a few
files of 10 MB or so, renewed every few minutes. A repository of its own for each job can be deleted as a whole:
in a shared one every old clip would stay in the history.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from talker.errors import HubError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "talker-work"
MAX_BYTES, MAX_FILES = 2 << 30, 200
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
_NAME = re.compile(rf"{_PART}(?:/{_PART}){{0,3}}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{24}")
_SMALL_S, _MIN_BYTES_PER_S = 120.0, 50_000


class WorkRepos:
    """The jobs one place keeps on the Hub.

    Args:
        namespace: Account that owns the repositories; None for the token's own.
        place: Short name of the place that trains; another place does not see these jobs.
        endpoint: Address of the server; ``HF_ENDPOINT`` or huggingface.co by default.
        token: With write access; None uses the sign-in of this machine.
    """

    def __init__(
        self, namespace: str | None, place: str, *, endpoint: str | None = None, token: str | None = None
    ) -> None:
        from huggingface_hub import HfApi

        self._api: HfApi = HfApi(endpoint=endpoint, token=token, library_name="talker")
        self._namespace = namespace
        self.place = re.sub(r"[^a-z0-9]", "", place.lower())[:24] or "here"

    @property
    def namespace(self) -> str:
        """The owner; asks the Hub once if none was given.

        Raises:
            HubError: Nobody is signed in, or the Hub cannot be reached.
        """
        from talker.hub.compute import require_token
        from talker.hub.transport import limits

        if self._namespace is None:
            require_token(self._api)
            with limits(_SMALL_S):
                self._namespace = str(self._api.whoami()["name"])
        return self._namespace

    def repo_id(self, job_id: str) -> str:
        """Where a job is kept."""
        return f"{self.namespace}/{PREFIX}-{self.place}-{job_id}"

    def jobs(self) -> list[str]:
        """Ids of the jobs kept.

        Raises:
            HubError: ``hub.offline``, ``.unauthorized``, ...
        """
        from talker.hub.transport import limits

        start = f"{self.namespace}/{PREFIX}-{self.place}-"
        with limits(_SMALL_S):
            found = [m.id for m in self._api.list_models(author=self.namespace, search=start.split("/")[1])]
        ids = [name.removeprefix(start) for name in found if name.startswith(start)]
        return [job_id for job_id in ids if _ID.fullmatch(job_id)]

    def push(self, job_id: str, files: dict[str, Path], parent: str | None, *, whole: bool = True) -> str:
        """Make the repository hold ``files``; returns the commit.

        Args:
            job_id: The job.
            files: Name in the repository -> local file.
            parent: Commit this place wrote last; None for the first time. If somebody wrote since, nothing happens.
            whole: Delete what is not in ``files``.

        Raises:
            HubError: ``hub.conflict``: somebody else wrote since; ``hub.offline``, ...
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
        from huggingface_hub.hf_api import RepoFile

        from talker.hub.transport import limits

        repo_id = self.repo_id(job_id)
        size = sum(path.stat().st_size for path in files.values())
        with limits(_SMALL_S + size / _MIN_BYTES_PER_S):
            if parent is None:
                self._api.create_repo(repo_id, private=True, exist_ok=True)
            operations: list = [CommitOperationAdd(name, path) for name, path in files.items()]
            if whole and parent is not None:
                tree = self._api.list_repo_tree(repo_id, recursive=True, revision=parent)
                there = {entry.path for entry in tree if isinstance(entry, RepoFile)}
                gone = sorted(there - set(files) - {".gitattributes"})
                operations += [CommitOperationDelete(name) for name in gone]
            done = self._api.create_commit(
                repo_id, operations, commit_message="Keep the work", parent_commit=parent
            )
        return str(done.oid)

    def pull(self, job_id: str, dest: Path, *, only: str = "") -> str:
        """Fetch what is kept of a job into ``dest``; returns the commit.

        Args:
            job_id: The job.
            dest: Folder to fill.
            only: Take only files whose names begin so.

        Raises:
            HubError: ``hub.not_found``, ``.too_large``, ``.offline``, ...
        """
        from huggingface_hub.hf_api import RepoFile

        from talker.hub.transport import limits

        repo_id = self.repo_id(job_id)
        with limits(_SMALL_S):
            commit = self.head(job_id)
            tree = self._api.list_repo_tree(repo_id, recursive=True, revision=commit)
            files = [e for e in tree if isinstance(e, RepoFile) and e.path != ".gitattributes"]
        files = [e for e in files if e.path.startswith(only)]
        size = sum(entry.size for entry in files)
        if len(files) > MAX_FILES or size > MAX_BYTES:
            raise HubError("hub.too_large", "The kept work is larger than any job's.", todo="Delete it.")
        with (
            limits(_SMALL_S + size / _MIN_BYTES_PER_S, size + (16 << 20)),
            tempfile.TemporaryDirectory() as tmp,
        ):
            for entry in files:
                if not _NAME.fullmatch(entry.path) or ".." in PurePosixPath(entry.path).parts:
                    continue
                got = self._api.hf_hub_download(repo_id, entry.path, revision=commit, local_dir=tmp)
                target = dest / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(got, target)
        return commit

    def head(self, job_id: str) -> str:
        """Newest commit of a job's repository.

        Raises:
            HubError: ``hub.not_found``, ``.offline``, ...
        """
        from talker.hub.transport import limits

        with limits(_SMALL_S):
            return str(self._api.model_info(self.repo_id(job_id), expand=["sha"]).sha)

    def forget(self, job_id: str) -> None:
        """Delete the repository of a job; nothing to do if there is none.

        Raises:
            HubError: ``hub.offline``, ``.forbidden``, ...
        """
        from talker.hub.transport import limits

        with limits(_SMALL_S):
            self._api.delete_repo(self.repo_id(job_id), missing_ok=True)
