"""Behind the person: a colour replaces the plate, and a transparent frame laid over it gives the same picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from core_support import SIZE, stir, tiny_model

from talker.cutout import straight
from talker.dataset.reader import TalkingHeadDataset
from talker.drive import DriveConfig, drive
from talker.errors import ConfigError
from talker.model.avatar import Avatar
from talker.provenance import inspect, sign, stamp_frames
from talker.train.build import build
from talker.types import FPS, SAMPLE_RATE, Speech
from talker.video.alpha import AlphaWriter, on_chequers

GREEN = "#00b140"


@pytest.fixture(scope="module", params=[False, True], ids=["face", "face+mouth"])
def avatar(dataset: TalkingHeadDataset, request: pytest.FixtureRequest) -> Avatar:
    model = tiny_model()
    model = replace(model, mouth=replace(model.face, deform=("mu",))) if request.param else model
    made, _ = build(dataset, model, 0)
    return stir(made).eval().requires_grad_(False)


def speech(n_frames: int, seed: int = 0) -> Speech:
    rng = np.random.default_rng(seed)
    return Speech((0.1 * rng.standard_normal(n_frames * SAMPLE_RATE // FPS)).astype(np.float32))


def laid_over(rgba: np.ndarray, colour: str) -> np.ndarray:
    back = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    alpha = rgba[..., 3:] / 255
    return np.round(alpha * rgba[..., :3] + (1 - alpha) * back)


@pytest.mark.parametrize("size", [None, 96])
def test_transparent_over_a_colour_is_the_frame_before_that_colour(avatar: Avatar, size: int | None) -> None:
    said = speech(3)
    clear = list(drive(avatar, said, config=DriveConfig(background="transparent", size=size)))
    green = list(drive(avatar, said, config=DriveConfig(background=GREEN, size=size)))
    plain = list(drive(avatar, said, config=DriveConfig(size=size)))
    edge = size or SIZE
    for rgba, before_green, before_plate in zip(clear, green, plain, strict=True):
        assert rgba.shape == (edge, edge, 4) and rgba.dtype == np.uint8
        assert before_green.shape == (edge, edge, 3)
        # Colours brighter than white exist in the model only: eight bits clip them before the alpha, not after it.
        inside = ((rgba[..., :3] < 255) | (rgba[..., 3:] == 0)).all(-1)
        assert inside.mean() > 0.8
        assert np.abs(laid_over(rgba, GREEN) - before_green)[inside].max() <= 2
        assert (before_green != before_plate).any()
        assert rgba[..., 3].min() == 0 and rgba[..., 3].max() > 200, "a person, and nothing around"
        corner = before_green[0, 0]
        assert np.abs(corner - np.array([0x00, 0xB1, 0x40])).max() <= 1


def test_alpha_is_straight() -> None:
    over_black = torch.tensor([[[0.25, 0.1, 0.0], [0.0, 0.0, 0.0], [0.9, 0.8, 0.7]]])
    alpha = torch.tensor([[[0.5], [0.0], [1.0]]])
    rgba = straight(over_black, alpha).numpy()
    np.testing.assert_array_equal(rgba[0, :, 3], [128, 0, 255])
    np.testing.assert_allclose(rgba[0, 0, :3], [128, 51, 0], atol=1)
    np.testing.assert_array_equal(rgba[0, 1], [0, 0, 0, 0])


@pytest.mark.parametrize("bad", ["green", "#12", "#0000gg", "", "CLIP", "#00b140; x"])
def test_other_backgrounds_are_refused(bad: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DriveConfig(background=bad)
    assert caught.value.code == "drive.background"


def test_the_label_is_there_where_nothing_else_is() -> None:
    empty = np.zeros((256, 256, 4), np.uint8)
    opaque = np.full((256, 256, 4), 255, np.uint8)
    stamped, on_white = stamp_frames([empty, opaque])
    (expected,) = stamp_frames([opaque[..., :3]])
    assert (empty == 0).all(), "the caller's frame was drawn on"
    assert stamped[..., 3].max() == 255, "letters are opaque"
    assert np.abs(on_white[..., :3].astype(int) - expected).max() <= 2
    assert (on_white[..., 3] >= 254).all()
    for colour in ("#ffffff", "#ff00ff"):
        full = np.broadcast_to(laid_over(empty, colour), (256, 256, 3)).astype(np.uint8)
        (wanted,) = stamp_frames([full])
        assert np.abs(laid_over(stamped, colour) - wanted).max() <= 2


def test_a_mov_keeps_alpha_colour_and_sound_and_is_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALKER_CACHE", str(tmp_path / "cache"))
    rows, columns = np.mgrid[0:64, 0:64]
    picture = np.stack([4 * rows, 4 * columns, 0 * rows + 90, np.where(columns < 32, 255, 2 * rows)], -1)
    frames = [picture.astype(np.uint8)] * 10
    path = tmp_path / "a.mov"
    with AlphaWriter(path, 64, 64) as writer:
        for frame in frames:
            writer.write(frame)
        writer.write_audio(0.3 * np.sin(np.arange(6400) / 9).astype(np.float32))
    sign(path, avatar_name="Zoë")
    marks = inspect(path)
    assert marks["ai_generated"] and marks["xmp"] and marks["c2pa"]["intact"], marks
    with av.open(str(path)) as film:
        assert film.streams.video[0].codec_context.name == "prores"
        assert film.streams.audio[0].codec_context.name == "pcm_s16le"
        shown = [f.to_ndarray(format="rgba") for f in film.decode(video=0)]
    assert len(shown) == 10
    opaque = picture[..., 3] > 32
    assert np.abs(shown[5][..., 3].astype(int) - picture[..., 3]).max() <= 3
    assert np.abs(shown[5][opaque].astype(int) - picture[opaque]).mean() < 4


def test_chequers_show_what_is_transparent() -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:32] = (10, 20, 30, 255)
    shown = on_chequers(rgba)
    assert (shown[:32] == (10, 20, 30)).all()
    assert len(np.unique(shown[32:].reshape(-1, 3), axis=0)) == 2
