"""The texts of the pages, read from their code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

UI = Path(__file__).parents[1] / "talker" / "ui"
FOR_PROGRAMS = {"api.py", "agents.py", "stubs.py", "theme.py", "visitors.py", "uploads.py", "app.py"}
"""Nothing in these is seen on a page, but the title, which is a name."""

MARKUP = re.compile(r"<[^>]*>|<[^>]*$|^[^<>]*>|&[a-z#0-9]+;")
READABLE = re.compile(r"[A-Za-z]{2,},? [A-Za-z]{2,}|^[A-Z][a-z]+[.:!?]?$")
CODE = re.compile(r"=>|document\.|window\.|[{};]\s*\n|^[a-z0-9 :;.-]*tk-[a-z0-9 :;.-]*$|^element\.")
TALKS_TO_PROGRAMS = {"AssertionError", "getattr", "hasattr", "compile"}


def constants(path: Path) -> Iterator[tuple[str, int]]:
    """Every string of a file with its line, but docstrings, type names and what only programs read."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {id(node) for node in _silent(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            yield node.value, node.lineno


def readable(text: str) -> str:
    """What a person would read of a string; nothing if it is code."""
    if CODE.search(text):
        return ""
    return next((part for part in MARKUP.split(text) if READABLE.search(part.strip())), "").strip()


SHOWN = {"label", "info", "placeholder", "title"}
WITH_TEXT = {"Button", "DownloadButton", "Tab", "Accordion", "LoginButton"}


def bare_texts(path: Path) -> Iterator[tuple[str, int]]:
    """Texts handed to a component as they are."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        given = [k.value for k in node.keywords if k.arg in SHOWN]
        if getattr(node.func, "attr", "") in WITH_TEXT:
            given += node.args[:1]
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and readable(value.value):
                yield value.value, value.lineno


def _silent(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # docstrings
            yield node.value
        if isinstance(node, ast.Assert) and node.msg:
            yield from ast.walk(node.msg)
        if isinstance(node, ast.arg) and node.annotation:
            yield from ast.walk(node.annotation)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in TALKS_TO_PROGRAMS:
            yield from ast.walk(node)
