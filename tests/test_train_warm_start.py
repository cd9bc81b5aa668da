"""A new avatar that starts from another one: reused is what fits, refused what cannot, and never mixed up."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch
from core_support import tiny_model, write_dataset

from talker.card import AVATAR_JSON, MODEL, TRAINING, AvatarCard, update_card
from talker.checkpoint import save_avatar
from talker.dataset.reader import TalkingHeadDataset
from talker.errors import CheckpointError, ConfigError, ConsentError, TalkerError
from talker.events import Event, Finished, Note
from talker.model.avatar import FACE, MOUTH, Avatar, ModelConfig
from talker.model.motion import MotionConfig
from talker.provenance import new_consent
from talker.train.build import build
from talker.train.create import CreateConfig, create, train_avatar
from talker.train.presets import Preset
from talker.train.schedule import Stage
from talker.train.warm_start import WarmStart

CONSENT = new_consent("the tests", "Nobody is shown.")
STAGES = (Stage("static", 3, static=True), Stage("deform", 3))
OURS = tiny_model()


def preset(model: ModelConfig = OURS) -> Preset:
    return Preset("tiny", "Tiny", "For tests.", model, STAGES)


def stirred(avatar: Avatar, seed: int) -> Avatar:
    """Weights as after training: the last layers start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in avatar.branches:
            for value in avatar.branch(name).deformation.parameters():
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return avatar


def saved(folder: Path, data: TalkingHeadDataset, model: ModelConfig = OURS, *, seed: int = 5) -> Path:
    """The folder of an avatar of ``data`` with ``model``."""
    avatar = stirred(build(data, model, seed)[0], seed)
    card = AvatarCard(
        "Ada", "2026-11-21", "tiny", 96, avatar.n_gaussians, avatar.audio_encoder, dataclasses.asdict(CONSENT)
    )
    save_avatar(avatar, folder, card)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> TalkingHeadDataset:
    """Another person's clip."""
    return TalkingHeadDataset(write_dataset(tmp_path_factory.mktemp("other") / "ada.data", seed=3))


@pytest.fixture(scope="module")
def ada(tmp_path_factory: pytest.TempPathFactory, other: TalkingHeadDataset) -> Path:
    return saved(tmp_path_factory.mktemp("avatars") / "ada", other)


def start(folder: Path, data: TalkingHeadDataset, model: ModelConfig = OURS) -> tuple[Avatar, Note]:
    """An avatar of ``data`` at step 0 that starts from the one in ``folder``, and what was said."""
    warm = WarmStart.load(folder, model)
    avatar, _ = build(data, model, 0, warm=warm)
    return avatar, warm.give_fields(avatar)


def test_field_and_hearing_are_reused(dataset: TalkingHeadDataset, ada: Path) -> None:
    avatar, note = start(ada, dataset)
    cold, _ = build(dataset, OURS, 0)
    ours, theirs = (
        a.branch(FACE).deformation.state_dict() for a in (avatar, WarmStart.load(ada, OURS).avatar)
    )
    assert torch.equal(ours["fusion.hidden.weight"], theirs["fusion.hidden.weight"])
    assert not torch.equal(ours["fusion.hidden.weight"], cold.branch(FACE).deformation.fusion.hidden.weight)
    assert avatar.motion is not None and avatar.motion.prior_share > 0, "both say the same sounds"
    assert "From Ada: the face field" in note.message and "% of its map" in note.message
    assert "cold" not in note.message and note.level == "info"


def test_nothing_of_the_person_is_taken_over(dataset: TalkingHeadDataset, ada: Path) -> None:
    avatar, _ = start(ada, dataset)
    cold, _ = build(dataset, OURS, 0)
    for name, value in cold.branch(FACE).canonical.parameters_by_name().items():
        assert (name == "embedding") != torch.equal(
            avatar.branch(FACE).canonical.parameters_by_name()[name], value
        )
    for name, value in cold.pose_statistics.state_dict().items():
        assert torch.equal(avatar.pose_statistics.state_dict()[name], value)
    assert torch.equal(avatar.plate, cold.plate)
    assert cold.lip_code is not None and avatar.lip_code is not None
    assert (avatar.lip_code.basis == cold.lip_code.basis).all()
    assert cold.motion is not None and avatar.motion is not None
    assert torch.equal(avatar.motion.rest, cold.motion.rest)


def test_a_warm_field_opens_the_mouth_at_once(
    dataset: TalkingHeadDataset, other: TalkingHeadDataset, tmp_path
) -> None:
    """Before its first step: the other avatar's chin drops with its opening, and so does the new one's."""
    avatar, conditioning = build(other, OURS, 1)
    code = conditioning.signal[10:60].numpy()
    opening = other.mouth_open[10:60]
    # A field by hand: everything moves down with the opening, which is linear in the code.
    slope = torch.linalg.lstsq(torch.from_numpy(code), torch.from_numpy(opening - opening.mean())[:, None])
    field = avatar.branch(FACE).deformation
    with torch.no_grad():
        basis = field.fusion.basis.bias.view(field.config.out_dim, -1)
        basis[1, : code.shape[1]] = slope.solution[:, 0]
    card = AvatarCard("Ada", "now", "tiny", 96, avatar.n_gaussians, "mel", dataclasses.asdict(CONSENT))
    save_avatar(avatar, tmp_path / "ada", card)
    warm, _ = start(tmp_path / "ada", dataset)
    _, conditioning = build(dataset, OURS, 0)
    heights = []
    for t in range(12, 60):
        _, offsets = warm.gaussians(FACE, conditioning.driving(t))
        assert offsets is not None
        heights.append(offsets.means[:, 1].mean().item())
    heights = torch.tensor(heights)
    assert torch.corrcoef(torch.stack((heights, torch.from_numpy(dataset.mouth_open[12:60]))))[0, 1] > 0.95


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"width": 24}, "the face field (that avatar's has other switches)"),
        ({"deform": ("mu",)}, "the face field (that avatar's has other switches)"),
        ({"fusion": "mgf"}, "the face field (that avatar's has other switches)"),
    ],
)
def test_other_switches_leave_the_hearing(
    dataset: TalkingHeadDataset, other: TalkingHeadDataset, tmp_path: Path, theirs: dict, said: str
) -> None:
    avatar, note = start(saved(tmp_path / "ada", other, tiny_model(**theirs)), dataset)
    cold, _ = build(dataset, OURS, 0)
    assert said in note.message.split("cold: ")[1] and "map from sound" in note.message.split("cold: ")[0]
    for name, value in cold.branch(FACE).state_dict().items():
        assert torch.equal(avatar.branch(FACE).state_dict()[name], value), name


def test_a_mouth_that_is_not_there_starts_cold(dataset: TalkingHeadDataset, ada: Path) -> None:
    both = dataclasses.replace(OURS, mouth=OURS.face)
    avatar, note = start(ada, dataset, both)
    assert "From Ada: the face field" in note.message
    assert "cold: the mouth field (that avatar has none)" in note.message
    assert set(avatar.branches) == {FACE, MOUTH}


def test_an_avatar_driven_by_sound_itself(
    dataset: TalkingHeadDataset, other: TalkingHeadDataset, tmp_path: Path, ada: Path
) -> None:
    heard = tiny_model(signal="audio", fusion="mgf")
    source = saved(tmp_path / "heard", other, heard)
    avatar, note = start(source, dataset, heard)
    assert note.message == "From Ada: the face field."
    theirs = WarmStart.load(source, heard).avatar.branch(FACE).deformation.signal.state_dict()
    for name, value in avatar.branch(FACE).deformation.signal.state_dict().items():
        assert torch.equal(value, theirs[name])
    _, note = start(source, dataset)
    assert "From Ada: nothing." in note.message and note.level == "warning"
    _, note = start(ada, dataset, heard)
    assert "From Ada: nothing." in note.message


def damage(folder: Path) -> None:
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-9])


def garble(folder: Path) -> None:
    (folder / AVATAR_JSON).write_text("{}")


@pytest.mark.parametrize("spoil", [damage, garble, lambda folder: (folder / AVATAR_JSON).unlink()])
def test_what_is_no_avatar_is_refused_before_any_work(
    other: TalkingHeadDataset, tmp_path: Path, spoil
) -> None:
    spoil(saved(tmp_path / "ada", other))
    refused(CheckpointError, tmp_path)


def refused(kind: type[TalkerError], tmp_path: Path, **config: object) -> TalkerError:
    """``create`` from a clip that is not even there says what is wrong with the avatar, and leaves nothing."""
    choice = CreateConfig(init_from=tmp_path / "ada", **config)  # type: ignore[arg-type]
    with pytest.raises(kind) as caught:
        list(create(tmp_path / "clip.mp4", tmp_path / "new", CONSENT, choice))
    assert str(tmp_path) not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["ada"])
    return caught.value


def test_no_folder_is_refused(tmp_path: Path) -> None:
    assert refused(CheckpointError, tmp_path).code == "avatar.missing"


def test_another_ear_is_refused_before_any_work(other: TalkingHeadDataset, tmp_path: Path) -> None:
    saved(tmp_path / "ada", other)  # of 'mel', where the preset needs 'mel+moonshine'
    error = refused(ConfigError, tmp_path)
    assert error.code == "init_from.sound"
    assert "1280 numbers of 'mel'" in error.found and "10496 numbers of 'mel+moonshine'" in error.expected


def test_another_stretch_of_sound_is_refused(ada: Path) -> None:
    longer = dataclasses.replace(OURS, motion=dataclasses.replace(OURS.motion, window=30))
    with pytest.raises(ConfigError) as caught:
        WarmStart.load(ada, longer)
    assert "32 rows" in caught.value.found and "30 rows" in caught.value.expected


@pytest.mark.parametrize("nothing", ["std", "reference", "pose"])
def test_a_motion_without_size_is_refused(
    dataset: TalkingHeadDataset, other: TalkingHeadDataset, tmp_path: Path, nothing: str
) -> None:
    """An avatar of a stranger's that can be driven, but whose units would be divided by."""
    avatar, _ = build(other, OURS, 0)
    assert avatar.lip_code is not None
    if nothing == "pose":
        avatar.pose_statistics.std[3] = 0
    else:
        getattr(avatar.lip_code, nothing)[:] = 0
    card = AvatarCard("Ada", "now", "tiny", 96, avatar.n_gaussians, "mel", dataclasses.asdict(CONSENT))
    save_avatar(avatar, tmp_path / "ada", card)
    with pytest.raises(CheckpointError) as caught:
        start(tmp_path / "ada", dataset)
    assert caught.value.code == "avatar.damaged"


def test_consent_is_asked_for_first(tmp_path: Path, ada: Path, dataset: TalkingHeadDataset) -> None:
    nobody = dataclasses.replace(CONSENT, who="", statement="")
    with pytest.raises(ConsentError):
        list(train_avatar(dataset, tmp_path / "new", nobody, CreateConfig(init_from=ada), preset=preset()))


def test_hash_is_of_what_was_learnt(other: TalkingHeadDataset, tmp_path: Path) -> None:
    first = WarmStart.load(saved(tmp_path / "a", other), OURS)
    update_card(tmp_path / "a", name="Renamed", metrics={"psnr": 1.0})
    renamed = WarmStart.load(tmp_path / "a", OURS)
    assert (renamed.name, renamed.sha256) == ("Renamed", first.sha256) and len(first.sha256) == 64
    assert WarmStart.load(saved(tmp_path / "b", other, seed=6), OURS).sha256 != first.sha256


def run(
    dataset: TalkingHeadDataset, out: Path, source: Path | None, *, stop_after: int = 0, resume: bool = False
) -> list[Event]:
    config = CreateConfig(init_from=source, size=128, evaluate=False, steps_scale=1.0)
    asked = itertools.count(1)
    events = train_avatar(
        dataset,
        out,
        CONSENT,
        config,
        preset=preset(),
        resume=resume,
        should_stop=lambda: next(asked) == stop_after,
    )
    return list(events)


def test_resume_never_mixes_two_starts(
    dataset: TalkingHeadDataset, other: TalkingHeadDataset, ada: Path, tmp_path: Path
) -> None:
    run(dataset, tmp_path / "new", ada, stop_after=2)
    for source in (None, saved(tmp_path / "eve", other, seed=6)):
        with pytest.raises(CheckpointError) as caught:
            run(dataset, tmp_path / "new", source, resume=True)
        assert caught.value.code == "resume.other_config"
    run(dataset, tmp_path / "cold", None, stop_after=2)
    with pytest.raises(CheckpointError):
        run(dataset, tmp_path / "cold", ada, resume=True)


def test_a_resumed_warm_run_ends_where_a_whole_one_does(
    dataset: TalkingHeadDataset, ada: Path, tmp_path: Path
) -> None:
    run(dataset, tmp_path / "cut", ada, stop_after=4)
    said = [
        event.message for event in run(dataset, tmp_path / "cut", ada, resume=True) if isinstance(event, Note)
    ]
    assert any("Continuing" in message for message in said)
    finished = run(dataset, tmp_path / "whole", ada)[-1]
    assert isinstance(finished, Finished)
    cut, whole = ((tmp_path / name / MODEL).read_bytes() for name in ("cut", "whole"))
    assert cut == whole
    summary = json.loads((tmp_path / "whole" / TRAINING).read_text())
    warm = WarmStart.load(ada, OURS)
    assert summary["init_from"]["name"] == "Ada" and summary["init_from"]["sha256"] == warm.sha256
    assert 0 < summary["init_from"]["sound_share"] <= 1
    assert str(ada.parent) not in (tmp_path / "whole" / TRAINING).read_text(), "no folder of this machine"
    assert f"| Started from | Ada ({warm.sha256[:12]}) |" in (tmp_path / "whole" / "README.md").read_text()


def test_a_cold_avatar_says_nothing_of_a_start(dataset: TalkingHeadDataset, tmp_path: Path) -> None:
    run(dataset, tmp_path / "cold", None)
    assert json.loads((tmp_path / "cold" / TRAINING).read_text())["init_from"] is None
    assert "Started from" not in (tmp_path / "cold" / "README.md").read_text()


def test_code_lengths_may_differ(
    dataset: TalkingHeadDataset, other: TalkingHeadDataset, tmp_path: Path
) -> None:
    longer = dataclasses.replace(OURS, motion=MotionConfig(dim=6, features="mel", folds=4))
    avatar, note = start(saved(tmp_path / "ada", other, longer), dataset)
    assert "the face field" in note.message.split("cold")[0]
    assert avatar.branch(FACE).deformation.config.signal_dim == 4
