"""A home with a job in every state, as the Jobs page may meet it; nothing in it was trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from talker.events import Preview, PreviewClip, Progress, StageStarted
from talker.jobs.job import JobRequest, JobState
from talker.jobs.recorder import Recorder, RecorderConfig
from talker.jobs.store import JobStore
from talker.provenance import new_consent

STATES = {
    "Finished": (JobState.RUNNING, JobState.DONE),
    "Broken": (JobState.RUNNING, JobState.FAILED),
    "Paused": (JobState.RUNNING, JobState.STOPPED),
    "A person with a long name": (JobState.RUNNING,),
    "Next": (),
    "Last": (),
}


def put_jobs(home: Path) -> None:
    """One job for each way a job can be; the running one has pictures, curves and a log."""
    home.mkdir(parents=True, exist_ok=True)
    clip = home / "film.mp4"
    clip.write_bytes(b"no film")
    store = JobStore(home)
    for name, states in STATES.items():
        job_id = store.create(clip, JobRequest(name, "local", new_consent("Ada King")))
        for state in states:
            store.update(job_id, lambda old, s=state: dataclasses.replace(old, state=s))
        if states == (JobState.RUNNING,):
            _record(store.folder(job_id))


def _record(folder: Path) -> None:
    recorder = Recorder(folder, lambda: None, RecorderConfig(live_s=0.0, log_s=0.0))
    picture = np.full((256, 256, 3), 170, np.uint8)
    for stage in ("prepare/decode", "prepare/pose", "static"):
        recorder.record(StageStarted(stage, 100))
    for step in range(10, 60, 10):
        recorder.record(Progress("static", step, 100, 65.0, {"loss": 0.5 / step, "psnr": 20 + step / 10}))
        recorder.record(Preview("static", step, picture))
    recorder.record(PreviewClip("static", 60, np.zeros((6, 96, 96, 3), np.uint8), 12))
    recorder.record(StageStarted("deform", 5200))
    for step in range(100, 1300, 100):
        recorder.record(Progress("deform", step, 5200, 95.0, {"loss": 0.5 / step, "psnr": 22 + step / 1000}))
