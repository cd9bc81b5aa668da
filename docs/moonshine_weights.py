"""How ``talker/audio/moonshine_tiny/encoder.safetensors`` was made.

    pip download --no-deps moonshine-voice==0.1.0
    pip install onnxruntime flatbuffers
    python -m docs.moonshine_weights moonshine_voice-0.1.0-*.whl

The wheel (MIT licence, Moonshine AI) carries the encoder of ``moonshine-tiny`` (arXiv 2410.15608) with its linear
layers in 8 bits, in ONNX Runtime's own format. That runtime gives out the last layer only; the layers in the middle,
which know most of the lips, are the reason why the weights are taken out. What is kept is what those need, unchanged:
the convolutions rounded to 16 bits and four of the six layers as they are, 8 bits with a scale and a zero each. Beside
them is the mean state over the recording of a novel read aloud (public domain) that is in the wheel too.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from talker.audio import waveform
from talker.audio.moonshine import LAYERS, WEIGHTS, WIDTH, load_network

MEMBER = "moonshine_voice/assets/tiny-en/encoder_model.ort"
READING = "moonshine_voice/assets/two_cities.wav"
_TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64}
_FORMER_NAMES = {"onnx::Mul_2080": "groupnorm.weight", "onnx::Add_2081": "groupnorm.bias"}


def tensors_of(ort_model: bytes) -> dict[str, np.ndarray]:
    """The encoder's tensors by the names transformers gives them; quantized ones with ``.scale`` and ``.zero``."""
    from onnxruntime.tools.ort_format_model import ort_flatbuffers_py  # noqa: F401  (makes the next line possible)
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    graph = InferenceSession.GetRootAsInferenceSession(ort_model, 0).Model().Graph()
    initial = {
        t.Name().decode(): _array(t) for t in map(graph.Initializers, range(graph.InitializersLength()))
    }
    found: dict[str, np.ndarray] = {}
    for name, value in initial.items():
        plain = _FORMER_NAMES.get(name, name.removesuffix("_add_tensor"))
        if re.match(r"(conv\d|groupnorm|layers\.\d\.[\w.]+)\.(weight|bias)$", plain):
            found[plain] = value.ravel() if plain.startswith("groupnorm") else value
    for node in map(graph.Nodes, range(graph.NodesLength())):
        inputs = [node.Inputs(k).decode() for k in range(node.InputsLength())]
        weight = next((name for name in inputs if name.endswith("_quantized") and name in initial), None)
        if weight is None:
            continue
        layer = node.Name().decode().strip("/").replace("/MatMul_quant", "").replace("/", ".")
        base = weight.removesuffix("_quantized")
        found[f"{layer}.weight"] = initial[weight].T
        found[f"{layer}.scale"] = initial[f"{base}_scale"]
        found[f"{layer}.zero"] = initial[f"{base}_zero_point"]
    return found


def _array(tensor: Any) -> np.ndarray:
    raw = tensor.RawDataAsNumpy().tobytes() if tensor.RawDataLength() else b""
    return np.frombuffer(raw, _TYPES[tensor.DataType()]).reshape(
        tensor.DimsAsNumpy() if tensor.DimsLength() else ()
    )


def needed(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of the convolutions and of the first ``LAYERS`` layers; 32 bits become 16 where there are many."""
    kept = {}
    for name, value in sorted(tensors.items()):
        layer = re.match(r"layers\.(\d)\.", name)
        if layer is None or int(layer[1]) < LAYERS:
            many = value.dtype == np.float32 and value.size > 10_000
            kept[name] = np.ascontiguousarray(value.astype(np.float16) if many else value)
    return kept


def mean_state(samples: np.ndarray) -> np.ndarray:
    """[WIDTH] over a recording [S], ten seconds at a time, by the network as it lies on the disk."""
    network = load_network()
    pieces = np.split(samples, range(160_000, len(samples), 160_000))[:-1]
    with torch.inference_mode():
        return (
            np.concatenate([network(torch.from_numpy(p)[None])[0].numpy() for p in pieces]).mean(0).round(3)
        )


def main() -> None:
    """Read the wheel, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wheel", type=Path)
    with zipfile.ZipFile(parser.parse_args().wheel) as wheel:
        tensors = needed(tensors_of(wheel.read(MEMBER))) | {"centre": np.zeros(WIDTH, np.float32)}
        with tempfile.TemporaryDirectory() as folder:
            samples = waveform.load(Path(wheel.extract(READING, folder)))
    source = {
        "model": "moonshine-tiny, English",
        "from": f"moonshine-voice 0.1.0, {MEMBER}",
        "licence": "MIT",
    }
    save_file(tensors, WEIGHTS, metadata=source)
    tensors["centre"] = mean_state(samples)
    save_file(tensors, WEIGHTS, metadata=source)
    print(f"{WEIGHTS}: {len(tensors)} tensors, {WEIGHTS.stat().st_size / 1e6:.1f} MB")  # noqa: T201


if __name__ == "__main__":
    main()
