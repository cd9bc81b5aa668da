"""The pre-flight report as HTML."""

from __future__ import annotations

from talker.studio.preflight import Report
from talker.ui import html
from talker.ui.pictures import thumbnail

ORDER = {"error": 0, "warning": 1, "info": 2}


def checking(label: str, text: str = "Looking for the face, the light, cuts and the sound.") -> str:
    """While the check runs."""
    head = f'<div class="tk-bar-label"><b>Checking {html.esc(label)}</b></div>'
    return f'<div class="tk-report">{head}{html.bar(None)}<p class="tk-status">{html.esc(text)}</p></div>'


def report_html(report: Report, label: str) -> str:
    """Verdict, figures, example frames and findings."""
    worst = min((ORDER[f.severity] for f in report.findings), default=2)
    if not report.ok:
        verdict = html.message("error", report.summary, "This clip cannot be used")
    elif worst == 1:
        verdict = html.message("warning", report.summary, "Usable, and could be better")
    else:
        verdict = html.message("check", report.summary, "Good to go")
    pictures = "".join(
        f'<img src="{thumbnail(p, 320)}" alt="Example frame with the tracked face">' for p in report.pictures
    )
    strip = f'<div class="tk-strip">{pictures}</div>' if pictures else ""
    rows = ""
    for finding in sorted(report.findings, key=lambda f: ORDER[f.severity]):
        when = f" ({html.esc(', '.join(finding.when[:6]))})" if finding.when else ""
        todo = f"<small>{html.esc(finding.todo)}</small>" if finding.todo else ""
        rows += (
            f'<li class="tk-{html.esc(finding.severity)}">{html.icon(finding.severity)}'
            f"<div>{html.esc(finding.message)}{when}{todo}</div></li>"
        )
    findings = f'<ul class="tk-findings">{rows}</ul>' if rows else ""
    facts = html.facts([("Clip", label), *((k, str(v)) for k, v in report.facts.items())])
    return f'<div class="tk-report">{verdict}{facts}{strip}{findings}</div>'
