"""Gradio without its stub files.

At every import Gradio parses the source of its eighty components and compares or writes ``.pyi`` files for editors
beside it: a second before the first page, in a folder an app may not be able to write to. Nothing reads them at run
time.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULE, FUNCTION = "gradio.component_meta", "create_or_modify_pyi"


def skip() -> None:
    """Call before Gradio is imported; later it does nothing."""
    if MODULE not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds that one module where it is, and takes the function out after it was loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        loader: Any = spec and spec.loader
        if loader is None or not hasattr(loader, "exec_module"):
            return spec
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            if hasattr(module, FUNCTION):
                setattr(module, FUNCTION, lambda *_: None)

        loader.exec_module = exec_module
        return spec
