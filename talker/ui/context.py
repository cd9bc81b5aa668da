"""What every page needs: the studio, who is asking, and how errors reach a person."""

from __future__ import annotations

import contextlib
import html
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from talker.errors import ConfigError, TalkerError
from talker.studio import LOCAL, Studio
from talker.ui.words import in_each_language, say, say_error

COOKIE = "talker_id"
VISITOR = re.compile(r"[0-9a-f]{32}")
SHOW_S = 900
RENDERING = "rendering"
"""``concurrency_id`` of everything that uses the graphics card or all cores."""
MAX_WAITING = 24
"""Handlers of renderings at a time. More than ``Studio.line`` has places: the others are told how long it takes."""

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""For events of the pages: no spinner over the content, not callable by programs."""

PICK = (
    "element.addEventListener('click', (e) => {"
    "const item = e.target.closest('[data-id]'); if (item) trigger('pick', {id: item.dataset.id}); });"
)
"""``js_on_load`` of a list whose items carry ``data-id``: raises the event ``pick``."""


@dataclass(frozen=True)
class Context:
    """Handed to every page."""

    studio: Studio
    shared: bool = False
    """Several people use this server: each visitor sees only what belongs to their browser."""

    def owner(self, request: gr.Request) -> str:
        """Who is asking. On a private machine everybody is the person at it.

        Raises:
            ConfigError: In shared mode without the cookie the server sets.
        """
        if not self.shared:
            return LOCAL
        visitor = dict(request.cookies or {}).get(COOKIE, "")
        if not VISITOR.fullmatch(visitor):
            raise ConfigError(
                "visitor.unknown",
                "This browser did not send back the cookie that keeps your work apart from others'.",
                todo="Allow cookies for this page and reload it.",
            )
        return visitor


@contextlib.contextmanager
def spoken_errors() -> Iterator[None]:
    """Turn user errors into Gradio's message box: found, expected, what to do."""
    try:
        yield
    except TalkerError as error:
        # The message box renders HTML, and a message may quote a file name.
        words = html.escape(say_error(error), quote=False)
        raise gr.Error(words, title=say("That did not work"), print_exception=False) from error


def markup(make: Callable[[], str] | None = None, **options: Any) -> gr.HTML:
    """``gr.HTML`` in our own style, without the one Gradio gives to articles; ``make`` says what it starts with."""
    return gr.HTML(make and in_each_language(make), apply_default_css=False, **options)


def expose(path: Path) -> str:
    """A copy outside the private home that Gradio may serve; its address is random, and it goes after a while."""
    return str(shutil.copyfile(path, new_shown_folder() / path.name))


def new_shown_folder() -> Path:
    """A folder with a random name that Gradio may serve; older ones are removed on the way."""
    root = Path(tempfile.gettempdir()) / "talker-show"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in root.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another request may remove it first
            if time.time() - old.stat().st_mtime > SHOW_S:
                shutil.rmtree(old, ignore_errors=True)
    folder = root / secrets.token_hex(16)
    folder.mkdir(mode=0o700)
    return folder
