"""Motion that never jumps, blinks like a person's, lips that rest in silence, few frames in memory at a time."""

from __future__ import annotations

import copy
import itertools
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from core_support import SIZE, stir, tiny_avatar

import talker.drive as module
from talker.dataset.reader import TalkingHeadDataset
from talker.drive import (
    DriveConfig,
    batched,
    blink_track,
    drive,
    follow,
    longest_take,
    own_motion,
    speech_signals,
    take_frames,
    walk,
)
from talker.errors import AudioError, ConfigError
from talker.frame import FrameDrawer, render_frame
from talker.model.avatar import Avatar
from talker.render.compose import to_uint8
from talker.types import BLINK_LEFT, BLINK_RIGHT, BROW_LEFT, FPS, SAMPLE_RATE, Driving, MotionTrack, Speech

LENGTHS = (1, 2, 3, 7, 24, 25, 26, 50, 51, 52, 80, 300)


@pytest.fixture(scope="module")
def avatar(dataset: TalkingHeadDataset) -> Avatar:
    made, _ = tiny_avatar(dataset)
    return stir(made).eval().requires_grad_(False)


def voice(seconds: float, seed: int = 0) -> Speech:
    rng = np.random.default_rng(seed)
    n = round(seconds * SAMPLE_RATE)
    loudness = 0.2 * np.abs(np.sin(np.arange(n) / 3000))
    return Speech((loudness * rng.standard_normal(n)).astype(np.float32))


def silence(seconds: float) -> Speech:
    return Speech(np.zeros(round(seconds * SAMPLE_RATE), np.float32))


def still(track: MotionTrack, n: int) -> MotionTrack:
    return take_frames(track, np.zeros(n, int))


# --- the walk


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("n_frames", [1, 2, 30, 2000])
def test_walk_stays_on_the_take_and_never_jumps(length: int, n_frames: int) -> None:
    position = walk(length, n_frames)
    assert position.shape == (n_frames,)
    assert position.min() >= 0 and position.max() <= length - 1
    step = np.diff(position)
    assert np.abs(step).max(initial=0) <= 1 + 1e-9, "faster than the clip"
    if length > 2 * FPS:
        # Speed changes by at most 1 / ease a frame, also at the turns.
        assert np.abs(np.diff(step)).max(initial=0) <= 1 / FPS + 1e-9


@pytest.mark.parametrize("length", LENGTHS[1:])
def test_walk_reaches_both_ends_again_and_again(length: int) -> None:
    position = walk(length, 20 * length + 20 * FPS)
    near = 0.51  # the turn may fall between two frames
    at_end = position >= length - 1 - near
    at_start = position <= near
    visits = [name for name, _ in itertools.groupby(np.where(at_end, 2, np.where(at_start, 1, 0))) if name]
    if length > 2:
        assert visits[:4] == [1, 2, 1, 2]
    assert at_end.any() and at_start.any()


def test_a_longer_speech_begins_like_a_shorter_one() -> None:
    assert np.array_equal(walk(60, 500)[:100], walk(60, 100))


# --- takes and tracks


def test_longest_take_keeps_within_one_shot_and_tracked_frames(dataset: TalkingHeadDataset) -> None:
    valid, segment = np.ones(88, bool), np.zeros(88, np.int32)
    valid[10] = False
    segment[60:] = 1
    track = replace(dataset.track, valid=valid, segment=segment)
    take = longest_take(track)
    assert len(take) == 49 and take.valid.all() and set(take.segment) == {0}
    assert np.array_equal(take.T_cam_head, track.T_cam_head[11:60])
    assert len(longest_take(dataset.track)) == 88
    assert len(longest_take(replace(track, valid=np.zeros(88, bool)))) == 1


def test_following_is_exact_and_holds_the_last_frame(dataset: TalkingHeadDataset) -> None:
    held = follow(dataset.track[:20], 30)
    assert len(held) == 30
    assert np.array_equal(held.T_cam_head[:20], dataset.T_cam_head[:20])
    assert np.array_equal(held.expression[:20], dataset.expression[:20])
    assert (held.T_cam_torso[20:] == dataset.T_cam_torso[19]).all()


def angles(track: MotionTrack) -> np.ndarray:
    """Degrees [T - 1] the head turns from frame to frame."""
    R = track.T_cam_head[:, :3, :3].astype(np.float64)
    trace = np.einsum("tij,tij->t", R[1:], R[:-1])
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


@pytest.mark.parametrize("n_frames", [1, 40, 88, 700])
def test_own_motion_of_any_length_moves_like_the_clip(dataset: TalkingHeadDataset, n_frames: int) -> None:
    clip = dataset.track
    motion = own_motion(clip, n_frames, DriveConfig())
    assert len(motion) == n_frames
    fastest = np.linalg.norm(np.diff(clip.T_cam_head[:, :3, 3], axis=0), axis=1).max()
    steps = np.linalg.norm(np.diff(motion.T_cam_head[:, :3, 3], axis=0), axis=1)
    assert steps.max(initial=0) <= fastest * 1.001
    assert angles(motion).max(initial=0) <= angles(clip).max() * 1.01 + 1e-3
    R = motion.T_cam_head[:, :3, :3]
    assert np.allclose(R @ R.transpose(0, 2, 1), np.eye(3), atol=1e-5), "still rotations"
    assert motion.T_cam_head.dtype == np.float32 and motion.expression.dtype == np.float32


def test_head_motion_scales_about_the_middle_of_the_take(dataset: TalkingHeadDataset) -> None:
    clip = dataset.track
    full = own_motion(clip, 200, DriveConfig())
    none = own_motion(clip, 200, DriveConfig(head_motion=0))
    half = own_motion(clip, 200, DriveConfig(head_motion=0.5))
    middle = clip.T_cam_head[44]
    assert np.allclose(none.T_cam_head, middle, atol=1e-5)
    assert np.allclose(none.T_cam_torso, clip.T_cam_torso[44], atol=1e-5)
    away = full.T_cam_head[:, :3, 3] - middle[:3, 3]
    assert np.allclose(half.T_cam_head[:, :3, 3] - middle[:3, 3], away / 2, atol=1e-4)
    longer = own_motion(clip, 900, DriveConfig(head_motion=0))
    assert np.array_equal(longer.T_cam_head[:200], none.T_cam_head), "held at the same place for any length"


# --- blinks


def starts(track: np.ndarray) -> np.ndarray:
    shut = track >= 1.0
    return np.flatnonzero(shut & ~np.r_[False, shut[:-1]])


def test_blinks_come_at_natural_intervals() -> None:
    track = blink_track(5 * 60 * FPS, np.random.default_rng(0))
    gaps = np.diff(starts(track)) / FPS
    assert gaps.min() >= 1.9 and gaps.max() <= 6.1
    assert 10 <= len(gaps) / 5 <= 25, "blinks a minute"
    assert gaps.std() > 0.5, "like a machine"
    assert starts(track)[0] <= 3.2 * FPS
    # Closing and opening take some frames: no lid moves from open to shut at once.
    assert np.abs(np.diff(track)).max() <= 0.5
    assert track.min() == 0 and track.max() == 1
    for n in range(40):
        assert blink_track(n, np.random.default_rng(1)).shape == (n,)


def test_blinks_shut_the_eyes_and_can_be_left_out(dataset: TalkingHeadDataset) -> None:
    lids = [BLINK_LEFT, BLINK_RIGHT]
    blinking = own_motion(dataset.track, 500, DriveConfig(seed=3)).expression
    staring = own_motion(dataset.track, 500, DriveConfig(seed=3, blink=False)).expression
    assert blinking[:, lids].max() == 1.0
    assert staring[:, lids].max() <= 0.15 + 1e-6, "the clip's own blinks are taken out"
    assert np.array_equal(blinking[:, BROW_LEFT:], staring[:, BROW_LEFT:])
    other = own_motion(dataset.track, 500, DriveConfig(seed=4)).expression
    assert not np.array_equal(blinking, other)
    assert np.array_equal(blinking, own_motion(dataset.track, 500, DriveConfig(seed=3)).expression)


# --- sound to lips


def test_digital_silence_is_exactly_rest(avatar: Avatar) -> None:
    assert avatar.motion is not None
    rows = speech_signals(avatar, silence(2.0))
    assert torch.equal(rows, avatar.motion.rest.expand(50, -1))
    # A pause inside speech rests, too, once the lips have closed.
    pause = np.concatenate([voice(1.0).waveform, silence(1.0).waveform, voice(1.0).waveform])
    inside = speech_signals(avatar, Speech(pause))[32:43]
    assert torch.equal(inside, avatar.motion.rest.expand(len(inside), -1))


def test_lips_hold_still_in_silence_and_move_in_speech(avatar: Avatar, dataset: TalkingHeadDataset) -> None:
    """With a still head the Gaussians of the lips do not move by a bit."""

    def means(speech: Speech) -> torch.Tensor:
        rows = speech_signals(avatar, speech)
        held = still(dataset.track, len(rows))
        seen = []
        for t, row in enumerate(rows):
            driving = module.Driving(
                row,
                torch.from_numpy(held.expression[t]),
                torch.from_numpy(held.T_cam_head[t]),
                torch.from_numpy(held.T_cam_torso[t]),
            )
            seen.append(avatar.gaussians("face", driving)[0].means)
        return torch.stack(seen)

    quiet = means(silence(1.0))
    assert torch.equal(quiet, quiet[:1].expand_as(quiet))
    loud = means(voice(1.0))
    assert (loud - loud[:1]).abs().max() > 1e-3


def test_frames_of_silence_are_one_picture_and_of_speech_are_not(
    avatar: Avatar, dataset: TalkingHeadDataset
) -> None:
    held = still(dataset.track, 1)
    quiet = np.stack(list(drive(avatar, silence(0.6), track=held)))
    assert (quiet == quiet[0]).all()
    loud = np.stack(list(drive(avatar, voice(0.6), track=held)))
    assert (loud != loud[0]).any()


def test_intensity_scales_the_distance_from_rest(avatar: Avatar) -> None:
    assert avatar.motion is not None
    rest, speech = avatar.motion.rest, voice(1.0)
    plain = speech_signals(avatar, speech)
    double = speech_signals(avatar, speech, DriveConfig(intensity=2.0))
    none = speech_signals(avatar, speech, DriveConfig(intensity=0.0))
    assert torch.allclose(double - rest, 2 * (plain - rest), atol=1e-5)
    assert torch.equal(none, rest.expand_as(none))


def test_at_no_intensity_the_lips_rest_whatever_is_said(avatar: Avatar) -> None:
    def frames(seed: int, intensity: float) -> np.ndarray:
        return np.stack(list(drive(avatar, voice(0.6, seed), config=DriveConfig(intensity=intensity))))

    quiet = np.stack(list(drive(avatar, silence(0.6), config=DriveConfig())))
    assert np.array_equal(frames(0, 0.0), quiet), "at rest is as in silence"
    assert np.array_equal(frames(1, 0.0), quiet), "another sound changes nothing"
    plain, double = frames(0, 1.0), frames(0, 2.0)
    assert (plain != quiet).any() and (double != plain).any()


def test_head_motion_reaches_the_frames(avatar: Avatar) -> None:
    def frames(share: float) -> np.ndarray:
        config = DriveConfig(head_motion=share, intensity=0.0, blink=False)
        return np.stack(list(drive(avatar, silence(1.6), config=config))).astype(int)

    def change(taken: np.ndarray) -> float:
        return float(np.abs(taken[20:] - taken[:-20]).mean())

    held, half, plain = frames(0.0), frames(0.5), frames(1.0)
    assert change(held) < 0.3 * change(plain)
    assert (half != plain).any() and (half != held).any()


def test_intensity_is_refused_where_it_would_do_nothing(avatar: Avatar) -> None:
    direct = copy.deepcopy(avatar)
    direct.motion = None  # as avatars whose lips follow the sound end to end
    with pytest.raises(ConfigError) as caught:
        next(drive(direct, voice(0.4), config=DriveConfig(intensity=0.5)))
    assert caught.value.code == "drive.intensity"


def test_codes_of_a_face_drive_instead_of_the_sound(avatar: Avatar, dataset: TalkingHeadDataset) -> None:
    assert avatar.lip_code is not None and avatar.motion is not None
    heads = np.asarray(dataset.T_cam_head[20:30])
    pose = avatar.pose_statistics(torch.from_numpy(heads)).numpy()
    codes = torch.from_numpy(avatar.lip_code.encode(np.asarray(dataset.landmarks[20:30]), pose, heads))
    taken = list(drive(avatar, silence(9.0), track=dataset.track, signals=codes))
    assert len(taken) == 10, "the codes decide the length"
    rest = list(drive(avatar, silence(0.4), track=dataset.track))
    assert any(not np.array_equal(a, b) for a, b in zip(taken, rest, strict=True))


# --- frames


def test_frames_are_as_long_as_the_sound_and_the_same_each_time(avatar: Avatar) -> None:
    for seconds, n in ((0.01, 1), (0.4, 10), (1.0, 25)):
        frames = list(drive(avatar, voice(seconds)))
        assert len(frames) == n
        assert all(f.shape == (SIZE, SIZE, 3) and f.dtype == np.uint8 for f in frames)
    again = list(drive(avatar, voice(1.0)))
    assert all(np.array_equal(a, b) for a, b in zip(frames, again, strict=True))


def test_another_size_shows_the_same_view(avatar: Avatar) -> None:
    small = next(drive(avatar, voice(0.2), config=DriveConfig(size=64)))
    large = next(drive(avatar, voice(0.2), config=DriveConfig(size=192)))
    own = next(drive(avatar, voice(0.2)))
    assert small.shape == (64, 64, 3) and large.shape == (192, 192, 3)
    reduced = large.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3))
    assert np.abs(reduced - own).mean() < 4, "the same picture, sharper"


def test_little_is_drawn_before_it_is_asked_for(avatar: Avatar, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    honest = FrameDrawer.__call__
    ahead = 2 * torch.get_num_threads()

    def counting(drawer: FrameDrawer, driving: Driving) -> torch.Tensor:
        drawn.append(1)
        return honest(drawer, driving)

    monkeypatch.setattr(FrameDrawer, "__call__", counting)
    frames = drive(avatar, voice(60.0))
    assert drawn == []
    for wanted in (1, 2, 3):
        next(frames)
        assert wanted <= len(drawn) < wanted + ahead
    frames.close()
    assert len(drawn) < 3 + ahead


def test_frames_drawn_side_by_side_are_those_drawn_one_by_one(avatar: Avatar) -> None:
    speech, config = voice(0.8), DriveConfig()
    together = list(drive(avatar, speech, config=config))
    rows, motion = speech_signals(avatar, speech), own_motion(avatar.track, speech.n_frames, config)
    assert len(together) == len(rows)
    for index, frame in enumerate(together):
        driving = Driving(
            rows[index],
            torch.from_numpy(motion.expression[index]),
            torch.from_numpy(motion.T_cam_head[index]),
            torch.from_numpy(motion.T_cam_torso[index]),
        )
        alone = to_uint8(render_frame(avatar, driving).rgb).numpy()
        # A kernel may round a half the other way than PyTorch's two operators.
        assert np.abs(alone.astype(int) - frame).max() <= 1


def test_frames_handed_out_are_forgotten(avatar: Avatar) -> None:
    """Any length in the memory of one frame: nobody but the caller holds on to what was yielded."""
    alive: list[weakref.ref] = []
    for frame in drive(avatar, voice(1.6)):
        alive.append(weakref.ref(frame))
        del frame
        assert sum(ref() is not None for ref in alive) <= 1
    assert len(alive) == 40


def test_what_cannot_be_done_is_said_in_words(avatar: Avatar) -> None:
    with pytest.raises(AudioError) as caught:
        next(drive(avatar, Speech(np.zeros(0, np.float32))))
    assert caught.value.code == "audio.empty"
    for bad in ({"size": 8}, {"size": 5000}, {"head_motion": -1}, {"intensity": 9}):
        with pytest.raises(ConfigError):
            DriveConfig(**bad)


def test_a_drawer_draws_several_frames_as_it_draws_them_alone(avatar: Avatar) -> None:
    speech, config = voice(0.4), DriveConfig()
    rows, motion = speech_signals(avatar, speech), own_motion(avatar.track, speech.n_frames, config)
    controls = [
        Driving(
            rows[i],
            torch.from_numpy(motion.expression[i]),
            torch.from_numpy(motion.T_cam_head[i]),
            torch.from_numpy(motion.T_cam_torso[i]),
        ).to(avatar.device)
        for i in range(5)
    ]
    drawer = FrameDrawer(avatar, avatar.camera, avatar.plate)
    together = drawer.together(controls)
    assert together.shape == (5, SIZE, SIZE, 3)
    assert (together[0] != together[4]).any()
    for driving, frame in zip(controls, together, strict=True):
        assert torch.equal(drawer(driving), frame)


def test_groups_keep_order_and_lose_nothing() -> None:
    assert list(batched(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched([], 3)) == []
    taken = batched(iter(range(10**9)), 2)
    assert next(taken) == [0, 1], "only as much is taken as is given out"
