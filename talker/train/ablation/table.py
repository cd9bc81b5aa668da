"""Results of several seeds as one table: mean and spread, JSON and Markdown."""

from __future__ import annotations

import statistics

from talker.train.ablation.catalogue import COLUMNS


def row(name: str, results: list[dict]) -> dict:
    """Mean, spread (sample standard deviation) and values of every figure, and the curves of the seeds."""
    figures = {}
    for key in COLUMNS:
        values = [result["metrics"][key] for result in results if key in result["metrics"]]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            figures[key] = {"mean": statistics.fmean(values), "spread": spread, "values": values}
    return {
        "variant": name,
        "commits": sorted({result["commit"] for result in results}),
        "machines": sorted(
            {f"{r['machine']['processor']}, {r['machine']['gpu'] or 'no GPU'}" for r in results}
        ),
        "figures": figures,
        "curves": [result["curve"] for result in results if result.get("curve")],
    }


def seeds(table: dict) -> str:
    """How many, in words."""
    return f"{table['seeds']} seed{'s' if table['seeds'] > 1 else ''}"


def markdown(table: dict) -> str:
    """The table for people."""
    columns = [key for key in COLUMNS if any(key in row["figures"] for row in table["rows"])]
    steps = ", ".join(f"{n:,} {name}" for name, n in table["steps"].items())
    lines = [
        f"# {table['experiment']}: {table['dataset']}, {table['size']} px",
        "",
        table["question"],
        "",
        f"Protocol {table['protocol']}, {table['held_out_frames']} held-out frames, {seeds(table)}, "
        f"{steps} steps unless a row says otherwise. Mean ± standard deviation over the seeds.",
        "",
        "| variant | " + " | ".join(COLUMNS[key] for key in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for found in table["rows"]:
        cells = [_cell(found["figures"].get(key)) for key in columns]
        lines.append(f"| {found['variant']} | " + " | ".join(cells) + " |")
    commits = sorted({c for found in table["rows"] for c in found["commits"]})
    machines = sorted({m for found in table["rows"] for m in found["machines"]})
    return "\n".join([*lines, "", f"Commit {', '.join(commits)}; {'; '.join(machines)}.", ""])


def _cell(figure: dict | None) -> str:
    if figure is None:
        return "-"
    mean, spread = figure["mean"], figure["spread"]
    if float(mean).is_integer() and spread == 0:
        return f"{mean:,.0f}"
    digits = 0 if abs(mean) >= 1000 else 1 if abs(mean) >= 100 else 2 if abs(mean) >= 10 else 3
    return (
        f"{mean:,.{digits}f} ± {spread:,.{digits}f}" if len(figure["values"]) > 1 else f"{mean:,.{digits}f}"
    )
