"""Let torchvision, and with it transformers and lpips, import beside a CPU build of torch.

The torchvision wheel of the package index is built for CUDA: beside a CPU torch its operators do not load,
and its import then fails on two operator schemas that were never declared. Declaring them is enough:
transforms and models work, only torchvision's own compiled operators (``nms``, ``roi_align``) stay
unavailable. Nobody here calls those.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_keep_alive: list[object] = []  # the schemas vanish together with their Library object


def ensure_torchvision() -> bool:
    """Make ``import torchvision`` safe; call before importing torchvision, lpips or a transformers model.

    Returns:
        Whether torchvision is installed. Repeated calls do nothing.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    if _keep_alive:
        return True
    for extension in Path(spec.submodule_search_locations[0]).glob("_C*"):
        try:
            torch.ops.load_library(str(extension))
        except OSError:
            continue
        _keep_alive.append(extension)  # a matching pair of torch and torchvision: nothing to declare
        return True
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.split("(", maxsplit=1)[0]):
            library.define(schema)
    _keep_alive.append(library)
    return True
