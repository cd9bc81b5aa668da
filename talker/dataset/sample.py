"""A clip of a person who does not exist, with everything about it known: the tests' ground truth and a first toy.

The speaker is drawn by code alone (``talker.dataset.synthetic``): no real person, no licensed model. The voice is
synthetic too. Lips are a fixed function of the sound, so there is a relation to learn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from talker.audio import tts
from talker.dataset.synthetic.character import Character
from talker.dataset.synthetic.head import RIGID_LANDMARKS, mouth_gap, rigid_points
from talker.dataset.synthetic.performance import Performance, camera_matrix, perform
from talker.errors import ConfigError
from talker.types import FPS, SAMPLE_RATE
from talker.video.encode import write_mp4

__all__ = ["RIGID_LANDMARKS", "SampleTruth", "make_sample"]

SENTENCES = (
    "Hello, and thank you for watching this little film.",
    "I was drawn by a program, and every move I make is known to it.",
    "Papa bought a big blue boat and moved it to the harbour by the mill.",
    "My voice comes from a synthesiser, so please forgive its odd music.",
    "When the farmer opened the barn, a warm wind blew over the meadow.",
    "We measure how wide my mouth opens, and compare it with what the model believes.",
    "Five fine foxes found a very shady path above the river.",
    "Maybe tomorrow morning the moon will hum a tune for us.",
    "Open the window, push the table to the wall, and bring me the map.",
    "She sells bread, butter and plum jam at the market on Sundays.",
    "You can hear the ocean far below, and the gulls above the bay.",
    "Nobody knows how the old clock came to stop at half past four.",
    "Above all, a good portrait needs patience, light and a calm mind.",
    "The baker put the pie beside the apple pudding and walked away.",
    "Each vowel asks for another shape of the lips: ah, ee, oh, and oo.",
    "Bob popped up from behind the pump and mumbled a poem.",
    "It rained all night, but by the time we woke the garden was golden.",
    "Why would a wolf wander through the village while we were away?",
    "Please remember to charge the lamp, fill the pot and feed the cat.",
    "That is all I wanted to say; now it is your turn to talk.",
)


@dataclass(frozen=True)
class SampleTruth:
    """What is exactly known about a synthetic clip of T frames.

    The head frame is the sculpture's own: origin midway between the outer corners of the eyes, axes those of the
    camera when the head faces it, unit the distance between these corners. A frame fitted to landmarks differs
    from it by one constant similarity: compare motions, or align once.
    """

    K: np.ndarray  # [3, 3] pixels
    T_cam_head: np.ndarray  # [T, 4, 4]
    T_cam_torso: np.ndarray  # [T, 4, 4] maps frame 0's head frame, so that it equals T_cam_head[0] in frame 0
    mouth_open: np.ndarray  # [T] gap between the lips in the middle, head units
    blink: np.ndarray  # [T] 0 open, 1 closed, both eyes
    brow: np.ndarray  # [T] -1 lowered, 1 raised
    rigid_points: np.ndarray  # [P, 3] head frame; RIGID_LANDMARKS tells which face-mesh points they are

    def save(self, path: Path) -> None:
        """Write an npz file."""
        with path.open("wb") as file:
            np.savez(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> SampleTruth:
        """Inverse of ``save``."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{f.name: stored[f.name] for f in fields(cls)})


def _speech(seconds: float, seed: int, text: str | None) -> np.ndarray:
    """Sentences with pauses between them, cut or filled up to [seconds * SAMPLE_RATE]."""
    rng = np.random.default_rng((seed, 5))
    n = round(seconds * FPS) * (SAMPLE_RATE // FPS)
    pieces = [np.zeros(round(0.4 * SAMPLE_RATE), np.float32)]
    length = len(pieces[0])
    order: deque[str] = deque()
    if text is not None:
        pieces.append(tts.speak(text).waveform)
        length = n
    while length < n:
        if not order:
            order.extend(SENTENCES[i] for i in rng.permutation(len(SENTENCES)))
        spoken = tts.speak(order.popleft()).waveform
        pause = np.zeros(round(rng.uniform(0.3, 0.7) * SAMPLE_RATE), np.float32)
        pieces += [spoken, pause]
        length += len(spoken) + len(pause)
    whole = np.concatenate(pieces)[:n]
    return np.pad(whole, (0, n - len(whole))).astype(np.float32)


def _frames(person: Character, performance: Performance, K: np.ndarray) -> Iterator[np.ndarray]:
    """Drawn in two threads (numpy and OpenCV release the lock), handed out in order, a few ahead at most."""
    with ThreadPoolExecutor(2) as pool:
        ahead: deque[Future[np.ndarray]] = deque()
        for t in range(len(performance)):
            pose = performance.T_cam_head[t], performance.T_cam_body[t]
            ahead.append(pool.submit(person.draw, performance.face(t), K, *pose))
            if len(ahead) > 4:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def make_sample(
    out: Path,
    *,
    seconds: float = 20,
    size: int = 512,
    seed: int = 0,
    text: str | None = None,
    truth: Path | None = None,
) -> SampleTruth:
    """Film the synthetic speaker.

    Args:
        out: The mp4 to write (H.264 and AAC).
        seconds: Length; longer speech is cut, shorter is followed by silence.
        size: Width and height in pixels, even, 128 to 1024.
        seed: Who (five people take turns), what is said and every motion. Same seed, same frames.
        text: What to say instead of the built-in sentences, in English.
        truth: Where to save what is returned, npz.
    """
    if not 1 <= seconds <= 600 or not 128 <= size <= 1024 or size % 2:
        raise ConfigError(
            "sample.range",
            f"A sample of {seconds:g} s at {size} pixels was asked for.",
            expected="1 to 600 s and an even size from 128 to 1024 pixels.",
        )
    waveform = _speech(seconds, seed, text)
    performance = perform(waveform, round(seconds * FPS), seed)
    person = Character(seed, size)
    K = camera_matrix(size)
    body = performance.T_cam_body
    result = SampleTruth(
        K=K,
        T_cam_head=performance.T_cam_head,
        T_cam_torso=body @ np.linalg.inv(body[0]) @ performance.T_cam_head[0],
        mouth_open=np.array([mouth_gap(person.shape, performance.face(t)) for t in range(len(performance))]),
        blink=performance.blink,
        brow=performance.brow,
        rigid_points=rigid_points(person.shape),
    )
    write_mp4(out, _frames(person, performance, K), waveform, fps=FPS)
    if truth is not None:
        result.save(truth)
    return result
