"""Pre-flight: what is good and bad about a clip, where, and what to do, before anybody waits for training."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from talker.audio.activity import speech_activity
from talker.dataset.moments import Picture, Samples, Span, longest_part, names, spans, timecode
from talker.dataset.steps import framing, landmarks, mesh
from talker.dataset.steps.framing import Face
from talker.errors import TrackingError
from talker.types import FPS, SAMPLE_RATE
from talker.video.decode import DecodedClip, decode

PROBE_EVERY_S = 0.4
CHECK_SIDE = 640
MESH_FRAMES = 60 * FPS
"""The mouth is watched for at most this long."""

SECONDS = (3.0, 10.0)
"""Shorter than the first cannot be used, than the second is poor."""

FACE_PX = (60, 110)
"""Height of the face, brows to chin, in the clip's own pixels: cannot be used below, soft below."""

FACE_SHARE = (0.4, 0.9)
SECOND_FACE = 0.5
"""A second face of this height relative to the speaker's is a second person."""

CROWD_SHARE = 0.5
"""Share of the clip with a second person from which it is refused."""

TURNED_DEG, TURNED_SHARE = 35.0, (0.1, 0.5)
"""Degrees to the side as a mesh tells them, four fifths of the truth; shares of the clip from which there is a warning,
and no avatar."""

BLURRED, DARK, BRIGHT = 12.0, 45.0, 225.0
STILL_MOUTH = 0.012
"""Deviation of the inner-lip gap over the eye distance, below which nobody speaks."""

LOCAL = {"face.missing", "face.two", "face.turned"}
"""Findings that leaving out a part of the clip can cure."""

QUIET = 2e-3
"""Root mean square of a sound track that is as good as silent."""

FOLLOWS_Z = 1.2
"""Deviations by which mouth and sound must agree better than mouth and shifted sound."""


@dataclass(frozen=True)
class Finding:
    """One observation."""

    code: str
    severity: str
    """``info``, ``warning`` (the avatar will be worse) or ``error`` (there will be none)."""
    message: str
    todo: str = ""
    timecodes: tuple[str, ...] = ()
    """When, for a person; the first few."""
    spans: tuple[Span, ...] = ()
    """When, in seconds; all of them."""

    @classmethod
    def at(cls, code: str, severity: str, message: str, todo: str, spans: Iterable[Span]) -> Finding:
        """An observation at some times."""
        when = tuple(spans)
        return cls(code, severity, message, todo, names(when), when)


@dataclass(frozen=True)
class CheckReport:
    """What was found in a clip."""

    name: str
    duration_s: float
    findings: tuple[Finding, ...]
    pictures: tuple[Picture, ...] = field(repr=False)
    """Examples of the clip, and frames the findings are about."""
    facts: dict[str, Any] = field(default_factory=dict)
    part: Span | None = None
    """The longest good part, seconds; the whole clip if nothing is wrong."""

    @property
    def ok(self) -> bool:
        """Nothing forbids making an avatar of it."""
        return all(f.severity != "error" for f in self.findings)

    @property
    def part_ok(self) -> bool:
        """An avatar can be made of ``part``: whatever forbids using the clip as a whole is not in it."""
        errors = {f.code for f in self.findings if f.severity == "error"}
        return self.part is not None and errors <= LOCAL and self.part[1] - self.part[0] >= SECONDS[0]

    @property
    def frames(self) -> tuple[np.ndarray, ...]:
        """The examples of the clip [H, W, 3] uint8 with the face and the kept square drawn in."""
        return tuple(picture.rgb for picture in self.pictures if not picture.code)

    def summary(self) -> str:
        """A few lines for a person."""
        verdict = "can be used" if self.ok else "cannot be used"
        lines = [f"{self.name} ({self.duration_s:.1f} s) {verdict}."]
        for f in self.findings:
            when = f" (at {', '.join(f.timecodes)})" if f.timecodes else ""
            lines.append(f"- {f.severity}: {f.message}{when} {f.todo}".rstrip())
        if self.part_ok and not self.ok and self.part is not None:
            lines.append(
                f"- But the part from {timecode(self.part[0])} to {timecode(self.part[1])} can be used."
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the pictures."""
        return {
            "name": self.name,
            "ok": self.ok,
            "duration_s": self.duration_s,
            "findings": [asdict(f) for f in self.findings],
            "facts": self.facts,
            "part": self.part,
            "part_ok": self.part_ok,
        }


def check(clip: Path, *, name: str | None = None) -> CheckReport:
    """Look at a clip as ``prepare`` would.

    Args:
        clip: The video.
        name: What to call it in messages; its own name by default.

    Raises:
        VideoError: It cannot be read at all, is too long or too large.
    """
    clip = Path(clip)
    with tempfile.TemporaryDirectory(prefix="talker-check-") as work:
        decoded = decode(clip, Path(work), max_side=CHECK_SIDE, name=name)
        return examine(decoded, name or clip.name)


def examine(decoded: DecodedClip, name: str) -> CheckReport:
    """Report on a decoded clip."""
    frames = decoded.frames
    seconds = len(frames) / FPS
    zoom = decoded.info.height / frames.shape[1]
    findings = [*_length(seconds), *_sound(decoded.waveform)]
    index = np.arange(0, len(frames), max(1, round(PROBE_EVERY_S * FPS)))
    found = list(framing.detect_faces(frames, index))
    facts: dict[str, Any] = {
        "Length": f"{seconds:.1f} s",
        "Picture": f"{decoded.info.width} x {decoded.info.height}, {float(decoded.info.fps):.2f} fps",
    }
    try:
        speaker = framing.main_speaker(found)
    except TrackingError as error:
        findings.append(Finding("face.none", "error", error.found, error.todo))
        seen = Samples(frames, index, found, [None] * len(index), None)
        return CheckReport(name, seconds, tuple(findings), seen.examples(), facts)
    crop = framing.plan_crop(speaker, frames.shape[1], frames.shape[2])
    seen = Samples(frames, index, found, speaker, crop)
    missing = np.array([face is None for face in speaker])
    crowded = _crowded(seen)
    points = _mesh(decoded, crop)
    away = _away(points, missing, index)
    facts["Face visible"] = f"{100 * (1 - missing.mean()):.0f} %"
    findings += [
        *_presence(missing, index, len(frames)),
        *_crowd(crowded, index),
        *_size(speaker, crop, zoom),
        *_picture_quality(seen),
        *_cuts(frames),
        *_turned(away),
        *_mouth(points, decoded.waveform),
    ]
    pictures = [*seen.examples(), *(p for f in findings if f.spans for p in seen.evidence(f.code, f.spans))]
    lost = missing | np.pad(away, (0, len(frames) - len(away)))[index]
    part = longest_part(index, lost, crowded, seconds)
    return CheckReport(name, seconds, tuple(findings), tuple(pictures), facts, part)


def _length(seconds: float) -> list[Finding]:
    if seconds < SECONDS[0]:
        message = f"The clip is only {seconds:.1f} s long."
        return [Finding("length.too_short", "error", message, f"Film at least {SECONDS[1]:.0f} s of speech.")]
    if seconds < SECONDS[1]:
        message = f"{seconds:.1f} s are little to learn a mouth from."
        return [Finding("length.short", "warning", message, "Half a minute or more looks much better.")]
    return []


def _sound(waveform: np.ndarray | None) -> list[Finding]:
    todo = "Export the video again with the speaker's voice."
    if waveform is None:
        return [Finding("sound.none", "error", "The clip has no sound; lips are learnt from it.", todo)]
    if float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2))) < QUIET:
        return [Finding("sound.silent", "error", "The sound track is silent.", todo)]
    return []


def _presence(missing: np.ndarray, index: np.ndarray, n_frames: int) -> list[Finding]:
    if not missing.any():
        return []
    share = 1 - missing.mean()
    when = spans(index, missing)
    skipped = max(1, round(n_frames * missing.mean()))
    if share >= FACE_SHARE[1]:
        said = f"No face is seen for a moment; about {skipped} frame{'s' * (skipped > 1)} will be skipped."
        return [Finding.at("face.missing", "info", said, "", when)]
    return [
        Finding.at(
            "face.missing",
            "error" if share < FACE_SHARE[0] else "warning",
            f"A face is visible in only {100 * share:.0f} % of the clip; about {skipped} frames will be skipped.",
            "Use only the part in which the speaker looks towards the camera.",
            when,
        )
    ]


def _crowded(seen: Samples) -> np.ndarray:
    """Samples [N] with a second person inside the square that is kept."""
    assert seen.crop is not None
    x, y, side = seen.crop
    low, high = np.array([x, y]), np.array([x + side, y + side])

    def others(faces: list[Face], main: Face | None) -> bool:
        return main is not None and any(
            f is not main
            and f.score > 0.6
            and f.height > SECOND_FACE * main.height
            and bool(((f.centre > low) & (f.centre < high)).all())
            for f in faces
        )

    return np.array([others(faces, main) for faces, main in zip(seen.found, seen.speaker, strict=True)])


def _crowd(crowded: np.ndarray, index: np.ndarray) -> list[Finding]:
    share = crowded.mean()
    if share < 0.03:
        return []
    return [
        Finding.at(
            "face.two",
            "error" if share > CROWD_SHARE else "warning",
            f"A second face is in the picture for {100 * share:.0f} % of the clip.",
            "Use only a part in which the speaker is alone, or crop the clip.",
            spans(index, crowded),
        )
    ]


def _size(speaker: list[Face | None], crop: tuple[int, int, int], zoom: float) -> list[Finding]:
    tall = float(np.median([f.height for f in speaker if f is not None])) * zoom
    if tall >= FACE_PX[1]:
        return []
    message = f"The face is only {tall:.0f} pixels high (from a square of {crop[2] * zoom:.0f} pixels)."
    severity = "error" if tall < FACE_PX[0] else "warning"
    return [Finding("face.small", severity, message, "Film closer, or use the original resolution.")]


def _picture_quality(seen: Samples) -> list[Finding]:
    sharp, light = [], []
    for i, face in zip(seen.index, seen.speaker, strict=True):
        patch = None if face is None else _patch(seen.frames[i], face)
        sharp.append(
            np.nan if patch is None else cv2.Laplacian(cv2.GaussianBlur(patch, (0, 0), 1.0), cv2.CV_32F).var()
        )
        light.append(np.nan if patch is None else patch.mean())
    findings = []
    blurred, usual = np.array(sharp) < BLURRED, float(np.nanmedian(light))
    if blurred.mean() > 0.3:
        findings.append(
            Finding.at(
                "picture.blurred",
                "warning",
                f"The face is out of focus or blurred in {100 * blurred.mean():.0f} % of the clip.",
                "Hold the camera still, focus on the face, and avoid strong compression.",
                spans(seen.index, blurred),
            )
        )
    if usual < DARK or usual > BRIGHT:
        word = "dark" if usual < DARK else "overexposed"
        todo = "Light the face from the front, evenly."
        findings.append(Finding(f"picture.{word}", "warning", f"The face is {word}.", todo))
    return findings


def _patch(frame: np.ndarray, face: Face, side: int = 96) -> np.ndarray | None:
    """The face in grey [side, side] uint8; None if it is hardly inside."""
    size = np.array([frame.shape[1], frame.shape[0]])
    low, high = (np.clip(corner, 0, size).astype(int) for corner in (face.box[:2], face.box[2:]))
    if (high - low).min() < 8:
        return None
    part = np.ascontiguousarray(frame[low[1] : high[1], low[0] : high[0]])
    return cv2.resize(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), (side, side), interpolation=cv2.INTER_AREA)


def _cuts(frames: np.ndarray) -> list[Finding]:
    shots = framing.ShotCounter()
    for frame in frames:
        shots.add(frame)
    cuts = np.flatnonzero(np.diff(shots.segments())) + 1
    if not len(cuts):
        return []
    often = len(cuts) / (len(frames) / FPS) > 0.5
    return [
        Finding.at(
            "picture.cuts",
            "warning" if often else "info",
            f"The clip is cut {len(cuts)} time{'s' if len(cuts) > 1 else ''}.",
            "An uncut take moves more naturally." if often else "",
            [(t / FPS, t / FPS) for t in cuts],
        )
    ]


def _mesh(decoded: DecodedClip, crop: tuple[int, int, int]) -> np.ndarray:
    """Landmarks [T, 478, 3] of the first minute; NaN where the face cannot be followed."""
    frames = decoded.frames[:MESH_FRAMES]
    side = max(landmarks.MIN_SIDE, min(crop[2], CHECK_SIDE))
    cut = framing.crop_frames(frames, crop, side)
    return np.stack(list(landmarks.find_landmarks(cut, np.zeros(len(frames), int))))


def _away(points: np.ndarray, missing: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Frames [T] of a face that is there, but too far from the front, or covered, to be followed."""
    across = points[:, mesh.EYE_OUTER_LEFT] - points[:, mesh.EYE_OUTER_RIGHT]
    degrees = np.degrees(np.abs(np.arctan2(across[:, 2], across[:, 0])))
    nearest = np.abs(np.arange(len(points))[:, None] - index).argmin(1)
    return ~(degrees <= TURNED_DEG) & ~missing[nearest]


def _turned(away: np.ndarray) -> list[Finding]:
    share = away.mean()
    if share < TURNED_SHARE[0]:
        return []
    message = (
        f"The face is turned away or covered for {100 * share:.0f} % of the clip; "
        "it can be followed up to about 45 degrees to the side."
    )
    severity = "error" if share > TURNED_SHARE[1] else "warning"
    todo = "Film from the front, with nothing before the face."
    return [Finding.at("face.turned", severity, message, todo, spans(np.arange(len(away)), away))]


def _mouth(points: np.ndarray, waveform: np.ndarray | None) -> list[Finding]:
    gap = np.linalg.norm(points[:, mesh.LIP_INNER_TOP, :2] - points[:, mesh.LIP_INNER_BOTTOM, :2], axis=1)
    eyes = np.linalg.norm(points[:, mesh.EYE_OUTER_RIGHT, :2] - points[:, mesh.EYE_OUTER_LEFT, :2], axis=1)
    opening = gap / eyes
    seen = np.isfinite(opening)
    if seen.sum() < 2 * FPS:
        return []
    opening = np.interp(np.arange(len(opening)), np.flatnonzero(seen), opening[seen])
    if opening.std() < STILL_MOUTH:
        message = "The mouth hardly moves; there is no speech to learn from."
        return [Finding("mouth.still", "error", message, "Use a clip in which the person talks.")]
    if waveform is None or len(opening) < 8 * FPS or mouth_follows(opening, waveform) >= FOLLOWS_Z:
        return []
    message = "The mouth does not seem to follow the sound (dubbed, music, or another speaker?)."
    todo = "Use a clip with the speaker's own voice, in sync."
    return [Finding("mouth.off_sound", "warning", message, todo)]


def mouth_follows(opening: np.ndarray, waveform: np.ndarray) -> float:
    """How much better the lips' motion agrees with the sound than with the same sound shifted, in deviations.

    Args:
        opening: [T] at FPS.
        waveform: [S].
    """
    n = len(opening)
    hop = SAMPLE_RATE // FPS
    sound = np.pad(waveform.astype(np.float64), (0, max(0, n * hop - len(waveform))))[: n * hop].reshape(
        n, hop
    )
    level = np.log(np.sqrt((sound**2).mean(1)) + 1e-4) + speech_activity(waveform, n)
    motion = np.abs(np.gradient(gaussian_filter1d(opening, 1.0)))
    voice, lips = _varying(gaussian_filter1d(level, 2.0)), _varying(gaussian_filter1d(motion, 2.0))
    agreement = np.fft.irfft(np.fft.rfft(lips) * np.conj(np.fft.rfft(voice)), n) / n
    shift = np.minimum(np.arange(n), n - np.arange(n))
    others = agreement[shift > FPS]
    return float((agreement[shift <= 3].max() - others.mean()) / max(others.std(), 1e-9))


def _varying(signal: np.ndarray) -> np.ndarray:
    """Without what is slower than a second, unit deviation."""
    fast = signal - gaussian_filter1d(signal, FPS)
    return fast / max(float(fast.std()), 1e-9)
