"""Telling a person that a job has ended: in the page, in its title, and by the browser if it may."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from talker.ui.html import plain
from talker.ui.words import in_script, say, say_all

if TYPE_CHECKING:
    from talker.jobs.job import Job

UNDER_WAY = {"queued", "running", "stopping"}


def place() -> str:
    """Where notices appear, and the question that a browser answers only to a click."""
    return (
        '<div class="tk-toasts" role="status" aria-live="polite"></div>'
        f'<button type="button" class="tk-ask" hidden>{say("Tell me when a job is done")}</button>'
    )


ASK = """
const button = element.querySelector('.tk-ask');
const show = () => {
  button.hidden = !('Notification' in window) || Notification.permission !== 'default';
};
button.addEventListener('click', () => Notification.requestPermission().then(show));
show();
"""
"""``js_on_load`` of :func:`place`."""

TELL = """(text) => {
  if (!text || text === window.tkTold) return;
  window.tkTold = text;
  const place = document.querySelector('.tk-toasts');
  for (const notice of JSON.parse(text)) {
    const toast = document.createElement('div');
    toast.className = 'tk-toast tk-' + notice.level;
    const link = document.createElement('a');
    link.href = notice.href;
    link.textContent = notice.title;
    const words = document.createElement('span');
    words.textContent = notice.text;
    const close = document.createElement('button');
    close.type = 'button';
    close.textContent = '\\u00d7';
    close.setAttribute('aria-label', CLOSE);
    close.addEventListener('click', () => toast.remove());
    toast.append(link, words, close);
    place.append(toast);
    window.tkTitle = window.tkTitle || document.title;
    document.title = notice.title;
    const back = () => { document.title = window.tkTitle; };
    if (document.hidden) document.addEventListener('visibilitychange', back, {once: true});
    else setTimeout(back, 15000);
    const away = document.hidden || !document.hasFocus();
    if (away && 'Notification' in window && Notification.permission === 'granted') {
      try {
        const shown = new Notification(notice.title, {body: notice.text, tag: notice.id});
        shown.onclick = () => { window.focus(); window.location.href = notice.href; };
      } catch (error) { console.info('no notification here', error); }  // some phones have the name only
    }
  }
}""".replace("CLOSE", in_script("Close"))
"""Shows the notices of :func:`news`, each once. Names are put in as text, never as markup.

Starts without a line break: Gradio writes ``return`` in front of it.
"""


def states(jobs: Sequence[Job]) -> dict[str, str]:
    """What has to be remembered between two looks."""
    return {job.id: str(job.state) for job in jobs}


def ended(jobs: Sequence[Job], before: Mapping[str, str]) -> list[Job]:
    """Jobs that were under way and have come to an end nobody at the page asked for."""
    return [job for job in jobs if str(job.state) in ("done", "failed") and before.get(job.id) in UNDER_WAY]


def news(jobs: Sequence[Job], slugs: Mapping[str, str | None]) -> str:
    """Notices about ended jobs as JSON for :data:`TELL`; empty if there are none."""
    return json.dumps([_notice(job, slugs.get(job.id)) for job in jobs]) if jobs else ""


def _notice(job: Job, slug: str | None) -> dict[str, str]:
    name = plain(job.name)
    href = f"./jobs?job={job.id}"
    if str(job.state) == "failed":
        level, title, text = (
            "failed",
            say("{name} failed", name=name),
            say_all(job.error or "The training ended early."),
        )
    else:
        level, title, text = "done", say("{name} is ready", name=name), say("Make it talk.")
        href = f"./talk?avatar={slug}" if slug else href
    identity = f"{job.id}.{job.finished or job.updated}"
    return {"id": identity, "level": level, "title": title, "text": text, "href": href}
