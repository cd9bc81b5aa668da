"""SyncNet (Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016): lips and sound in one space.

Two convolutional networks map 0.2 s of a face and of its sound to 1024 numbers each, close to each other where both
belong together. The public weights (``syncnet_v2.model``) are not part of this project and never downloaded.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from talker.audio.mfcc import N_COEFFICIENTS
from talker.errors import CheckpointError

WINDOW_FRAMES = 5
"""Frames of video in one window, at 25 a second."""
WINDOW_ROWS = 20
"""Rows of MFCC in one window, at 100 a second."""
SIDE = 224
"""Pixels of a face crop."""
FEATURES = 1024
MAX_WEIGHTS_BYTES = 256 << 20
"""Five times the public file."""

_UNCHECKED = "num_batches_tracked"
"""A counter of training that weights of older PyTorch lack and that inference does not use."""
_EXPECTED = "A state dict of SyncNet with netcnnaud, netfcaud, netcnnlip and netfclip."
_ADVICE = (
    "Give the public syncnet_v2.model, or leave --syncnet out: every other figure is measured without it."
)


class SyncNet(nn.Module):
    """Both networks, with the parameter names of the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_block(nn.Conv2d(1, 64, 3, padding=1)),
            nn.MaxPool2d(1),  # does nothing; it keeps the published numbering of the layers
            *_block(nn.Conv2d(64, 192, 3, padding=1)),
            nn.MaxPool2d(3, (1, 2)),
            *_block(nn.Conv2d(192, 384, 3, padding=1)),
            *_block(nn.Conv2d(384, 256, 3, padding=1)),
            *_block(nn.Conv2d(256, 256, 3, padding=1)),
            nn.MaxPool2d(3, 2),
            *_block(nn.Conv2d(256, 512, (5, 4))),
        )
        self.netcnnlip = nn.Sequential(
            *_block(nn.Conv3d(3, 96, (WINDOW_FRAMES, 7, 7), (1, 2, 2))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_block(nn.Conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_block(nn.Conv3d(256, 512, (1, 6, 6))),
        )
        self.netfcaud, self.netfclip = _head(), _head()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def sound(self, coefficients: Tensor) -> Tensor:
        """Features [N, 1024] of MFCC windows [N, 13, 20]."""
        assert coefficients.shape[1:] == (N_COEFFICIENTS, WINDOW_ROWS), coefficients.shape
        return self.netfcaud(self.netcnnaud(coefficients[:, None]).flatten(1))

    def lips(self, faces: Tensor) -> Tensor:
        """Features [N, 1024] of windows of face crops [N, 3, 5, 224, 224], blue first, 0 to 255."""
        assert faces.shape[1:] == (3, WINDOW_FRAMES, SIDE, SIDE), faces.shape
        return self.netfclip(self.netcnnlip(faces).flatten(1))


def _block(convolution: nn.Conv2d | nn.Conv3d) -> tuple[nn.Module, nn.Module, nn.Module]:
    norm = nn.BatchNorm2d if isinstance(convolution, nn.Conv2d) else nn.BatchNorm3d
    return convolution, norm(convolution.out_channels), nn.ReLU()


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, FEATURES))


def load_syncnet(path: Path, device: torch.device | str = "cpu") -> SyncNet:
    """SyncNet with the weights of ``path``, ready for inference. Nothing in the file is executed.

    Raises:
        CheckpointError: ``syncnet.missing``, ``.too_large``, ``.unreadable``, ``.weights`` (names or shapes are
            another network's) or ``.values`` (not finite).
    """
    path = Path(path)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        network = SyncNet()
    state = _checked(_read(path), network.state_dict(), path.name)
    network.load_state_dict(state, assign=True)
    return network.to(device).eval().requires_grad_(False)


def _read(path: Path) -> object:
    if not path.is_file():
        raise _refused("syncnet.missing", f"There is no file called {path.name}.")
    size = path.stat().st_size
    if size > MAX_WEIGHTS_BYTES:
        raise CheckpointError(
            "syncnet.too_large",
            f"{path.name} has {size >> 20} MB.",
            expected=f"The weights of SyncNet have about 52 MB; at most {MAX_WEIGHTS_BYTES >> 20} are read.",
            todo=_ADVICE,
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the format of a file that is refused anyway, or read well
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file meets any of a dozen kinds, assertions among them
        raise _refused("syncnet.unreadable", f"{path.name} cannot be read as weights alone.") from error


def _checked(state: object, wanted: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Exactly the tensors of ``wanted``, in float32."""
    found = {k: v for k, v in state.items() if _is_plain(v)} if isinstance(state, dict) else {}
    unknown = found.keys() - wanted.keys()
    if unknown:  # a network with more layers is another one
        raise _refused("syncnet.weights", f"{name} holds {len(unknown)} tensors that SyncNet does not have.")
    checked = {}
    for key, like in wanted.items():
        if key.endswith(_UNCHECKED):
            checked[key] = torch.zeros((), dtype=torch.int64)
            continue
        if key not in found:
            raise _refused("syncnet.weights", f"{name} lacks {key}.")
        if found[key].shape != like.shape:
            shapes = f"{list(found[key].shape)} instead of {list(like.shape)}"
            raise _refused("syncnet.weights", f"{name} has {key} of shape {shapes}.")
        if not torch.isfinite(found[key]).all():
            raise _refused("syncnet.values", f"{name} holds numbers in {key} that are not finite.")
        checked[key] = found[key].float()
    return checked


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def _refused(code: str, found: str) -> CheckpointError:
    return CheckpointError(code, found, expected=_EXPECTED, todo=_ADVICE)
