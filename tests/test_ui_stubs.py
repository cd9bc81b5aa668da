"""The app starts without Gradio's stub files."""

from __future__ import annotations

import inspect
import subprocess
import sys

from gradio import component_meta

SCRIPT = """
import talker.ui
from gradio import component_meta
assert component_meta.create_or_modify_pyi.__module__ == "talker.ui.stubs"
import gradio
gradio.Textbox(label="works")
"""


def test_the_app_takes_the_stub_files_out() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=120)


def test_gradio_still_writes_them_under_that_name() -> None:
    source = inspect.getsource(component_meta.ComponentMeta.__new__)
    assert "create_or_modify_pyi(component_class, name, events)" in source
