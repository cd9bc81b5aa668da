"""Mean and spread of an avatar's held-out figures over seeds, from what `talker evaluate --json` wrote for each.

    for s in 0 1 2; do
      python -m talker train CLIP.data --out avatar_$s --seed $s --preset standard
      python -m talker evaluate avatar_$s --data CLIP.data --json b_$s.json
      python -m talker evaluate avatar_$s --data CLIP.data --protocol A --json a_$s.json
    done
    python -m benchmarks.seeds --commit COMMIT --out benchmarks/results/seeds_standard b_*.json a_*.json

Writes seeds_standard.json (every figure of every seed) and .md (mean and sample standard deviation).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from talker.train.origin import machine


def main() -> None:
    """Collect, write both files, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", type=Path, nargs="+")
    parser.add_argument("--commit", required=True, help="of the code that trained and measured")
    parser.add_argument("--out", type=Path, required=True, help="path without ending")
    a = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in a.reports:
        report = json.loads(path.read_text())
        for name, value in report["metrics"].items():
            found[report["protocol"]][name].append(value)
    report = {"commit": a.commit, "machine": machine(), "protocols": found}
    a.out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    text = "".join(table(protocol, found[protocol]) for protocol in sorted(found))
    a.out.with_suffix(".md").write_text(text)
    sys.stdout.write(text)


def table(protocol: str, figures: dict[str, list[float]]) -> str:
    """Markdown of one protocol."""
    n = max(map(len, figures.values()))
    lines = [
        f"## Protocol {protocol}, {n} seeds",
        "",
        "| figure | mean ± deviation | each |",
        "|---|---|---|",
    ]
    for name, values in figures.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        each = ", ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {name} | {statistics.mean(values):.3f} ± {spread:.3f} | {each} |")
    return "\n".join([*lines, "", ""])


if __name__ == "__main__":
    main()
