"""Damaged media and avatar files by the thousand: read or refused in words, never a crash, a hang or another error.

    python -m benchmarks.fuzz_files --minutes 10                # goes on where the last run of the same JSON ended
    python -m benchmarks.fuzz_files --media 20000 --avatars 100000

Each case is made from its number alone, so ``--show media:1234`` repeats one. Media go through the very functions the
sandbox's child runs, under the same kind of limits, in a process that serves many cases (starting one a case would
take most of the time); what that process does not survive is a crash, what takes too long is a hang. The sandbox would
turn both, and every unclassified error, into a refusal: here they are counted as failures.
"""

from __future__ import annotations

import argparse
import errno
import json
import multiprocessing
import random
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from talker.errors import TalkerError

RESULT = Path(__file__).parent / "results" / "fuzz_files.json"
WANTED = {"media": 20_000, "avatars": 100_000}
HANG_S = 60.0
START_S = 300.0
MEMORY_MB = 3072
BAD = ("crash", "hang", "unclassified")

EXTREMES = (
    b"\x00\x00\x00\x00",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00\x00\x00\x01",
)
BITES = (b"9", b"}", b'"', b",", b"-", b"\xff", b"0000", b"1e999", b"NaN", b"[[", b"\x00")


def mutated(blob: bytes, number: int, head: int) -> bytes:
    """The mutant ``number`` of a file: one to six wounds, most of them in its first ``head`` bytes."""
    rng = random.Random(number)
    mutant = bytearray(blob)
    for _ in range(rng.randint(1, 6)):
        size = max(1, len(mutant))
        at = rng.randrange(min(head, size) if rng.random() < 0.7 else size)
        match rng.randrange(7):
            case 0 | 1:
                if at < len(mutant):
                    mutant[at] ^= 1 << rng.randrange(8)
            case 2:
                mutant[at : at + 4] = rng.choice(EXTREMES)
            case 3:
                mutant[at:at] = rng.choice(BITES)
            case 4:
                del mutant[at : at + rng.randint(1, 64)]
            case 5:
                mutant[at:at] = mutant[at : at + rng.randint(1, 256)]
            case _:
                if rng.random() < 0.3:
                    del mutant[at + rng.randint(0, 4096) :]
                else:
                    mutant[at : at + 8] = rng.randbytes(8)
    return bytes(mutant)


# --- cases: made once by the parent, judged in the child


def make_seeds(kind: str, folder: Path) -> None:
    """Write the sound files that are going to be damaged."""
    folder.mkdir(parents=True)
    if kind == "avatars":
        from tests.avatar_support import tiny_avatar_folder

        tiny_avatar_folder(folder / "avatar")
        return
    import numpy as np
    import soundfile

    from tests.media_support import tone, write_clip

    sound = tone(0.4, 48_000)
    for name, codec, container in (
        ("h264.mp4", "libx264", "mp4"),
        ("h264.mkv", "libx264", "matroska"),
        ("vp8.webm", "libvpx", "webm"),
        ("mpeg4.avi", "mpeg4", "avi"),
        ("mjpeg.mov", "mjpeg", "mov"),
    ):
        pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        write_clip(
            folder / name,
            n=8,
            size=(64, 48),
            codec=codec,
            container=container,
            sound=sound,
            pixel_format=pixels,
        )
    quiet = np.stack([tone(0.4), -tone(0.4)], axis=1)
    for name in ("pcm.wav", "flac.flac", "vorbis.ogg", "layer3.mp3"):
        soundfile.write(folder / name, quiet, 16_000)
    soundfile.write(folder / "float.wav", quiet, 16_000, subtype="FLOAT")


def judge_media(seeds: Path) -> Callable[[int], object]:
    """A function that decodes mutant n as the app would: a clip, or a recording."""
    from talker.audio import reading as sound
    from talker.provenance.reading import read_marks
    from talker.video import reading as video

    files = sorted(seeds.iterdir())
    blobs = {path: path.read_bytes() for path in files}
    target = seeds.parent / "mutant"
    target.mkdir(exist_ok=True)

    def judge(number: int) -> object:
        source = files[number % len(files)]
        path = target / "clip.mp4"
        path.write_bytes(mutated(blobs[source], number, 600))
        request = {"path": str(path), "name": "clip.mp4", "out": str(target), "fps": 25, "rate": 16_000}
        request |= {"max_side": 128, "max_seconds": 20.0, "max_width": 4096, "max_height": 4096}
        request |= {"start_s": 0.0, "end_s": None}
        if source.suffix in (".wav", ".flac", ".ogg", ".mp3"):
            return sound.load(request | {"out": str(target / "sound.npy")}, lambda n: None)
        if number % 10 == 0:
            return read_marks(path)
        return video.decode(request, lambda n: None)

    return judge


def judge_avatars(seeds: Path) -> Callable[[int], object]:
    """A function that loads an avatar one of whose files is mutant n."""
    from talker.card import read_card
    from talker.checkpoint import load_avatar
    from talker.hub.files import drop_unsound_extras
    from talker.studio.viewing import write_splat, write_view

    honest = {path.name: path.read_bytes() for path in (seeds / "avatar").iterdir()}
    parts = ["avatar.json", "model.safetensors", "motion.safetensors", "background.png"]
    extras = ["neutral.ply", "poster.jpg", "training.json"]
    folder = seeds.parent / "avatar"
    shutil.copytree(seeds / "avatar", folder, dirs_exist_ok=True)

    def judge(number: int) -> object:
        name = (parts * 3 + extras)[number % (3 * len(parts) + len(extras))]
        (folder / name).write_bytes(mutated(honest[name], number, 3000))
        try:
            if name == "neutral.ply":
                write_view(folder / name, folder / "view")
                write_splat(folder / name, folder / "view")
            elif name in extras:
                drop_unsound_extras(folder)
            else:
                read_card(folder)
                avatar = load_avatar(folder)
                assert all(bool(value.isfinite().all()) for value in avatar.state_dict().values())
        finally:
            (folder / name).write_bytes(honest[name])
        return None

    return judge


JUDGES = {"media": judge_media, "avatars": judge_avatars}


def outcome(judge: Callable[[int], object], number: int) -> str:
    """``sound``, ``refused CODE``, ``limit ...`` as the sandbox would answer, or ``unclassified ...``."""
    try:
        judge(number)
    except TalkerError as error:
        return f"refused {error.code}"
    except MemoryError:
        return "limit memory"
    except OSError as error:
        known = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
        return "limit disk" if known else f"unclassified {type(error).__name__}"
    except Exception as error:  # noqa: BLE001 - what this script looks for
        return f"unclassified {type(error).__name__}: {str(error)[:80]}"
    return "sound"


# --- the process that judges, and the one that watches it


def serve(kind: str, seeds: Path, pipe: Connection) -> None:
    """Child: answer each number with its outcome."""
    warnings.simplefilter("ignore")  # of arithmetic on damaged samples; what counts is the outcome
    judge = JUDGES[kind](seeds)
    if kind == "media":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB << 20, MEMORY_MB << 20))
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
    pipe.send("ready")
    while True:
        pipe.send(outcome(judge, pipe.recv()))


class Judge:
    """A child process that can die or hang without taking the run with it."""

    def __init__(self, kind: str, seeds: Path) -> None:
        self._kind, self._seeds = kind, seeds
        self._process: Any = None

    def __call__(self, number: int) -> str:
        if self._process is None:
            self._start()
        self._pipe.send(number)
        try:
            if self._pipe.poll(HANG_S):
                return self._pipe.recv()
            found = f"hang of {HANG_S:.0f} s"
        except (EOFError, ConnectionResetError):
            self._process.join()
            found = f"crash {self._process.exitcode}"
        self.close()
        return found

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(self._kind, self._seeds, other), daemon=True)
        self._process.start()
        other.close()
        assert self._pipe.poll(START_S) and self._pipe.recv() == "ready"

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def run(kind: str, first: int, last: int, deadline: float, scratch: Path) -> dict[str, Any]:
    """Judge the cases ``first`` up to ``last`` or until ``deadline`` (time.monotonic())."""
    seeds = scratch / kind / "seeds"
    make_seeds(kind, seeds)
    judge, found, failures = Judge(kind, seeds), Counter(), []
    start, number = time.monotonic(), first
    try:
        while number < last and time.monotonic() < deadline:
            result = judge(number)
            found[result if not result.startswith("unclassified") else result.split(":")[0]] += 1
            if result.startswith(BAD):
                failures.append({"case": f"{kind}:{number}", "outcome": result})
            number += 1
    finally:
        judge.close()
    return {
        "done": number,
        "seconds": time.monotonic() - start,
        "outcomes": dict(found),
        "failures": failures,
    }


def merged(before: dict[str, Any], more: dict[str, Any], wanted: int) -> dict[str, Any]:
    """One record of all runs so far."""
    outcomes = Counter(before.get("outcomes", {})) + Counter(more["outcomes"])
    return {
        "wanted": wanted,
        "done": more["done"],
        "seconds": round(before.get("seconds", 0.0) + more["seconds"], 1),
        "outcomes": dict(sorted(outcomes.items())),
        "failures": before.get("failures", []) + more["failures"],
        **({"fixed": before["fixed"]} if "fixed" in before else {}),
    }


def judged_again(kind: str, record: dict[str, Any], scratch: Path) -> None:
    """After a fix: the recorded failures once more; what is no failure now counts as what it became."""
    make_seeds(kind, scratch / kind / "seeds")
    judge, outcomes, left = Judge(kind, scratch / kind / "seeds"), Counter(record["outcomes"]), []
    for failure in record["failures"]:
        result = judge(int(failure["case"].split(":")[1]))
        outcomes[failure["outcome"].split(":")[0]] -= 1
        outcomes[result.split(":")[0]] += 1
        if result.startswith(BAD):
            left.append({"case": failure["case"], "outcome": result})
    judge.close()
    record["fixed"] = record.get("fixed", 0) + len(record["failures"]) - len(left)
    record["outcomes"], record["failures"] = dict(sorted((+outcomes).items())), left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--media", type=int, default=WANTED["media"])
    parser.add_argument("--avatars", type=int, default=WANTED["avatars"])
    parser.add_argument("--minutes", type=float, default=600.0, help="stop after this time, to be continued")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--again", action="store_true", help="judge the recorded failures once more")
    parser.add_argument("--show", metavar="KIND:N", help="repeat one case and let its error through")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="talker-fuzz-") as scratch:
        if a.show:
            kind, number = a.show.split(":")
            make_seeds(kind, Path(scratch) / "seeds")
            print(JUDGES[kind](Path(scratch) / "seeds")(int(number)))
            return
        record = json.loads(a.json.read_text()) if a.json.is_file() else {}
        if a.again:
            for kind, part in record.items():
                if part["failures"]:
                    judged_again(kind, part, Path(scratch))
            a.json.write_text(json.dumps(record, indent=2) + "\n")
            print(json.dumps({kind: part["failures"] for kind, part in record.items()}))
            return
        for kind, wanted in (("media", a.media), ("avatars", a.avatars)):
            before = record.get(kind, {})
            deadline = time.monotonic() + 30 * a.minutes  # half of the time each
            if before.get("done", 0) < wanted:
                record[kind] = merged(
                    before, run(kind, before.get("done", 0), wanted, deadline, Path(scratch)), wanted
                )
                a.json.parent.mkdir(parents=True, exist_ok=True)
                a.json.write_text(json.dumps(record, indent=2) + "\n")
            print(kind, json.dumps({k: v for k, v in record[kind].items() if k != "outcomes"}))
    raise SystemExit(1 if any(part["failures"] for part in record.values()) else 0)


if __name__ == "__main__":
    main()
