"""The pages put together, and the settings they are served with."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Navbar
from starlette.middleware import Middleware

from talker.studio import Studio
from talker.ui import avatars, create, jobs, origin, talk
from talker.ui.agents import add_agents
from talker.ui.api import add_api
from talker.ui.context import Context
from talker.ui.theme import STYLE, display_fonts, theme
from talker.ui.uploads import SoundForms
from talker.ui.visitors import VisitorCookie
from talker.ui.words import TRANSLATIONS, script

TITLE = "talker"
SESSIONS = 300
"""Visitors whose page is remembered here, the latest. Every call of a program counts as one and Gradio forgets none by
itself: at 0.4 MB each its own 10,000 would be all memory there is."""
MAX_QUEUE = 200
"""Events waiting for a handler, of all pages together. Gradio refuses more without a reason, so it comes after the
line before the renderer, which gives one."""
LOGO = Path(__file__).with_name("logo.svg")
HEAD = """
<meta name="viewport" content="width=device-width, initial-scale=1">
<script>
  /* words */
  const choose = (mode) => document.body && document.body.classList.toggle('dark', mode === 'dark');
  const stored = () => localStorage.getItem('tk-mode') ||
    (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
  document.addEventListener('DOMContentLoaded', () => choose(stored()));
  // Gradio calls its upload areas something else than what is written in them.
  new MutationObserver(() => {
    document.querySelectorAll('button.upload-container[aria-label]').forEach((area) => {
      if (area.innerText.trim()) area.removeAttribute('aria-label');
    });
  }).observe(document, {childList: true, subtree: true, attributeFilter: ['aria-label']});
  document.addEventListener('click', (e) => {
    if (!e.target.closest('[data-mode]')) return;
    const mode = document.body.classList.contains('dark') ? 'light' : 'dark';
    localStorage.setItem('tk-mode', mode); choose(mode);
  });
</script>
"""
START = "() => { choose(stored()); }"


def build_app(studio: Studio, *, shared: bool = False) -> gr.Blocks:
    """The app over ``studio``. ``shared`` keeps the visitors of one server apart."""
    prepare_environment()
    context = Context(studio, shared)
    render = talk.make_render(context)
    with gr.Blocks(title=TITLE, delete_cache=(3600, 86400)) as demo:
        Navbar(visible=False, main_page_name="Create")
        create.CreatePage(context)
        add_api(context, render)
        add_agents(context)
    pages: tuple[tuple[str, Callable[[], object]], ...] = (
        ("Talk", lambda: talk.TalkPage(context, demo, render)),
        ("Avatars", lambda: avatars.AvatarsPage(context, demo)),
        ("Jobs", lambda: jobs.JobsPage(context, demo)),
        ("Origin", lambda: origin.OriginPage(context)),
    )
    for name, build in pages:
        with demo.route(name, f"/{name.lower()}"):
            Navbar(visible=False, main_page_name="Create")
            build()
    return demo.queue(api_open=False, max_size=MAX_QUEUE, default_concurrency_limit=4)


def launch(
    demo: gr.Blocks,
    studio: Studio,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    shared: bool = False,
    block: bool = True,
) -> tuple[Any, str, str | None]:
    """Serve the app with settings that keep private files private; see ``queue`` in :func:`build_app`.

    Args:
        demo: From :func:`build_app`.
        studio: The same studio.
        host: Address to bind.
        port: Port to bind; 0 takes a free one.
        shared: As given to :func:`build_app`.
        block: Serve until interrupted, instead of returning.
    """
    return demo.launch(
        server_name=host,
        server_port=port or None,
        prevent_thread_lock=not block,
        quiet=not block,
        share=False,
        show_error=False,
        max_file_size=f"{studio.config.max_upload_mb}mb",
        allowed_paths=[],
        blocked_paths=[str(studio.home), str(Path(__file__).parents[1]), str(_hub_home())],
        strict_cors=True,
        enable_monitoring=False,
        run_history=False,
        ssr_mode=False,
        # Gradio asks for its own first page and gives up after 3 s, which a busy machine needs: the app would end.
        _frontend=False,
        state_session_capacity=SESSIONS,
        mcp_server=True,
        pwa=False,
        footer_links=[],
        favicon_path=LOGO,
        app_kwargs={"middleware": _middleware(shared)},
        theme=theme(),
        css=display_fonts(),
        css_paths=[STYLE],
        head=HEAD.replace("/* words */", script()),
        i18n=TRANSLATIONS,
        js=START,
    )


def _middleware(shared: bool) -> list[Any]:
    visitors = [Middleware(VisitorCookie, secure=bool(os.environ.get("SPACE_ID")))] if shared else []
    return [*visitors, Middleware(SoundForms)]


def prepare_environment() -> None:
    """A private temporary folder, and an empty working folder: Gradio serves files of both on demand.

    Before the first component is made: each remembers the folder of its moment.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    private = Path(tempfile.mkdtemp(prefix="talker-"))
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    for name in ("cache", "work"):
        (private / name).mkdir(mode=0o700)
    os.environ["GRADIO_TEMP_DIR"] = str(private / "cache")
    os.chdir(private / "work")


def _hub_home() -> Path:
    return Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
