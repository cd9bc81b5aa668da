"""An avatar folder gives back the same pictures, and a stranger's folder gives pictures or one clear refusal."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from core_support import stir, tiny_avatar, tiny_model
from safetensors.torch import load_file, save_file

from talker.card import AVATAR_JSON, MODEL, MOTION, NEUTRAL_PLY, PLATE, AvatarCard, read_card, update_card
from talker.checkpoint import load_avatar, save_avatar
from talker.dataset.reader import TalkingHeadDataset
from talker.drive import drive
from talker.errors import CheckpointError, TalkerError
from talker.model.avatar import Avatar
from talker.model.canonical import SH_C0, raw_values
from talker.train.build import build
from talker.types import SAMPLE_RATE, Speech

SPEECH = Speech((0.2 * np.sin(np.arange(SAMPLE_RATE // 5) / 9)).astype(np.float32))


def card(avatar: Avatar) -> AvatarCard:
    consent = {"statement": "I agree", "who": "me", "when": "2026-01-01T00:00:00+00:00", "version": "1"}
    return AvatarCard(
        name="Tiny",
        created="2026-01-01T00:00:00+00:00",
        preset="preview",
        size=avatar.camera.width,
        n_gaussians=avatar.n_gaussians,
        audio_encoder=avatar.audio_encoder,
        consent=consent,
    )


@pytest.fixture(scope="module")
def honest(dataset: TalkingHeadDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    avatar, _ = tiny_avatar(dataset)
    folder = tmp_path_factory.mktemp("avatars") / "honest"
    save_avatar(stir(avatar), folder, card(avatar))
    return folder


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(honest, tmp_path / "avatar"))


def frames(avatar: Avatar) -> np.ndarray:
    return np.stack(list(drive(avatar, SPEECH)))


VARIANTS: dict[str, dict] = {
    "blendshapes": {},
    "motion code, MLP, gated": {"encoder": "triplane_hash", "fusion": "mgf"},
    "KAN, agents, all attributes": {
        "encoder": "triplane_hash",
        "decoder": "kan",
        "fusion": "esaa",
        "agents": 0.05,
        "ppe": "add",
        "deform": ("mu", "r", "s", "rgb", "alpha"),
    },
    "end to end, cross attention": {"signal": "audio", "fusion": "cross_attention"},
    "embedding, gated": {"encoder": "embedding", "fusion": "mgf"},
    "dense planes, blendshapes": {"encoder": "triplane_dense", "pose_token": False},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_loaded_draws_the_same_bits(
    dataset: TalkingHeadDataset, tmp_path: Path, variant: str
) -> None:
    avatar, _ = tiny_avatar(dataset, **VARIANTS[variant])
    # Not in training any more, as what is loaded: attention has another kernel, with other last bits, for each.
    stir(avatar).requires_grad_(False).eval()
    save_avatar(avatar, tmp_path / "avatar", card(avatar))
    again = load_avatar(tmp_path / "avatar")
    assert np.array_equal(frames(avatar), frames(again))
    assert again.config == avatar.config
    assert not any(p.requires_grad for p in again.parameters()) and not again.training
    for name in ("T_cam_head", "T_cam_torso", "expression", "valid", "segment"):
        assert np.array_equal(getattr(again.track, name), getattr(avatar.track, name))


def test_two_branches_and_the_code_of_the_lips_come_back(dataset: TalkingHeadDataset, tmp_path: Path) -> None:
    face = tiny_model().face
    model = dataclasses.replace(tiny_model(), mouth=dataclasses.replace(face, deform=("mu",)))
    avatar, _ = build(dataset, model, 0)
    save_avatar(stir(avatar), tmp_path, card(avatar))
    again = load_avatar(tmp_path)
    assert list(again.branches) == ["face", "mouth"]
    assert np.array_equal(frames(avatar), frames(again))
    assert again.lip_code is not None and avatar.lip_code is not None
    landmarks = np.asarray(dataset.landmarks[:5])
    seen = landmarks, np.ones((5, 6), np.float32), np.asarray(dataset.T_cam_head[:5])
    assert np.array_equal(again.lip_code.encode(*seen), avatar.lip_code.encode(*seen))


@pytest.mark.parametrize("view", [None, (280.0, 64.0, 64.0, 12.0)])
def test_a_lip_code_comes_back_with_how_it_is_measured(
    dataset: TalkingHeadDataset, tmp_path: Path, view: tuple[float, ...] | None
) -> None:
    avatar, _ = tiny_avatar(dataset)
    assert avatar.lip_code is not None
    given = None if view is None else np.array(view, np.float32)
    avatar.lip_code = dataclasses.replace(avatar.lip_code, view=given)
    save_avatar(avatar, tmp_path, card(avatar))
    again = load_avatar(tmp_path).lip_code
    assert again is not None
    for name in ("reference", "mean", "slide", "basis", "std", "view"):
        assert np.array_equal(getattr(again, name), getattr(avatar.lip_code, name)), name


def test_card_is_read_without_the_model_and_can_be_changed(folder: Path) -> None:
    for name in (MODEL, MOTION, PLATE):
        (folder / name).write_bytes(b"not read")
    found = read_card(folder)
    assert found.name == "Tiny" and found.consent["who"] == "me" and found.bytes > 0
    update_card(folder, name="Other", metrics={"psnr": 30})
    assert read_card(folder).name == "Other" and read_card(folder).metrics == {"psnr": 30}


def test_neutral_ply_is_the_resting_avatar_right_side_up(honest: Path) -> None:
    import plyfile

    avatar = load_avatar(honest)
    vertex = plyfile.PlyData.read(str(honest / NEUTRAL_PLY))["vertex"]
    canonical = avatar.branch("face").canonical
    with torch.no_grad():
        _, offsets = avatar.gaussians("face", avatar.resting())
    assert offsets is not None and offsets.means is not None and offsets.means.abs().max() > 1e-4
    resting = raw_values(canonical, offsets)
    assert vertex.count == avatar.n_gaussians
    assert np.allclose(vertex["x"], resting["means"][:, 0])
    assert np.allclose(vertex["y"], -resting["means"][:, 1]), "y goes up in viewers"
    assert np.allclose(vertex["opacity"], resting["logit_opacities"])
    assert np.allclose(vertex["scale_2"], resting["log_scales"][:, 2])
    assert np.allclose(0.5 + SH_C0 * vertex["f_dc_1"], resting["colors"][:, 1], atol=1e-6)


def refuse(folder: Path, code: str | None = None) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_avatar(folder)
    assert code is None or caught.value.code == code
    assert str(folder.parent) not in str(caught.value), "a path of the server was told"
    return caught.value


def edit_header(folder: Path, change: Callable[[dict], object]) -> None:
    header = json.loads((folder / AVATAR_JSON).read_text())
    change(header)
    (folder / AVATAR_JSON).write_text(json.dumps(header))


def put(*path: str, value: object) -> Callable[[dict], None]:
    def change(header: dict) -> None:
        for key in path[:-1]:
            header = header[key]
        header[path[-1]] = value

    return change


HOSTILE_HEADERS: dict[str, Callable[[dict], object]] = {
    "other format": put("format", value=1),
    "no format": lambda h: h.pop("format"),
    "unknown entry": put("exec", value="import os"),
    "unknown model entry": put("model", "shape", value=3),
    "unknown field entry": put("model", "face", "shape", value=3),
    "unknown motion entry": put("model", "motion", "shape", value=3),
    "model is a list": put("model", value=[]),
    "face is missing": lambda h: h["model"].pop("face"),
    "encoder nobody knows": put("model", "face", "encoder", value="transformer"),
    "deform nobody knows": put("model", "face", "deform", value=["mu", "bones"]),
    "a negative width": put("model", "face", "width", value=-64),
    "blendshapes of raw sound": lambda h: (
        put("motion", value=None)(h),
        h["model"]["face"].update(signal="audio"),
    ),
    "width that heads cannot share": lambda h: h["model"]["face"].update(fusion="cross_attention", width=17),
    "half an agent more": lambda h: h["model"]["face"].update(fusion="esaa", agents=1.5),
    "huge tables": lambda h: h["model"]["face"].update(hash_levels=16, hash_features=8, hash_log2_table=19),
    "more Gaussians than fit": put("branches", "face", value=10**9),
    "Gaussians as text": put("branches", "face", value="many"),
    "Gaussians as truth": put("branches", "face", value=True),
    "no Gaussians": put("branches", "face", value=0),
    "fewer Gaussians than stored": put("branches", "face", value=3),
    "another branch": put("branches", value={"face": 10, "tail": 10}),
    "a mouth without a configuration": put("branches", "mouth", value=10),
    "an embedding without an encoder": put("embedding", "face", value=15),
    "embedding is a list": put("embedding", value=[1]),
    "motion is a number": put("motion", value=3),
    "motion is missing": put("motion", value=None),
    "motion of any size": put("motion", "features", value=1 << 40),
    "motion of another length": put("motion", "dim", value=3),
    "code of another length": put("model", "face", "signal_dim", value=5),
    "driven by sound, with a motion model": put("model", "face", "signal", value="audio"),
    "camera of any size": put("camera", "width", value=100_000),
    "camera that is not square": put("camera", "width", value=64),
    "camera of half a pixel": put("camera", "width", value=96.5),
    "camera without K": lambda h: h["camera"].pop("K"),
    "camera with K of text": put("camera", "K", value=[["a", 0, 1], [0, 1, 1], [0, 0, 1]]),
    "camera that looks backwards": put("camera", "K", value=[[-200, 0, 48], [0, 200, 48], [0, 0, 1]]),
    "camera that looks past everything": put("camera", "K", value=[[1e30, 0, 48], [0, 1e30, 48], [0, 0, 1]]),
    "sound encoder is a list": put("audio_encoder", value=["mel"]),
    "lip code is missing from the header": put("lip_code", value=False),
}


@pytest.mark.parametrize("case", HOSTILE_HEADERS)
def test_hostile_header_is_refused(folder: Path, case: str) -> None:
    edit_header(folder, HOSTILE_HEADERS[case])
    refuse(folder)


@pytest.mark.parametrize(
    "change",
    [
        put("card", "extra", value=1),
        put("card", "name", value=["a", "b"]),
        put("card", "metrics", value={"psnr": "high"}),
        put("card", "size", value="large"),
        put("card", "consent", "who", value=["me"]),
        lambda h: h["card"].pop("name"),
    ],
)
def test_hostile_card_is_refused(folder: Path, change: Callable[[dict], object]) -> None:
    edit_header(folder, change)
    with pytest.raises(CheckpointError):
        read_card(folder)


@pytest.mark.parametrize("value", ["yes", None, [1], True])
def test_what_is_no_record_is_no_consent(folder: Path, value: object) -> None:
    edit_header(folder, put("card", "consent", value=value))
    assert read_card(folder).consent == {}


def test_sizes_that_only_together_fill_the_memory_are_refused(folder: Path) -> None:
    edit_header(folder, put("branches", "face", value=500_000))
    edit_header(folder, lambda h: h["model"]["face"].update(fusion="esaa", agents=4096))
    refuse(folder, "avatar.too_large")  # 8 GB of attention, before a byte of the model is read
    edit_header(folder, lambda h: h["model"]["face"].update(agents=0.9))
    refuse(folder, "avatar.too_large")
    everything = ["mu", "alpha", "rgb", "r", "s"]
    edit_header(
        folder, lambda h: h["model"]["face"].update(fusion="blendshapes", extra=64, deform=everything)
    )
    refuse(folder, "avatar.too_large")


def spoil(folder: Path, file: str, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / file)
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / file)


MEANS = "branches.face.canonical.means"


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (MODEL, lambda t: t.pop(MEANS)),
        (MODEL, lambda t: t.update({MEANS: t[MEANS][:-1]})),
        (MODEL, lambda t: t.update({MEANS: t[MEANS].double()})),
        (MODEL, lambda t: t[MEANS].__setitem__((3, 1), float("nan"))),
        (MODEL, lambda t: t[MEANS].__setitem__((3, 1), float("inf"))),
        (MODEL, lambda t: t.update({"branches.face.extra": torch.zeros(3)})),
        (MOTION, lambda t: t.update({"T_cam_head": t["T_cam_head"][:-1]})),
        (MOTION, lambda t: t.update({k: v[:0] for k, v in t.items() if not k.startswith("lip")})),
        (MOTION, lambda t: t["expression"].fill_(float("nan"))),
        (MOTION, lambda t: t["T_cam_head"].fill_(1e9)),
        (MOTION, lambda t: t.update({"lip_code.std": torch.ones(2)})),
        (MOTION, lambda t: t.pop("segment")),
    ],
)
def test_hostile_tensors_are_refused(folder: Path, file: str, change: Callable) -> None:
    spoil(folder, file, change)
    refuse(folder)


def test_missing_and_cut_files_are_refused(honest: Path, tmp_path: Path) -> None:
    for number, name in enumerate((AVATAR_JSON, MODEL, MOTION, PLATE)):
        for keep in (None, 0, 5, 100):
            folder = Path(shutil.copytree(honest, tmp_path / f"{number}{keep}"))
            if keep is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes((honest / name).read_bytes()[:keep])
            refuse(folder)
    refuse(tmp_path / "nowhere", "avatar.missing")


def test_background_that_is_another_picture_is_refused(folder: Path) -> None:
    from PIL import Image

    Image.new("RGB", (4000, 4000)).save(folder / PLATE)
    refuse(folder, "avatar.damaged")
    Image.new("RGB", (96, 96)).save(folder / PLATE, format="GIF")
    refuse(folder, "avatar.damaged")


def test_mutants_are_refused_or_speak(honest: Path, tmp_path: Path) -> None:
    """Random damage in any file: a refusal in words, or an avatar that can be driven to the end."""
    rng = random.Random(1)
    folder = Path(shutil.copytree(honest, tmp_path / "mutant"))
    originals = {name: (honest / name).read_bytes() for name in (AVATAR_JSON, MODEL, MOTION, PLATE)}
    refused = 0
    for _ in range(120):
        name = rng.choice(list(originals))
        blob = bytearray(originals[name])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(min(len(blob), 4000))
            blob[at] = rng.choice((blob[at] ^ (1 << rng.randrange(8)), 0x30, 0x39, 0x2D, 0x65))
        (folder / name).write_bytes(bytes(blob))
        try:
            for frame in drive(load_avatar(folder), SPEECH):
                assert frame.shape[2] == 3
        except TalkerError:
            refused += 1
        (folder / name).write_bytes(originals[name])
    assert 10 < refused < 120


def test_avatar_of_other_sound_features_is_refused_in_words(folder: Path) -> None:
    edit_header(folder, put("audio_encoder", value="phones"))
    with pytest.raises(CheckpointError) as caught:
        next(drive(load_avatar(folder), SPEECH))
    assert caught.value.code == "avatar.sound"
