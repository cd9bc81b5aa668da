"""How a training run went: PSNR over steps and seconds, and its memory, kept on disk while it runs."""

from __future__ import annotations

import time
from pathlib import Path

from talker.events import Event, Progress, StageStarted
from talker.safe_files import read_json, write_json
from talker.train.ablation.figures import peak_memory_mb
from talker.train.schedule import Stage

POINTS = 60
"""About as many points are kept of one run."""


class Curve:
    """Points of one run. An interrupted run goes on with those up to its checkpoint.

    Args:
        path: Where the points are kept between processes.
        stages: The stages that are trained, with their final number of steps.
    """

    def __init__(self, path: Path, stages: tuple[Stage, ...]) -> None:
        self.path = path
        self._first = {s.name: sum(before.steps for before in stages[:i]) for i, s in enumerate(stages)}
        self._total = sum(stage.steps for stage in stages)
        saved = read_json(path, max_bytes=1 << 20) if path.is_file() else {}
        self.points: list[list[float]] = saved.get("points", [])
        """Steps of all stages so far, seconds of training, running mean of the training frames' PSNR in dB."""
        self.peak_memory_mb: float = saved.get("peak_memory_mb", 0.0)
        self.cpu_s: float = saved.get("cpu_s", 0.0)
        """CPU time of training, all threads; steps done twice after an interruption count twice."""
        self._clock: float | None = None
        self._cpu_clock = 0.0
        self._offset_s: float | None = None

    def observe(self, event: Event) -> None:
        """Take note of what the training says."""
        if isinstance(event, StageStarted) and event.stage in self._first and self._clock is None:
            self._clock, self._cpu_clock = time.monotonic(), time.process_time()
        if isinstance(event, Progress) and event.stage in self._first:
            self._add(self._first[event.stage] + event.step, event)

    def _add(self, step: int, event: Progress) -> None:
        assert self._clock is not None, "a stage starts before it reports"
        if self._offset_s is None:  # steps after the last checkpoint are done again
            self.points = [point for point in self.points if point[0] < step]
            self._offset_s = self.points[-1][1] if self.points else 0.0
        due = not self.points or step - self.points[-1][0] >= self._total / POINTS
        if due or event.step == event.total:
            seconds = self._offset_s + time.monotonic() - self._clock
            self.points.append([step, round(seconds, 2), round(event.values["psnr"], 3)])
            now = time.process_time()
            self.cpu_s, self._cpu_clock = round(self.cpu_s + now - self._cpu_clock, 2), now
            self.peak_memory_mb = max(self.peak_memory_mb, round(peak_memory_mb(), 1))
            self.save()

    def save(self) -> None:
        """Write what is known so far."""
        known = {"points": self.points, "peak_memory_mb": self.peak_memory_mb, "cpu_s": self.cpu_s}
        write_json(self.path, known)
