"""Names, options and help texts of the commands."""

from __future__ import annotations

import argparse
from pathlib import Path

from talker.cli import commands, service
from talker.train.ablation.catalogue import ALL, EXPERIMENTS, IDENTITIES, SPEAKERS


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; every command carries the function that runs it."""
    parser = argparse.ArgumentParser(
        prog="python -m talker", description="A talking avatar from a short clip."
    )
    sub = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _making(sub)
    _using(sub)
    _serving(sub)
    return parser


def _add(sub: argparse._SubParsersAction, name: str, run, text: str) -> argparse.ArgumentParser:
    command = sub.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    return command


def _making(sub: argparse._SubParsersAction) -> None:
    p = _add(sub, "sample", commands.sample, "Write a clip of a synthetic speaker (nobody's likeness).")
    p.add_argument("out", type=Path)
    p.add_argument("--seconds", type=float, default=20.0)
    p.add_argument("--size", type=int, default=512)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--text", help="what it says")
    p.add_argument("--truth", type=Path, help="also write the exact pose and mouth opening (.npz)")

    p = _add(sub, "check", commands.check, "Say whether a clip is good enough, and what to improve.")
    p.add_argument("clip", type=Path)
    p.add_argument("--json", type=Path, help="also write the report as JSON")

    p = _add(sub, "create", commands.create, "Make an avatar from a clip: prepare and both stages.")
    p.add_argument("clip", type=Path)
    p.add_argument("--out", type=Path, help="folder of the avatar (default: the clip's name)")
    p.add_argument("--consent", default="", help="who agrees to this avatar, in words (asked for if absent)")
    p.add_argument("--max-minutes", type=float, help="limit of the training time")
    p.add_argument("--resume", action="store_true", help="continue an interrupted run")
    _part(p)
    _training_options(p)

    p = _add(sub, "prepare", commands.prepare, "The first half of create: clip to dataset folder.")
    p.add_argument("clip", type=Path)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--size", type=int, default=256, choices=(128, 256, 512))
    _part(p)

    p = _add(sub, "train", commands.train, "The second half of create: dataset folder to avatar.")
    p.add_argument("data", type=Path)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--consent", default="", help="who agrees to this avatar, in words (asked for if absent)")
    p.add_argument("--max-minutes", type=float)
    p.add_argument("--resume", action="store_true")
    _training_options(p, size=False)


def _part(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--start", type=moment, default=0.0, metavar="TIME", help="use the clip from here on: 7.5 or 0:07.5"
    )
    p.add_argument("--end", type=moment, metavar="TIME", help="use the clip up to here: 67 or 1:07")


def moment(text: str) -> float:
    """Seconds of ``7.5``, ``1:07.5`` or ``1:00:07``."""
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _training_options(p: argparse.ArgumentParser, *, size: bool = True) -> None:
    p.add_argument("--preset", default="preview", help="preview, standard, egstalker or pgstalker")
    if size:
        p.add_argument("--size", type=int, default=256, choices=(128, 256, 512))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps-scale", type=float, default=1.0, help="factor on the preset's steps")
    p.add_argument(
        "--init-from",
        metavar="AVATAR",
        help="start from another avatar: its folder, or owner/name on the Hub",
    )


def _using(sub: argparse._SubParsersAction) -> None:
    p = _add(sub, "evaluate", commands.evaluate, "Measure an avatar on the held-out tail of its clip.")
    p.add_argument("avatar", type=Path)
    p.add_argument("--data", type=Path, required=True, help="dataset folder, as left by create: AVATAR.data")
    p.add_argument("--protocol", choices=("A", "B"), default="B")
    p.add_argument("--swap", type=Path, help="another clip or recording for the swapped-audio control")
    p.add_argument("--json", type=Path, help="also write figures and series as JSON")
    p.add_argument("--frames", type=Path, help="folder for the raw rendered frames (PNG)")
    p.add_argument("--video", type=Path, help="also write truth and avatar side by side (.mp4)")
    p.add_argument("--plots", type=Path, help="folder for the figures frame by frame as curves (PNG)")
    p.add_argument("--syncnet", type=Path, help="SyncNet's weights (syncnet_v2.model) for LSE-C and LSE-D")

    p = _add(sub, "drive", commands.drive, "Make an avatar say something.")
    p.add_argument("avatar", type=Path)
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--audio", type=Path, help="a recording (or a video with sound)")
    source.add_argument("--text", help="a text to be spoken")
    p.add_argument("--out", type=Path, required=True, help="the .mp4 to write (.mov if transparent)")
    p.add_argument("--voice", help="voice for --text")
    p.add_argument("--rate", type=float, default=1.0, help="speed of the voice")
    p.add_argument("--pose-from", help="DATA[:held-out]: follow the head of a prepared clip exactly")
    p.add_argument("--over", type=Path, help="paste the face back into this clip (dubbing)")
    p.add_argument("--captions", type=Path, help="also write captions (.srt or .vtt)")
    p.add_argument("--size", type=int, help="edge of the frames in pixels")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--head-motion", type=float, default=1.0, help="share of the clip's head motion, 0 to 1.5")
    p.add_argument("--intensity", type=float, default=1.0, help="factor on the lips' movement, 0 to 2")
    p.add_argument(
        "--background",
        default="clip",
        help="clip (the default), a colour like #00b140, or transparent (ProRes 4444)",
    )
    p.add_argument(
        "--no-label", action="store_true", help="leave out the visible label (marks in the file stay)"
    )

    p = _add(sub, "export", commands.export, "Write the neutral avatar as a standard 3DGS file.")
    p.add_argument("avatar", type=Path)
    p.add_argument("--ply", type=Path, help="3DGS PLY, for any viewer or editor")
    p.add_argument("--splat", type=Path, help=".splat, 32 bytes a Gaussian, for viewers in the browser")

    p = _add(sub, "bench", commands.bench, "Measure speed; writes JSON to benchmarks/results.")
    p.add_argument("what", choices=("render", "drive", "train", "prepare"))
    p.add_argument("--avatar", type=Path)
    p.add_argument("--data", type=Path)
    p.add_argument("--clip", type=Path)
    p.add_argument("--size", type=int)
    p.add_argument("--seconds", type=float, default=10.0)
    p.add_argument("--json", type=Path)

    p = _add(sub, "ablate", commands.ablate, "Train and compare variants on one dataset.")
    p.add_argument("data", type=Path)
    p.add_argument("--experiment", default=ALL, help=f"{', '.join(EXPERIMENTS)}, or {ALL} (the default)")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--steps-scale", type=float, default=1.0)
    p.add_argument(
        "--other",
        type=Path,
        nargs="+",
        default=(),
        metavar="CLIP",
        help=f"{SPEAKERS}: recordings, clips or prepared clips of other people (default: parts of the same clip); "
        f"{IDENTITIES}: a prepared clip of a second speaker at the same size",
    )
    p.add_argument("--out", type=Path, required=True, help="folder for runs, and for table and plot of each")


def _serving(sub: argparse._SubParsersAction) -> None:
    p = _add(sub, "publish", service.publish, "Push an avatar to the Hugging Face Hub (private by default).")
    p.add_argument("avatar", type=Path)
    p.add_argument("repo", help="owner/name")
    p.add_argument("--public", action="store_true")
    p.add_argument("--token", help="default: the token of `hf auth login`")

    p = _add(sub, "pull", service.pull, "Fetch an avatar from the Hugging Face Hub.")
    p.add_argument("repo", help="owner/name")
    p.add_argument("--out", type=Path, help="folder of the avatar (default: the repository's name)")
    p.add_argument("--revision")
    p.add_argument("--token")

    p = _add(sub, "list", service.list_avatars, "List shared avatars on the Hub, or local ones with --home.")
    p.add_argument("--home", type=Path)
    p.add_argument("--author")
    p.add_argument("--token")

    p = _add(sub, "worker", service.worker, "Run queued jobs until stopped.")
    p.add_argument("--home", type=Path)

    p = _add(sub, "jobs", service.jobs, "List, show, cancel, resume or delete jobs.")
    p.add_argument("action", choices=("list", "show", "cancel", "stop", "resume", "delete"))
    p.add_argument("id", nargs="?")
    p.add_argument("--home", type=Path)
