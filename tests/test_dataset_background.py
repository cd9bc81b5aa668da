"""Background plates: what is behind the person, when, and without edges."""

from __future__ import annotations

import numpy as np

from talker.dataset.steps.background import make_plates

T, S = 300, 64


def brightening_room() -> tuple[np.ndarray, np.ndarray]:
    """Frames [T, S, S, 3] of a room with a slope of light that gets 60 levels brighter, and masks of somebody in it.

    Beside a column nobody ever sees is one that only a few frames in the middle of the clip show.
    """
    light = 60 + 60 * np.arange(T) / T
    wall = light[:, None, None] + np.linspace(0, 40, S)[None, None, :] + np.zeros((T, S, S))
    frames = np.repeat(wall[..., None], 3, -1).round().astype(np.uint8)
    masks = np.zeros((T, S, S), np.uint8)
    masks[:, 24:, 24:40] = 255
    masks[:, 8:, 10:24] = 255
    masks[T // 2 - 30 : T // 2 + 30, 8:, 10:24] = 0
    frames[masks > 0] = (20, 200, 20)
    return frames, masks


def test_a_local_plate_is_the_room_as_it_was_then_even_where_it_was_covered() -> None:
    frames, masks = brightening_room()
    plates = make_plates(frames, masks, np.arange(T), np.zeros(T, np.int32))
    last = plates.local[plates.of_frame[-1]].astype(float)
    free = masks[-1] == 0
    assert np.abs(last - frames[-40])[free].max() < 9
    covered = (masks[-1] > 0) & (masks[T // 2] == 0)
    wall = frames[-40, 0].astype(float)[None].repeat(S, 0)  # the top row is never covered
    assert np.abs(last - wall)[covered].mean() < 8
    assert np.abs(plates.main.rgb - wall)[covered].mean() > 20, "the whole clip's median is much darker"


def test_no_edge_between_what_a_local_plate_knows_and_what_it_takes_over() -> None:
    frames, masks = brightening_room()
    plates = make_plates(frames, masks, np.arange(T), np.zeros(T, np.int32))
    last = plates.local[plates.of_frame[-1]].astype(float)
    assert np.abs(np.diff(last[..., 0], axis=0)).max() < 6
    assert np.abs(np.diff(last[..., 0], axis=1)).max() < 6


def test_held_out_frames_take_no_part() -> None:
    frames, masks = brightening_room()
    index = np.arange(T - 100)
    seen = make_plates(frames, masks, index, np.zeros(T, np.int32))
    frames[-100:] = 0
    again = make_plates(frames, masks, index, np.zeros(T, np.int32))
    assert np.array_equal(seen.local, again.local) and np.array_equal(seen.main.rgb, again.main.rgb)
