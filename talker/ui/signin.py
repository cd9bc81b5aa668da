"""Signing in with Hugging Face, and duplicating. On a Space alone: Gradio's login elsewhere is a mock, proving nothing.

A Space offers it with ``hf_oauth: true`` and ``hf_oauth_scopes: [contribute-repos, read-repos]`` in its settings. The
token lives in the visitor's own session cookie and is lent to one call at a time; nothing here keeps or prints it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import gradio as gr

from talker.ui.words import fixed


def offered() -> bool:
    """Whether visitors can sign in here."""
    return bool(os.environ.get("SPACE_ID") and os.environ.get("OAUTH_CLIENT_ID"))


def button() -> None:
    """The sign-in button, where it means something."""
    if offered():
        gr.LoginButton(
            fixed("Sign in with Hugging Face"), logout_value="Sign out {}", size="md", min_width=120
        )


def duplicate() -> None:
    """The way to a Space of one's own, with a GPU of one's own, where this is a Space."""
    if os.environ.get("SPACE_ID"):
        gr.DuplicateButton(fixed("Duplicate this Space to train on a GPU of your own"), size="md")


def lent(handler: Callable[[str, str, gr.Request], Any]) -> Callable[..., Any]:
    """A handler of one value that also gets the visitor's token: ``handler(value, token or "", request)``."""

    def signed(value: str, request: gr.Request, login: gr.OAuthToken | None) -> Any:
        return handler(value, login.token if login else "", request)

    def plain(value: str, request: gr.Request) -> Any:
        return handler(value, "", request)

    return signed if offered() else plain


def lent_for_avatar(handler: Callable[[str, str, str, gr.Request], Any]) -> Callable[..., Any]:
    """The same for ``handler(avatar, repository, token, request)``; a token typed in wins over the sign-in."""

    def signed(avatar: str, repo: str, typed: str, request: gr.Request, login: gr.OAuthToken | None) -> Any:
        return handler(avatar, repo, typed.strip() or (login.token if login else ""), request)

    def plain(avatar: str, repo: str, typed: str, request: gr.Request) -> Any:
        return handler(avatar, repo, typed.strip(), request)

    return signed if offered() else plain
