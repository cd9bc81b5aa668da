"""Imports point down, third parties stay where they belong, files stay readable."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "talker"

LAYERS = (
    (
        "errors",
        "types",
        "events",
        "geometry",
        "atomic",
        "safe_files",
        "tensor_files",
        "card",
        "memory",
        "threads",
        "fused",
        "jit",
        "sandbox",
        "sniff",
        "torchvision_fix",
    ),
    ("video", "audio"),
    ("dataset", "model", "render", "ssim", "losses", "metrics"),
    ("checkpoint", "device", "captured", "frame", "alignment", "cutout", "provenance", "model_card"),
    ("train", "drive", "dub"),
    ("hub", "jobs"),
    ("studio", "worker"),
    ("__main__", "cli", "ui"),
)
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}
# Inside one layer modules are siblings and never meet, except where one is defined in terms of the other.
SAME_LAYER = {
    ("metrics", "losses"),
    ("losses", "ssim"),
    ("types", "errors"),
    ("geometry", "types"),
    ("events", "types"),
    ("fused", "threads"),
}
SAME_LAYER |= {("atomic", "errors"), ("safe_files", "errors"), ("safe_files", "atomic")}
SAME_LAYER |= {("tensor_files", "safe_files"), ("tensor_files", "atomic"), ("tensor_files", "errors")}
SAME_LAYER |= {
    ("card", "safe_files"),
    ("card", "errors"),
    ("frame", "captured"),
    ("cutout", "frame"),
    ("dub", "drive"),
}
SAME_LAYER |= {("model_card", "checkpoint"), ("__main__", "cli")}
SAME_LAYER |= {("jobs", "hub"), ("train", "drive"), ("sandbox", "errors"), ("video", "audio")}

CONFINED = {
    "gsplat": ("render/gsplat_backend.py",),
    "numba": ("jit/",),
    "llvmlite": ("jit/",),
    "mediapipe": ("dataset/steps/",),
    "huggingface_hub": ("hub/",),
    "dbos": ("jobs/",),
    "c2pa": ("provenance/",),
    "lpips": ("losses.py", "metrics.py"),
    "torchvision": ("losses.py", "metrics.py", "torchvision_fix.py"),
    "transformers": ("audio/",),
    "pocketsphinx": ("audio/",),
    "espeakng_loader": ("audio/",),
    "av": ("video/", "audio/"),
    "moviepy": ("video/",),
    "gradio": ("ui/",),
    "spaces": ("ui/",),
    "gradio_client": ("jobs/", "studio.py"),
    "safetensors": ("tensor_files.py", "checkpoint.py", "train/", "audio/moonshine.py"),
    "matplotlib": ("train/plots.py", "train/ablation/plots.py"),
    "markdown_it": ("ui/",),
    "plyfile": ("checkpoint.py", "model/"),
}
MAX_LINES = 450


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> list[str]:
    """Every imported module, also those inside functions; relative ones made absolute."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            name = ".".join(base + ([node.module] if node.module else []))
            if name == "talker":
                found += [f"talker.{alias.name}" for alias in node.names]
            else:
                found.append(name)
    return found


def unit(module: str) -> str:
    """``talker.video.decode`` -> ``video``."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in LAYER_OF, f"{path} belongs to no layer"
    for module in imports(path):
        if not module.startswith("talker."):
            continue
        other = unit(module)
        if other == own or other.startswith("__"):
            continue
        assert other in LAYER_OF, f"{path}: {module} belongs to no layer"
        down = LAYER_OF[other] < LAYER_OF[own]
        assert down or (own, other) in SAME_LAYER, f"{path} imports {module}, which is not below it"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_third_parties_are_confined(path: Path) -> None:
    where = str(path.relative_to(PACKAGE))
    for module in imports(path):
        allowed = CONFINED.get(module.split(".")[0])
        assert allowed is None or any(where.startswith(a) for a in allowed), f"{where} imports {module}"


def test_drive_loads_neither_trainer_nor_tracker() -> None:
    for path in [PACKAGE / "drive.py", *PACKAGE.glob("drive/*.py")]:
        if path.exists():
            assert not {unit(m) for m in imports(path) if m.startswith("talker.")} & {"train", "dataset"}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{path} has {lines} lines"
    assert path.stem != "utils", "a helper belongs to a stage"
