"""Do an avatar's lips follow voices it never heard: text to speech, and recordings of other people?

    python -m benchmarks.unseen_voices AVATAR --data DATA [--audio F ...] [--text "..."] [--json F]

Nobody knows what lips a recording had. The ridge probe tells what can be known: a linear model from sound to mouth
opening, fitted to the training frames of the avatar's own clip. Reported is the correlation of the rendered lips'
opening with the probe's prediction from the same sound; the control is the prediction half the sound away.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from talker.audio.tts import Voice, engines, speak
from talker.audio.waveform import load
from talker.checkpoint import load_avatar
from talker.dataset.reader import TalkingHeadDataset
from talker.train.ablation.speakers import Probe, Source, listening_figures
from talker.train.origin import commit, machine

TEXT = (
    "Good evening. The mayor promised better buses, more trees, and a fair budget by the month of May. "
    "People who came to hear him were surprised: some of them applauded, others simply went home."
)


def main() -> None:
    """Drive, track, compare, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--audio", type=Path, nargs="*", default=[])
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    avatar, dataset = load_avatar(a.avatar), TalkingHeadDataset(a.data)
    probe = Probe(dataset, replace(avatar.config.motion, dim=1))
    heard = [
        Source(f"text to speech, {voice.id}", speak(a.text, voice=voice.id).waveform)
        for voice in _two_voices()
    ]
    heard += [Source(path.stem, load(path)) for path in a.audio]
    rows = {source.name: listening_figures(avatar, source, probe(source.speech)) for source in heard}
    report = {
        "command": "python -m benchmarks.unseen_voices " + a.avatar.name,
        "commit": commit(),
        "machine": machine(),
        "rows": rows,
    }
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if a.json is not None:
        a.json.write_text(text)


def _two_voices() -> list[Voice]:
    """The default English voice, and another English one."""
    english = [
        voice for engine in engines() for voice in engine.voices() if voice.language.lower().startswith("en")
    ]
    return english[:2]


if __name__ == "__main__":
    main()
