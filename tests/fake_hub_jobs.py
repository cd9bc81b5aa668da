"""Routes of the local Hub server for computing: a Space's time of sleep, buckets, and Jobs that really run.

A Job is a process of this machine: its command with its environment and secrets, its bucket a folder in the place of
the mount, its attempts and its timeout as asked. Nothing of the image is real.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fake_hub_routes import Handler, _Answer

if TYPE_CHECKING:
    from fake_hub import FakeHub

HARDWARE = (
    {"name": "cpu-upgrade", "prettyName": "CPU Upgrade", "usd": 0.0005, "gpu": None},
    {"name": "l4x1", "prettyName": "Nvidia L4", "usd": 0.013333, "gpu": ("L4", "24 GB")},
)


@dataclass
class CloudRun:
    """One Job: what was asked, and the process that does it."""

    id: str
    namespace: str
    spec: dict[str, Any]
    folder: Path
    stage: str = "SCHEDULING"
    message: str = ""
    tries: int = 0
    began: float = field(default_factory=time.time)
    process: subprocess.Popen[bytes] | None = None
    cancelled: bool = False

    def start(self, hub: FakeHub, env: dict[str, str]) -> None:
        threading.Thread(target=self._run, args=(hub, env), daemon=True).start()

    def _run(self, hub: FakeHub, env: dict[str, str]) -> None:
        command = list(self.spec["command"])
        for volume in self.spec.get("volumes") or []:
            place = hub.storage / "buckets" / volume["source"].replace("/", "__")
            mounted = re.compile(re.escape(volume["mountPath"]) + r"(?=/|$)")
            command = [mounted.sub(str(place), word) if mounted.match(word) else word for word in command]
        # Last: the interpreter of these tests may itself lie under a folder named like the mount.
        command = [sys.executable if word == "python" else word for word in command]
        given = self.spec["environment"] | self.spec.get("secrets", {})
        environment = {**os.environ, **env, **given, "TMPDIR": str(self.folder), "JOB_ID": self.id}
        paths = [p for p in (env.get("PYTHONPATH"), given.get("PYTHONPATH")) if p]
        environment["PYTHONPATH"] = os.pathsep.join(paths)  # the folder of the image is this one
        for tries in range(1, int(self.spec.get("attempts") or 1) + 1):
            self.tries = tries
            self.stage = "RUNNING"
            try:
                with (self.folder / "log").open("ab") as log:
                    self.process = subprocess.Popen(
                        command,
                        env=environment,
                        stdout=log,
                        stderr=log,
                        cwd=self.folder,
                        start_new_session=True,
                    )
                code = self.process.wait(self.spec.get("timeoutSeconds", 1800))
            except subprocess.TimeoutExpired:
                self.kill()
                self.stage, self.message = "ERROR", "Job timeout"
                return
            except OSError as e:  # there is no such command
                self.stage, self.message = "ERROR", str(e)
                return
            if self.cancelled:
                self.stage = "CANCELED"
                return
            if code == 0:
                self.stage = "COMPLETED"
                return
            self.message = f"exit status {code}"
        self.stage = "ERROR"

    def kill(self) -> None:
        """As when the machine is gone: everything at once."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, 9)
            self.process.wait()

    def describe(self) -> dict[str, Any]:
        when = datetime.fromtimestamp(self.began, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        spec = {k: v for k, v in self.spec.items() if k not in ("secrets", "timeoutSeconds", "attempts")}
        return spec | {
            "id": self.id,
            "createdAt": when,
            "secrets": {name: "" for name in self.spec.get("secrets", {})},
            "owner": {"id": "0", "name": self.namespace, "type": "user"},
            "status": {"stage": self.stage, "message": self.message or None},
            "durations": {"runningSecs": int(time.time() - self.began)},
        }


class JobRoutes(Handler):
    """The handler of the whole server: these routes first, then those of repositories."""

    def _dispatch(self) -> None:
        for method, pattern, function in _ROUTES:
            match = re.fullmatch(pattern, self.route)
            if match and self.command == method:
                function(self, **match.groupdict())
        super()._dispatch()

    def _owner(self, namespace: str) -> None:
        if self._signed_in() != namespace:
            raise _Answer(403, message="You may not do this in this namespace")

    def sleep_time(self, owner: str, name: str) -> None:
        self._owner(owner)
        seconds = self._json()["seconds"]
        self.hub.sleep_times.append((f"{owner}/{name}", seconds))
        runtime = {"stage": "RUNNING", "hardware": {"current": "l4x1", "requested": "l4x1"}}
        raise _Answer(200, runtime | {"gcTimeout": None if seconds < 0 else seconds})

    def bucket(self, owner: str, name: str) -> None:
        self._owner(owner)
        body = self._json()
        folder = self.hub.storage / "buckets" / f"{owner}__{name}"
        if folder.exists():
            url = f"{self.hub.endpoint}/buckets/{owner}/{name}"
            raise _Answer(409, {"error": "You already created this bucket", "url": url})
        folder.mkdir(parents=True)
        self.hub.buckets[f"{owner}/{name}"] = body.get("visibility") == "private"
        raise _Answer(200, {"url": f"{self.hub.endpoint}/buckets/{owner}/{name}", "id": f"{owner}/{name}"})

    def hardware(self) -> None:
        listed = []
        for item in HARDWARE:
            gpu = item["gpu"]
            kind = {"type": "gpu", "quantity": "1", "manufacturer": "Nvidia"}
            listed.append(
                {
                    "name": item["name"],
                    "pretty_name": item["prettyName"],
                    "prettyName": item["prettyName"],
                    "cpu": "8 vCPU",
                    "ram": "32 GB",
                    "ephemeralStorage": "50 GB",
                    "accelerator": kind | {"model": gpu[0], "vram": gpu[1]} if gpu else None,
                    "unitCostMicroUSD": round(item["usd"] * 1e6),
                    "unitCostUSD": item["usd"],
                    "unitLabel": "minute",
                }
            )
        raise _Answer(200, listed)

    def run(self, namespace: str) -> None:
        self._owner(namespace)
        if not self.hub.credit:
            raise _Answer(402, message="Pre-paid credit balance is insufficient")
        spec = self._json()
        for volume in spec.get("volumes") or []:
            if volume["type"] == "bucket" and volume["source"] not in self.hub.buckets:
                raise _Answer(404, message="Bucket not found")
        job = CloudRun(
            f"{len(self.hub.jobs):024x}", namespace, spec, self.hub.storage / f"job{len(self.hub.jobs)}"
        )
        job.folder.mkdir(parents=True)
        self.hub.jobs[job.id] = job
        job.start(self.hub, self.hub.job_environment)
        raise _Answer(200, job.describe())

    def listed(self, namespace: str) -> None:
        self._owner(namespace)
        wanted = [label.split("=", 1) for label in self.query.get("label", [])]
        found = [
            j for j in self.hub.jobs.values() if all(j.spec.get("labels", {}).get(k) == v for k, v in wanted)
        ]
        raise _Answer(200, [job.describe() for job in found if job.namespace == namespace])

    def _job(self, namespace: str, job_id: str) -> CloudRun:
        self._owner(namespace)
        if job_id not in self.hub.jobs:
            raise _Answer(404, message="Job not found")
        return self.hub.jobs[job_id]

    def inspect(self, namespace: str, job_id: str) -> None:
        raise _Answer(200, self._job(namespace, job_id).describe())

    def cancel(self, namespace: str, job_id: str) -> None:
        job = self._job(namespace, job_id)
        job.cancelled = True
        job.kill()
        raise _Answer(200, job.describe())

    def logs(self, namespace: str, job_id: str) -> None:
        job = self._job(namespace, job_id)
        lines = (job.folder / "log").read_text().splitlines() if (job.folder / "log").exists() else []
        tail = int(self.query.get("tail", ["1000"])[0])
        events = [json.dumps({"timestamp": "2026-01-01T00:00:00Z", "data": line}) for line in lines[-tail:]]
        body = "".join(f"data: {event}\n\n" for event in events).encode()
        raise _Answer(200, body, Content_Type="text/event-stream")


_PART = r"[A-Za-z0-9._-]+"
_NS, _JOB = rf"(?P<namespace>{_PART})", r"(?P<job_id>[0-9a-f]{24})"
_ROUTES = (
    ("POST", rf"/api/spaces/(?P<owner>{_PART})/(?P<name>{_PART})/sleeptime", JobRoutes.sleep_time),
    ("POST", rf"/api/buckets/(?P<owner>{_PART})/(?P<name>{_PART})", JobRoutes.bucket),
    ("GET", "/api/jobs/hardware", JobRoutes.hardware),
    ("POST", rf"/api/jobs/{_NS}", JobRoutes.run),
    ("GET", rf"/api/jobs/{_NS}", JobRoutes.listed),
    ("GET", rf"/api/jobs/{_NS}/{_JOB}", JobRoutes.inspect),
    ("POST", rf"/api/jobs/{_NS}/{_JOB}/cancel", JobRoutes.cancel),
    ("GET", rf"/api/jobs/{_NS}/{_JOB}/logs", JobRoutes.logs),
)
