"""Quality against speed: every avatar given is driven by `talker bench drive`, its figures are those of its making.

    python -m benchmarks.pareto AVATAR ... [--seconds 10] [--out benchmarks/results/pareto]

Avatars are told apart by preset and size, so give one of each. Writes pareto.json and pareto.png: frames a second
(sound to RGB, everything included) against PSNR of frame and mouth box and the lips' correlation, held out,
protocol B. Up and to the right is better; what another avatar beats in both is dominated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from talker.card import read_card
from talker.train.origin import commit, machine

SPEED = "drawn_frames_per_s"
FIGURES = {"psnr": "PSNR frame, dB", "psnr_mouth": "PSNR mouth box, dB", "mouth_r": "mouth opening r"}


def main() -> None:
    """Measure each avatar in a process of its own, one after the other; write table and plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("avatars", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pareto")
    a = parser.parse_args()
    rows = [measure(folder, a.seconds) for folder in a.avatars]
    report = {
        "command": f"python -m benchmarks.pareto AVATAR ... --seconds {a.seconds:g}",
        "commit": commit(),
        "machine": machine(),
        "protocol": "B",
        "rows": rows,
    }
    a.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2) + "\n"
    (a.out / "pareto.json").write_text(text)
    draw(rows, a.out / "pareto.png")
    sys.stdout.write(text)


def measure(folder: Path, seconds: float) -> dict:
    """Frames a second of the avatar in ``folder``, beside what it scored when it was made."""
    card = read_card(folder)
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "drive.json"
        command = [
            "bench",
            "drive",
            "--avatar",
            str(folder),
            "--seconds",
            f"{seconds:g}",
            "--json",
            str(path),
        ]
        subprocess.run([sys.executable, "-m", "talker", *command], check=True, stdout=subprocess.DEVNULL)
        results = json.loads(path.read_text())["results"]
    speeds = {name: results[name] for name in (SPEED, "written_frames_per_s")}
    figures = {name: card.metrics[name] for name in FIGURES if name in card.metrics}
    return {"name": f"{card.preset}, {card.size} px", "gaussians": card.n_gaussians, **figures, **speeds}


def draw(rows: list[dict], path: Path) -> None:
    """One panel a figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(FIGURES), figsize=(4 * len(FIGURES) + 2, 4), layout="constrained")
    for axis, (name, label) in zip(axes, FIGURES.items(), strict=True):
        for row, marker in zip(rows, itertools.cycle("osD^vPX*"), strict=False):
            if name in row:
                axis.plot(row[SPEED], row[name], marker, label=row["name"])
        axis.set_xlabel("frames a second, sound to RGB")
        axis.set_ylabel(label)
        axis.margins(0.25)
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
