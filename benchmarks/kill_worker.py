"""What a kill costs: ``kill -9`` the worker at random moments while it trains a clip, and see how the job ends.

    python -m benchmarks.kill_worker CLIP [--kills 10] [--size 256] [--seed 0]

Writes ``benchmarks/results/kill_worker.json``: per kill the stage, the step, and the seconds of work lost (from the
newest checkpoint to the kill); whether stage 1 was ever entered again after stage 2 had begun; how the job ended.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from talker.jobs.job import JobRequest, JobState
from talker.jobs.queue import JobQueue
from talker.train.origin import commit, machine
from talker.train.presets import get_preset
from talker.types import Consent

OUT = Path(__file__).parent / "results" / "kill_worker.json"
STAGES = ("static", "deform")


class Trial:
    """One job, and the worker that does not survive it."""

    def __init__(self, clip: Path, home: Path, size: int) -> None:
        self.home, self.queue = home, JobQueue(home)
        consent = Consent("A measurement; deleted when it ends.", "bench", datetime.now(UTC).isoformat())
        request = JobRequest(name="bench", owner="bench", consent=consent, preset="preview", size=size)
        self.job_id = self.queue.submit(clip, request)
        self.worker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "talker.worker", "--home", str(self.home)]
            self.worker = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def kill(self) -> dict:
        """Kill the worker; what that cost."""
        job = self.queue.get(self.job_id)
        assert self.worker is not None
        self.worker.kill()
        now = time.time()
        self.worker.wait()
        return {"stage": job.stage, "step": job.step, "lost_s": round(now - self._saved(), 1)}

    def _saved(self) -> float:
        """When the newest checkpoint was written; before there is one, when this attempt began its stage."""
        manifests = self.queue.store.folder(self.job_id).glob("avatar.state/*/manifest.json")
        began = [event["t"] for event in self.queue.events(self.job_id)[0] if event["type"] == "stage"]
        return max((path.stat().st_mtime for path in manifests), default=max(began))

    def reached(self, aim: int, n_static: int) -> bool:
        """Whether the job is at step ``aim``, counted over both stages, or at its end."""
        job = self.queue.get(self.job_id)
        if not job.active:
            return True
        return job.stage in STAGES and job.step + n_static * STAGES.index(job.stage) >= aim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    static, deform = (stage.steps for stage in get_preset("preview").stages)
    dice = random.Random(a.seed)
    early = [dice.randrange(1, static) for _ in range(a.kills * 3 // 10)]
    aims = sorted(early + [static + dice.randrange(1, deform) for _ in range(a.kills - len(early))])
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(a.clip, Path(folder), a.size)
        started, kills = time.monotonic(), []
        for aim in aims:
            trial.start()
            while not trial.reached(aim, static):
                time.sleep(0.1)
            kills.append(trial.kill())
            print(kills[-1], file=sys.stderr, flush=True)
        trial.start()
        while trial.queue.get(trial.job_id).active:
            time.sleep(0.5)
        job = trial.queue.get(trial.job_id)
        entered = [e["stage"] for e in trial.queue.events(trial.job_id)[0] if e["type"] == "stage"]
        trained = [stage for stage in entered if stage in STAGES]
        assert trial.worker is not None
        trial.worker.kill()
        trial.worker.wait()
    results = {
        "kills": kills,
        "worst_lost_s": max(kill["lost_s"] for kill in kills),
        "ended": job.state,
        "error": job.error,
        "stage_1_repeated": any(x == "deform" and y == "static" for x, y in itertools.pairwise(trained)),
        "seconds_in_all": round(time.monotonic() - started, 1),
        "metrics": {
            k: v for k, v in job.summary.get("metrics", {}).items() if k in ("psnr", "psnr_mouth", "mouth_r")
        },
    }
    record = {"command": " ".join(["python -m benchmarks.kill_worker", a.clip.name, *sys.argv[2:]])}
    record |= {"commit": commit(), "machine": machine(), "results": results}
    OUT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    sys.exit(0 if job.state == JobState.DONE else 1)


if __name__ == "__main__":
    main()
