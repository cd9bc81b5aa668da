"""Self-supervised speech models (HuBERT, wav2vec 2.0) as encoders, when their weights are on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from talker.audio.features import HOP, AudioEncoder, chunks, n_rows, silent_rows
from talker.audio.weights import cached_snapshot, has_weights
from talker.errors import BackendError
from talker.torchvision_fix import ensure_torchvision
from talker.types import SAMPLE_RATE

REPOSITORIES = {"hubert": "facebook/hubert-base-ls960", "wav2vec2": "facebook/wav2vec2-base-960h"}
_RECEPTIVE_FIELD = 400
"""Samples the convolutions need for their first row."""

CHUNK_S = 20.0
CONTEXT_S = 2.0
"""Attention is quadratic in length: long recordings go through in chunks, with context that is thrown away."""


class TransformerEncoder(AudioEncoder):
    """Last hidden states of a speech transformer with a 20 ms stride.

    The samples are brought to zero mean and unit variance over the recording, as the models were trained.

    Args:
        name: ``hubert`` or ``wav2vec2``.
        model_path: Folder with ``config.json`` and safetensors weights; by default the local cache of the
        Hub.

    Raises:
        BackendError: ``backend.weights`` when the weights are not there or cannot be loaded.
    """

    def __init__(self, name: str, model_path: str | None = None) -> None:
        self.name = name
        source = model_path or str(cached_snapshot(REPOSITORIES[name]) or REPOSITORIES[name])
        ensure_torchvision()
        from transformers import AutoModel

        try:
            # Only safetensors and only known architectures: nothing in the folder is ever executed.
            model = AutoModel.from_pretrained(
                source, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError) as e:
            raise BackendError(
                "backend.weights",
                f"The weights of the audio encoder {name!r} are not on this machine.",
                expected=f"Safetensors weights of {REPOSITORIES[name]} in the local Hub cache.",
                todo="Download them with the Hub client, or use mel+moonshine, whose weights came with the app.",
            ) from e
        strides = tuple(getattr(model.config, "conv_stride", ()))
        if getattr(model.config, "model_type", "") != name or int(np.prod(strides)) != HOP:
            raise BackendError(
                "backend.weights",
                f"The weights given for {name!r} are of another kind ({model.config.model_type}).",
                expected=f"A {name} model with a stride of {HOP} samples.",
            )
        self._model = model.eval().requires_grad_(False)
        self.dim = int(model.config.hidden_size)
        quiet = self._rows(np.zeros(SAMPLE_RATE, np.float32))
        self.silence = quiet[len(quiet) // 2]

    def parts(self, waveform: np.ndarray) -> Iterator[np.ndarray]:
        """See :class:`~talker.audio.features.AudioEncoder`."""
        silent = silent_rows(waveform)
        if silent.all():
            yield np.tile(self.silence, (len(silent), 1))
            return
        normal = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
        for chunk in chunks(len(waveform), CHUNK_S, CONTEXT_S):
            yield chunk.part(self._rows(normal[chunk.samples].astype(np.float32)), silent, self.silence)

    @torch.inference_mode()
    def _rows(self, samples: np.ndarray) -> np.ndarray:
        """[S] normalised samples to [n_rows(S), dim]."""
        rows = n_rows(len(samples))
        missing = _RECEPTIVE_FIELD + HOP * (rows - 1) - len(samples)
        # Half of the padding before: the receptive field of a row is then centred on it.
        padded = np.pad(samples, (missing // 2, missing - missing // 2))
        states = self._model(torch.from_numpy(padded)[None]).last_hidden_state[0]
        assert states.shape == (rows, self.dim), f"{tuple(states.shape)} states for {rows} rows"
        return states.numpy().copy()


def weights_available(name: str, model_path: str | None = None) -> bool:
    """Whether :class:`TransformerEncoder` can load without a download."""
    if model_path is not None:
        return has_weights(Path(model_path))
    return cached_snapshot(REPOSITORIES[name]) is not None
