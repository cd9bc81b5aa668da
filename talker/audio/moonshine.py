"""How speech is heard by a recogniser: states from the middle of a speech encoder whose weights come with this package.

The encoder of Moonshine Tiny (Jeffries et al., arXiv 2410.15608; MIT licence, 27 million parameters with its decoder,
trained on some 200,000 hours of English) turns sound into what its decoder reads words from. Its last layer has given
up how a mouth moved; those in the middle still know, whoever speaks, and far better than spectra do: see docs/LOG.md.
``docs/moonshine_weights.py`` says where the file of weights comes from.

The network is written out here, 60 lines, because importing a library's for it costs every start of the app seven
seconds; a test holds it equal to that of transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from talker.audio.features import HOP, AudioEncoder, chunks, n_rows, silent_rows, speech_gain
from talker.types import SAMPLE_RATE

WEIGHTS = Path(__file__).parent / "moonshine_tiny" / "encoder.safetensors"

LAYERS = 4
"""Of the six: each speaks more of words and less of mouths than the one before."""
WIDTH, HEADS, MLP_WIDTH = 288, 8, 1152
_HEAD = WIDTH // HEADS
_TURNED = 32
"""Of the numbers of a head those that rotary embedding turns with time."""

STRIDE = 384
"""Samples between states: 24 ms."""
FIELD = 127 + 64 * 6 + 64 * 3 * 2
"""Samples the convolutions take for one state."""

CHUNK_S = 10.0
CONTEXT_S = 3.0
"""Long recordings go through in chunks, with so much sound before and after that is thrown away."""


class MoonshineEncoder(AudioEncoder):
    """States after each of the first layers, normalised row by row, and their mean."""

    name = "moonshine"

    SCALE = 3.0
    """Factor on the mean of the states. A ridge holds back what is small: this is where it trusts them over mel."""

    def __init__(self) -> None:
        self.dim = WIDTH
        self._network = load_network()
        quiet = self._rows(np.zeros(SAMPLE_RATE, np.float32))
        self.silence = quiet[len(quiet) // 2]

    def parts(self, waveform: np.ndarray) -> Iterator[np.ndarray]:
        """See :class:`AudioEncoder`."""
        silent = silent_rows(waveform)
        if silent.all():
            yield np.tile(self.silence, (len(silent), 1))
            return
        loud = (waveform * speech_gain(waveform)).astype(np.float32)
        for chunk in chunks(len(waveform), CHUNK_S, CONTEXT_S):
            yield chunk.part(self._rows(loud[chunk.samples]), silent, self.silence)

    @torch.inference_mode()
    def _rows(self, samples: np.ndarray) -> np.ndarray:
        """[S] samples to [n_rows(S), WIDTH], each the states around the middle of its row, interpolated."""
        rows = n_rows(len(samples))
        padded = np.pad(samples, (FIELD // 2, FIELD // 2 + STRIDE + rows * HOP - len(samples)))
        states = self.SCALE * self._network(torch.from_numpy(padded)[None])[0]
        # State j is centred on sample j * STRIDE, now that half a field of zeros comes first.
        at = (torch.arange(rows) * HOP + HOP / 2) / STRIDE
        before = at.long()
        return torch.lerp(states[before], states[before + 1], (at - before)[:, None]).numpy()


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(WIDTH, bias=False)
        self.post_attention_layernorm = nn.LayerNorm(WIDTH, bias=False)
        self.self_attn = nn.ModuleDict(
            {f"{name}_proj": nn.Linear(WIDTH, WIDTH, bias=False) for name in ("q", "k", "v", "o")}
        )
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, MLP_WIDTH), "fc2": nn.Linear(MLP_WIDTH, WIDTH)})

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        heard, attn = self.input_layernorm(x), self.self_attn
        q, k, v = (
            attn[f"{name}_proj"](heard).unflatten(-1, (HEADS, _HEAD)).transpose(1, 2) for name in "qkv"
        )
        mixed = F.scaled_dot_product_attention(_turned(q, turn), _turned(k, turn), v)
        x = x + attn["o_proj"](mixed.transpose(1, 2).flatten(2))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.post_attention_layernorm(x))))


class Network(nn.Module):
    """Samples [B, S] to the mean of the normalised states [B, (S - FIELD) // STRIDE + 1, WIDTH], near zero in speech.

    Attributes:
        centre: [WIDTH] mean state of three minutes of read speech.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, WIDTH, 127, 64, bias=False)
        self.groupnorm = nn.GroupNorm(1, WIDTH)
        self.conv2 = nn.Conv1d(WIDTH, 2 * WIDTH, 7, 3)
        self.conv3 = nn.Conv1d(2 * WIDTH, WIDTH, 3, 2)
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))
        self.centre = nn.Buffer(torch.zeros(WIDTH))

    def forward(self, samples: Tensor) -> Tensor:
        """See the class."""
        return torch.stack([F.layer_norm(x, (WIDTH,)) for x in self.states(samples)]).mean(0) - self.centre

    def states(self, samples: Tensor) -> list[Tensor]:
        """After each layer."""
        x = self.groupnorm(torch.tanh(self.conv1(samples[:, None])))
        x = F.gelu(self.conv3(F.gelu(self.conv2(x)))).transpose(1, 2)
        rates = 10000.0 ** -(torch.arange(0, _TURNED, 2) / _TURNED)
        angle = torch.arange(x.shape[1])[:, None] * rates
        turn = torch.polar(torch.ones_like(angle), angle)
        return [x := layer(x, turn) for layer in self.layers]


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Rotary embedding of heads [B, H, T, _HEAD]: pairs of numbers are turned as one by ``turn`` [T, _TURNED / 2]."""
    pairs = torch.view_as_complex(x[..., :_TURNED].unflatten(-1, (-1, 2)).contiguous())
    return torch.cat([torch.view_as_real(pairs * turn).flatten(-2), x[..., _TURNED:]], dim=-1)


def load_network() -> Network:
    """The network with its weights, in 32 bits; the file has linear layers in 8, with a scale and a zero."""
    stored = load_file(WEIGHTS)
    values = {name: value.float() for name, value in stored.items() if not name.endswith((".scale", ".zero"))}
    for name in stored:
        if name.endswith(".scale"):
            layer = name.removesuffix(".scale")
            values[f"{layer}.weight"] = (values[f"{layer}.weight"] - stored[f"{layer}.zero"]) * stored[name]
    network = Network()
    network.load_state_dict(values)
    return network.eval().requires_grad_(False)
