"""Commands that make and use avatars. Each is a few calls into the library and what it prints."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from talker.cli.interrupt import polite_stop
from talker.cli.show import say, show, show_result, table, write_report
from talker.cli.source import source_avatar
from talker.errors import ConfigError, ConsentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from talker.events import Evaluated, Event
    from talker.model.avatar import Avatar
    from talker.types import Consent, MotionTrack, Speech

HELD_OUT = "held-out"


def sample(a: Namespace) -> None:
    """``sample OUT.mp4``."""
    from talker.dataset.sample import make_sample

    truth = make_sample(a.out, seconds=a.seconds, size=a.size, seed=a.seed, text=a.text)
    if a.truth is not None:
        truth.save(a.truth)
    say(f"{a.out}: {a.seconds:.0f} s of a synthetic speaker at {a.size} px")


def check(a: Namespace) -> None:
    """``check CLIP``."""
    from talker.dataset.check import check as check_clip

    report = check_clip(a.clip)
    say(report.summary())
    write_report(a.json, report.to_dict())


def create(a: Namespace) -> None:
    """``create CLIP``."""
    from talker.train.create import CreateConfig
    from talker.train.create import create as run

    out = a.out or Path(a.clip.stem)
    config = CreateConfig(
        preset=a.preset,
        size=a.size,
        max_minutes=a.max_minutes,
        seed=a.seed,
        name=out.name,
        steps_scale=a.steps_scale,
        start_s=a.start,
        end_s=a.end,
        init_from=source_avatar(a.init_from, keep=a.resume),
    )
    consent = _consent(a.consent)
    with polite_stop() as should_stop:
        events = run(a.clip, out, consent, config, resume=a.resume, should_stop=should_stop)
        _finished(show(events))


def prepare(a: Namespace) -> None:
    """``prepare CLIP --out DATA``."""
    from talker.dataset.prepare import PrepareConfig
    from talker.dataset.prepare import prepare as run

    show(run(a.clip, a.out, PrepareConfig(size=a.size, start_s=a.start, end_s=a.end)))
    say(f"{a.out}: prepared")


def train(a: Namespace) -> None:
    """``train DATA --out AVATAR``."""
    from talker.dataset.reader import TalkingHeadDataset
    from talker.train.create import CreateConfig, train_avatar

    dataset = TalkingHeadDataset(a.data)
    config = CreateConfig(
        preset=a.preset,
        size=dataset.size,
        max_minutes=a.max_minutes,
        seed=a.seed,
        name=a.out.name,
        steps_scale=a.steps_scale,
        init_from=source_avatar(a.init_from, keep=a.resume),
    )
    consent = _consent(a.consent)
    with polite_stop() as should_stop:
        events = train_avatar(dataset, a.out, consent, config, resume=a.resume, should_stop=should_stop)
        _finished(show(events))


def evaluate(a: Namespace) -> None:
    """``evaluate AVATAR --data DATA``."""
    from talker.audio.waveform import load
    from talker.checkpoint import load_avatar
    from talker.dataset.reader import TalkingHeadDataset
    from talker.device import chosen_device
    from talker.train.evaluate import EvaluateConfig
    from talker.train.evaluate import evaluate as run

    name = a.avatar.name
    config = EvaluateConfig(
        protocol=a.protocol, frames_dir=a.frames, video=a.video, name=name, syncnet=a.syncnet
    )
    control = None if a.swap is None else load(a.swap)
    avatar, dataset = load_avatar(a.avatar, device=chosen_device()), TalkingHeadDataset(a.data)
    measured = _measured(run(avatar, dataset, config, control=control))
    title = f"{name}, held-out frames, protocol {measured.protocol}"
    say(table(title, measured.metrics))
    assert measured.series is not None
    report = {"avatar": name, "protocol": measured.protocol, "metrics": measured.metrics}
    write_report(a.json, {**report, "series": measured.series.to_dict()})
    if a.plots is not None:
        from talker.train.plots import write_plots

        paths = write_plots(measured.series, a.plots, title=title)
        say(f"{a.plots}: {', '.join(path.name for path in paths)}")
    if a.video is not None:
        say(f"{a.video}: truth and avatar side by side, {len(measured.series)} frames")


def _measured(events: Iterator[Event]) -> Evaluated:
    """Draw a measurement as it goes; what it found is printed as the command's result, not on the way."""
    from talker.events import Evaluated

    found: list[Evaluated] = []

    def before_the_result() -> Iterator[Event]:
        for event in events:
            if isinstance(event, Evaluated):
                found.append(event)
            else:
                yield event

    show(before_the_result())
    return found[-1]


def drive(a: Namespace) -> None:
    """``drive AVATAR (--audio F | --text T) --out F.mp4``."""
    from tqdm import tqdm

    from talker.checkpoint import load_avatar
    from talker.device import chosen_device
    from talker.drive import DriveConfig
    from talker.drive import drive as run
    from talker.provenance import sign, stamp_frames
    from talker.types import SAMPLE_RATE
    from talker.video.alpha import AlphaWriter
    from talker.video.encode import Mp4Writer

    config = DriveConfig(
        size=a.size,
        seed=a.seed,
        head_motion=a.head_motion,
        intensity=a.intensity,
        background=a.background,
    )
    clear = _transparent(a)
    avatar = load_avatar(a.avatar, device=chosen_device())
    speech = _speech(a)
    if a.over is not None:
        from talker.dub import dub

        frames = dub(avatar, speech, a.over, config, report=show)
    else:
        track = None if a.pose_from is None else _track(avatar, speech, a.pose_from)
        frames = run(avatar, speech, track=track, config=config)
    if not a.no_label:
        frames = stamp_frames(frames)
    size = config.size or avatar.camera.width
    with (AlphaWriter if clear else Mp4Writer)(a.out, size, size, sample_rate=SAMPLE_RATE) as writer:
        writer.write_audio(speech.waveform)
        for frame in tqdm(frames, total=speech.n_frames, desc="drive", unit="frame", mininterval=0.5):
            writer.write(frame)
    sign(a.out, avatar_name=a.avatar.name)
    if a.captions is not None:
        _write_captions(a.captions, speech)
    say(f"{a.out}: {speech.duration_s:.1f} s, {size} px")


def _transparent(a: Namespace) -> bool:
    """Whether frames have alpha; before anything is rendered, whether what was asked for goes together."""
    from talker.cutout import CLIP, TRANSPARENT

    if a.over is not None and a.background != CLIP:
        raise ConfigError(
            "drive.background",
            "A clip that is spoken into keeps its own background.",
            todo="Leave out --background or --over.",
        )
    clear = a.background == TRANSPARENT
    if clear and a.out.suffix.lower() != ".mov":
        raise ConfigError(
            "drive.format",
            f"The output is called {a.out.name}.",
            expected="A name ending in .mov: a transparent background is written as ProRes 4444.",
        )
    return clear


def export(a: Namespace) -> None:
    """``export AVATAR --ply F --splat F``."""
    from talker.checkpoint import load_avatar, write_neutral_ply
    from talker.studio.viewing import write_splat

    if a.ply is None and a.splat is None:
        raise ConfigError(
            "export.nothing", "Nothing to write.", todo="Add --ply FILE, --splat FILE, or both."
        )
    avatar = load_avatar(a.avatar)
    with tempfile.TemporaryDirectory(prefix="talker-export-") as folder:
        ply = a.ply or Path(folder) / "neutral.ply"
        write_neutral_ply(avatar, ply)
        if a.splat is not None:
            write_splat(ply, a.splat)
    for path in filter(None, (a.ply, a.splat)):
        say(f"{path}: {avatar.n_gaussians:,} Gaussians")


def bench(a: Namespace) -> None:
    """``bench render|drive|train|prepare``."""
    from talker.cli.bench import run

    report = run(a)
    say(table(f"bench {a.what}", report["results"]))
    write_report(a.json or Path("benchmarks/results") / f"bench_{a.what}.json", report)


def ablate(a: Namespace) -> None:
    """``ablate DATA --experiment NAME --out DIR``."""
    from talker.train.ablation.ablate import TABLE_MD
    from talker.train.ablation.ablate import ablate as run

    finished = show(
        run(a.data, a.experiment, a.out, seeds=a.seeds, steps_scale=a.steps_scale, others=a.other)
    )
    assert finished is not None
    for name in finished.summary:
        say((a.out / name / TABLE_MD).read_text())


def _consent(words: str) -> Consent:
    """The declaration given with ``--consent``, asked for on a terminal, or made by running the command at all.

    An app must ask its visitors; here the person at the keyboard is the one who declares, and is told so.
    """
    import sys

    from talker.provenance import CONSENT_TEXT, new_consent

    if words.strip():
        return new_consent("the person running this command", words.strip())
    sys.stderr.write(f"Making an avatar needs consent. The declaration:\n  {CONSENT_TEXT}\n")
    if not sys.stdin.isatty():
        sys.stderr.write(
            "By running this command you make it (--consent gives your own words). It is stored.\n"
        )
        return new_consent("the person running this command")
    if input("Do you make this declaration? [yes/no] ").strip().lower() not in ("y", "yes"):
        raise ConsentError(
            "consent.refused", "No consent was declared.", todo="No avatar is made without it."
        )
    return new_consent("the person running this command")


def _finished(event) -> None:
    if event is None:  # asked to stop
        raise KeyboardInterrupt
    summary = event.summary
    say(table("Seconds by part", summary["seconds"]))
    if summary["prepare_seconds"]:
        say(table("Seconds by step of prepare", summary["prepare_seconds"]))
    say(table(f"Held-out frames, protocol {summary['protocol']}", summary["metrics"]))
    say(f"Peak memory {summary['peak_memory_mb']} MB, avatar {summary['avatar_mb']} MB on disk")
    say(f"{event.path}: done")


def _speech(a: Namespace) -> Speech:
    from talker.audio.tts import speak
    from talker.audio.waveform import load
    from talker.types import Speech

    if a.text is not None:
        return speak(a.text, voice=a.voice, rate=a.rate)
    return Speech(load(a.audio), label=a.audio.name)


def _track(avatar: Avatar, speech: Speech, spec: str) -> MotionTrack:
    """``DATA`` or ``DATA:held-out`` to the motion of that clip, its poses aligned to the avatar."""
    from talker.alignment import aligned_track
    from talker.dataset.reader import TalkingHeadDataset
    from talker.drive import speech_signals

    folder, _, part = spec.partition(":")
    if part not in ("", HELD_OUT):
        raise ConfigError(
            "drive.pose_from", f"There is no part called {part!r}.", expected=f"DATA or DATA:{HELD_OUT}."
        )
    dataset = TalkingHeadDataset(Path(folder))
    start = dataset.n_train if part else 0
    wanted = slice(start, start + speech.n_frames)
    return show_result(
        aligned_track(avatar, dataset.frames[wanted], dataset.track[wanted], speech_signals(avatar, speech))
    )


def _write_captions(path: Path, speech: Speech) -> None:
    from talker.studio import captions

    if not speech.words:
        raise ConfigError(
            "drive.captions", "A recording has no words to caption.", todo="Captions are written for --text."
        )
    path.write_text((captions.vtt if path.suffix == ".vtt" else captions.srt)(speech.words), encoding="utf-8")
