"""The pre-flight report as HTML: verdict, figures, a timeline, and every finding with pictures of its moments."""

from __future__ import annotations

from collections.abc import Iterable

from talker.studio.preflight import SHORTEST_S, Finding, Report, Shot
from talker.ui import html
from talker.ui.pictures import thumbnail
from talker.ui.words import say

ORDER = {"error": 0, "warning": 1, "info": 2}
WORDS = {"error": "Problem", "warning": "Could be better", "info": "Good to know"}
NARROWEST = 0.7
"""Width of the shortest stretch on the timeline, percent."""
TICKS = 4
LITTLE_S = 10.0
"""Seconds of speech below which lips come out poorly."""


def checking(label: str, text: str = "Looking for the face, the light, cuts and the sound.") -> str:
    """While the check runs."""
    head = f'<div class="tk-bar-label"><b>{say("Checking {clip}", clip=html.esc(label))}</b></div>'
    return (
        f'<div class="tk-report">{head}{html.bar(None)}<p class="tk-status">{html.esc(say(text))}</p></div>'
    )


def report_html(report: Report, label: str) -> str:
    """Everything the check found, the worst first."""
    facts = html.facts([("Clip", label), *((k, str(v)) for k, v in report.facts.items())])
    examples = _pictures((s for s in report.pictures if not s.code), say("Example"), 320)
    findings = sorted(report.findings, key=lambda f: ORDER[f.severity])
    rows = "".join(_finding(f, [s for s in report.pictures if s.code == f.code]) for f in findings)
    listed = f'<ul class="tk-findings">{rows}</ul>' if rows else ""
    strip = f'<div class="tk-strip">{examples}</div>' if examples else ""
    return f'<div class="tk-report">{_verdict(report)}{facts}{strip}{timeline(report)}{listed}</div>'


def timeline(report: Report) -> str:
    """The clip from left to right, with the stretches of every finding; the list below says the same in words."""
    marked = sorted((f for f in report.findings if f.spans), key=lambda f: -ORDER[f.severity])
    if report.seconds <= 0 or not (marked or report.part):
        return ""
    spans = "".join(_span(f, start, end, report.seconds) for f in marked for start, end in f.spans)
    part = ""
    if report.part and report.part != (0.0, report.seconds):
        place = _place(*report.part, report.seconds)
        part = f'<i class="tk-part" style="{place}" title="{say("Longest good part")}: {_range(*report.part)}"></i>'
    said = "; ".join(
        f"{say(WORDS[f.severity])}: {say(f.message)} {_when(f)}" for f in reversed(marked)
    ) or say("Nothing is wrong.")
    ticks = "".join(f"<span>{moment(report.seconds * k / TICKS)}</span>" for k in range(TICKS + 1))
    severities = sorted({f.severity for f in marked}, key=ORDER.__getitem__)
    keys = [
        ("good", "Fine"),
        *((s, WORDS[s]) for s in severities),
        *([("part", "Longest good part")] if part else []),
    ]
    legend = "".join(f'<span><i class="tk-{name}"></i>{say(word)}</span>' for name, word in keys)
    line = say("Timeline of the clip, {time}.", time=html.duration(report.seconds))
    return (
        f'<div class="tk-timeline"><div class="tk-track" role="img" aria-label="{line} '
        f'{html.esc(said)}">{spans}{part}</div>'
        f'<div class="tk-ticks" aria-hidden="true">{ticks}</div>'
        f'<div class="tk-legend" aria-hidden="true">{legend}</div></div>'
    )


def part_note(report: Report, part: tuple[float, float] | None) -> str:
    """What a chosen part means for the avatar."""
    if part is None:
        return ""
    start, end = part
    if end - start < SHORTEST_S:
        left = max(0.0, end - start)
        text = say(
            "That leaves {left:.1f} seconds; at least {least:g} are needed.", left=left, least=SHORTEST_S
        )
        return html.message("error", text)
    kept, whole = html.duration(end - start), html.duration(report.seconds)
    said = say("{range}, {kept} of {whole}.", range=_range(start, end), kept=kept, whole=whole)
    if not report.allows(part) and report.part:
        only = say("Only what lies within {range} can be used.", range=_range(*report.part))
        return html.message("error", f"{said} {only}")
    if end - start < LITTLE_S:
        little = say("That is little to learn a mouth from; 20 s or more look better.")
        return html.message("warning", f"{said} {little}")
    return html.message("info", said)


def moment(seconds: float) -> str:
    """``1:07``: a moment of the clip."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


def _range(start: float, end: float) -> str:
    return say("{start} to {end}", start=moment(start), end=moment(end))


def _verdict(report: Report) -> str:
    worst = min((ORDER[f.severity] for f in report.findings), default=2)
    if report.ok and worst == 1:
        return html.message("warning", report.summary, "Usable, and could be better")
    if report.ok:
        return html.message("check", report.summary, "Good to go")
    if report.part_ok and report.part:
        good = _range(*report.part)
        text = say("Not the whole clip, but {range} is fine. It is chosen below.", range=good)
        return html.message("warning", text, "A part of this clip can be used")
    return html.message("error", report.summary, "This clip cannot be used")


def _finding(finding: Finding, shots: list[Shot]) -> str:
    todo = f"<small>{html.esc(say(finding.todo))}</small>" if finding.todo else ""
    pictures = _pictures(shots, say(finding.message), 240)
    evidence = f'<div class="tk-evidence">{pictures}</div>' if pictures else ""
    return (
        f'<li class="tk-{html.esc(finding.severity)}">{html.icon(finding.severity)}'
        f'<div><span class="tk-spoken">{say(WORDS[finding.severity])}: </span>{html.esc(say(finding.message))} '
        f'<span class="tk-when">{_when(finding)}</span>{todo}{evidence}</div></li>'
    )


def _when(finding: Finding) -> str:
    return f"({html.esc(', '.join(finding.when))})" if finding.when else ""


def _pictures(shots: Iterable[Shot], what: str, side: int) -> str:
    """Frames with their time below."""
    return "".join(
        f'<figure><img src="{source}" alt="{html.esc(what)} ({say("frame at {time}", time=moment(shot.seconds))})">'
        f"<figcaption>{moment(shot.seconds)}</figcaption></figure>"
        for shot in shots
        if (source := thumbnail(shot.path, side))
    )


def _span(finding: Finding, start: float, end: float, seconds: float) -> str:
    title = f"{moment(start)}: {say(finding.message)}"
    kind = "tk-cut" if start == end and finding.severity == "info" else f"tk-{html.esc(finding.severity)}"
    return f'<i class="{kind}" style="{_place(start, end, seconds)}" title="{html.esc(title)}"></i>'


def _place(start: float, end: float, seconds: float) -> str:
    left = min(100 * max(0.0, start) / seconds, 100 - NARROWEST)
    width = max(NARROWEST, 100 * (min(end, seconds) - start) / seconds)
    return f"left:{left:.2f}%;width:{min(width, 100 - left):.2f}%"
