"""Who speaks when: exact silence for zeros, no flutter inside words, the same for loud and quiet recordings."""

from __future__ import annotations

import numpy as np
import pytest

from talker.audio.activity import CLOSE_FRAMES, speech_activity
from talker.types import FPS, SAMPLE_RATE

HOP = SAMPLE_RATE // FPS


def clip(n_frames: int, spoken: slice, level: float = 0.1, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    wave = noise * rng.standard_normal(n_frames * HOP)
    inside = slice(spoken.start * HOP, spoken.stop * HOP)
    wave[inside] += level * rng.standard_normal(inside.stop - inside.start)
    return wave.astype(np.float32)


def test_zeros_are_exactly_silent() -> None:
    assert not speech_activity(np.zeros(10 * HOP, np.float32), 10).any()
    assert not speech_activity(np.zeros(0, np.float32), 3).any()
    activity = speech_activity(clip(100, slice(40, 60)), 100)
    # Beyond the fade of a few frames and the 60 ms of the level nothing is left of it.
    reach = 3 * CLOSE_FRAMES + 2
    assert not activity[: 40 - reach].any() and not activity[60 + reach :].any()


@pytest.mark.parametrize("level", [0.5, 0.05, 0.01])
def test_speech_is_found_at_any_level_over_the_noise_of_a_room(level: float) -> None:
    activity = speech_activity(clip(100, slice(40, 60), level, noise=level / 200), 100)
    assert (activity[42:58] == 1).all()
    assert (activity[:30] < 0.05).all() and (activity[70:] < 0.05).all()
    assert activity.dtype == np.float32 and activity.min() >= 0 and activity.max() <= 1


def test_a_stop_consonant_does_not_close_the_lips() -> None:
    wave = clip(100, slice(20, 80))
    wave[50 * HOP : 52 * HOP] = 0  # 80 ms
    assert (speech_activity(wave, 100)[25:75] == 1).all()


def test_it_fades() -> None:
    activity = speech_activity(clip(100, slice(40, 60)), 100)
    assert np.abs(np.diff(activity)).max() < 0.6


def test_length_is_what_is_asked_for() -> None:
    for n in (1, 5, 37, 120):
        assert speech_activity(clip(40, slice(10, 30)), n).shape == (n,)
