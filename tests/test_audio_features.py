"""Features: a row per 20 ms, constant in silence, indifferent to loudness, stable when sound is added."""

from __future__ import annotations

import sys
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from talker.audio.features import AudioEncoder, get_encoder, n_rows
from talker.audio.windows import window_blocks, windows
from talker.errors import BackendError, ConfigError

OFFLINE = ("mel", "phones", "mel+phones", "moonshine", "mel+moonshine")


@cache
def encoder(name: str) -> AudioEncoder:
    return get_encoder(name)


@cache
def voice(seconds: float = 6.0, seed: int = 0) -> np.ndarray:
    """Something speech-like made by code: a pulse train through moving resonances, with pauses."""
    rng = np.random.default_rng(seed)
    n = round(seconds * 16_000)
    pulses = np.zeros(n)
    pulses[:: 16_000 // 120] = 1.0
    sound = np.zeros(n)
    for start in range(0, n, 1600):
        segment = slice(start, start + 1600)
        source = pulses[segment] + 0.02 * rng.standard_normal(len(pulses[segment]))
        spectrum = np.fft.rfft(source, 2048)
        f = np.fft.rfftfreq(2048, 1 / 16_000)
        shape = sum(1 / (1 + ((f - c) / 90) ** 2) for c in rng.uniform([250, 900, 2300], [800, 2200, 3200]))
        sound[segment] = np.fft.irfft(spectrum * shape)[: len(source)] * (
            0.02 if start // 1600 % 7 == 6 else 1
        )
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


@cache
def heard(name: str) -> np.ndarray:
    return encoder(name).encode(voice())


@pytest.mark.parametrize("name", OFFLINE)
def test_rows_cover_the_sound(name: str) -> None:
    for n in (1, 319, 320, 321, 15_999, 48_000):
        rows = encoder(name).encode(voice()[:n])
        assert rows.shape == (n_rows(n), encoder(name).dim)
        assert rows.dtype == np.float32
        assert np.isfinite(rows).all()


@pytest.mark.parametrize("name", OFFLINE)
def test_same_sound_same_rows(name: str) -> None:
    np.testing.assert_array_equal(heard(name), get_encoder(name).encode(voice().copy()))


@pytest.mark.parametrize("name", OFFLINE)
def test_digital_silence_is_one_vector_wherever_it_is(name: str) -> None:
    gap = voice().copy()
    gap[32_000:64_000] = 0
    for sound, rows in ((np.zeros(32_000, np.float32), slice(None)), (gap, slice(100, 200))):
        features = encoder(name).encode(sound)[rows]
        np.testing.assert_array_equal(features, np.broadcast_to(encoder(name).silence, features.shape))
    assert heard(name).std(axis=0).min() > 0.1, "and speech is not"


@pytest.mark.parametrize("name", OFFLINE)
def test_loudness_changes_nothing(name: str) -> None:
    quiet = encoder(name).encode(0.25 * voice())
    assert np.sqrt(((heard(name) - quiet) ** 2).mean()) < 0.1 * heard(name).std()


@pytest.mark.parametrize("name", OFFLINE)
def test_speech_is_on_the_scale_a_network_likes(name: str) -> None:
    rows = heard(name)
    assert abs(rows.mean()) < 1
    assert 0.3 < rows.std() < 2
    assert np.abs(rows).max() < 10


@pytest.mark.parametrize("name", OFFLINE)
def test_a_prefix_agrees_with_the_whole(name: str) -> None:
    """Streaming: after some seconds of speech, later sound barely changes earlier rows."""
    whole = encoder(name).encode(voice(12.0))
    prefix = encoder(name).encode(voice(12.0)[: 6 * 16_000])
    settled = slice(0, 290)  # the last rows before the cut lack their future context
    difference = np.sqrt(((whole[settled] - prefix[settled]) ** 2).mean())
    assert difference < 0.25 * whole[settled].std()
    assert np.corrcoef(whole[settled].ravel(), prefix[settled].ravel())[0, 1] > 0.97


@pytest.mark.parametrize("name", OFFLINE)
def test_rows_are_in_time_with_the_sound(name: str) -> None:
    """The first row that hears a click is the row the click is in, give or take the analysis window."""
    sound = np.zeros(32_000, np.float32)
    sound[16_000:16_160] = 0.5 * np.random.default_rng(0).standard_normal(160)
    changed = np.abs(encoder(name).encode(sound) - encoder(name).silence).max(axis=1) > 0
    assert changed[50]
    assert not changed[:49].any()
    assert not changed[52:].any()


def test_mel_bands_follow_the_frequency() -> None:
    t = np.arange(8000) / 16_000
    tones = np.concatenate([np.sin(2 * np.pi * f * t) for f in (200, 800, 3200)]).astype(np.float32)
    rows = encoder("mel").encode(tones)
    order = [int(rows[k * 25 + 12].argmax()) for k in range(3)]
    assert order == sorted(set(order)), "a higher tone is loudest in a higher band"


def test_phones_are_heard() -> None:
    """Vowel-like sound has little silence in it, a quiet hiss much."""
    from talker.audio.phone_scores import PHONES

    rng = np.random.default_rng(0)
    sound = voice(4.0).copy()
    sound[32_000:] = 3e-4 * rng.standard_normal(32_000)
    rows = encoder("phones").encode(sound)
    silence = PHONES.index("SIL")
    assert rows[120:180, silence].mean() > rows[20:80, silence].mean() + 0.5


@pytest.mark.parametrize("name", ["phones", "moonshine"])
def test_long_recordings_have_no_seams(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunked decoding agrees with one that has no chunk border there, and goes over the border as elsewhere."""
    monkeypatch.setattr(f"talker.audio.{name}.CHUNK_S", 12.0)
    whole = encoder(name).encode(voice(12.0))
    monkeypatch.setattr(f"talker.audio.{name}.CHUNK_S", 6.0)
    seam = slice(250, 350)
    chunked = encoder(name).encode(voice(12.0))
    assert not np.array_equal(whole[seam], chunked[seam]), "there is a border"
    assert np.corrcoef(whole[seam].ravel(), chunked[seam].ravel())[0, 1] > 0.97
    steps = np.linalg.norm(np.diff(chunked, axis=0), axis=1)
    assert steps[299] <= np.percentile(steps, 95), "no jump over the border"


def test_moonshine_is_the_encoder_of_transformers() -> None:
    """Written out for its import time; the library's network with the same weights gives the same states."""
    from talker.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    import torch
    from transformers import MoonshineConfig
    from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder

    from talker.audio import moonshine

    ours = moonshine.load_network()
    theirs = MoonshineEncoder(MoonshineConfig(encoder_num_hidden_layers=moonshine.LAYERS)).eval()
    missing = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (["layer_norm.weight"], ["centre"])
    with torch.inference_mode():
        samples = torch.from_numpy(voice(3.0))[None]
        states = ours.states(samples)
        found = theirs(samples, output_hidden_states=True)
        for i in range(1, moonshine.LAYERS):
            torch.testing.assert_close(states[i - 1], found.hidden_states[i], rtol=1e-4, atol=1e-3)
        last = torch.nn.functional.layer_norm(states[-1], states[-1].shape[-1:])
        torch.testing.assert_close(last, found.last_hidden_state, rtol=1e-4, atol=1e-4)


def test_moonshine_weights_are_as_they_were_made() -> None:
    import hashlib

    from talker.audio.moonshine import WEIGHTS

    digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert digest == "c35d35e22196b40385c9b164937b8c84d3327fb07518cb6c2cc86514e86189c6", (
        "docs/moonshine_weights.py makes the file"
    )
    assert "MIT License" in (WEIGHTS.parent / "LICENSE").read_text()


@pytest.mark.parametrize("name", ["phones", "moonshine"])
def test_concatenation(name: str) -> None:
    parts = [heard("mel"), heard(name)]
    np.testing.assert_array_equal(heard(f"mel+{name}"), np.concatenate(parts, axis=1))


def test_unknown_encoder() -> None:
    with pytest.raises(ConfigError, match="mfcc"):
        get_encoder("mfcc")


def test_phones_without_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(BackendError, match="pocketsphinx") as info:
        get_encoder("mel+phones")
    assert info.value.code == "backend.package"


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random HuBERT and wav2vec 2.0 models of the real architecture and stride, with a few thousand weights."""
    from talker.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

    folder = tmp_path_factory.mktemp("models")
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": [16] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    }
    torch.manual_seed(0)
    HubertModel(HubertConfig(**small)).save_pretrained(folder / "hubert")
    Wav2Vec2Model(Wav2Vec2Config(**small)).save_pretrained(folder / "wav2vec2")
    return folder


@pytest.mark.parametrize("name", ["hubert", "wav2vec2"])
def test_transformer_encoder(tiny_models: Path, name: str) -> None:
    model = get_encoder(name, model_path=str(tiny_models / name))
    assert (model.name, model.dim) == (name, 32)
    rows = model.encode(voice())
    assert rows.shape == (300, 32)
    np.testing.assert_array_equal(rows, model.encode(voice()))
    gap = voice().copy()
    gap[32_000:64_000] = 0
    features = model.encode(gap)[100:200]
    np.testing.assert_array_equal(features, np.broadcast_to(model.silence, features.shape))


def test_transformer_chunks_join(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from talker.audio import pretrained

    model = get_encoder("hubert", model_path=str(tiny_models / "hubert"))
    whole = model.encode(voice(8.0))
    monkeypatch.setattr(pretrained, "CHUNK_S", 3.0)
    assert np.corrcoef(whole.ravel(), model.encode(voice(8.0)).ravel())[0, 1] > 0.99


def test_missing_and_wrong_weights_are_told(tiny_models: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"mel\+moonshine") as info:
        get_encoder("hubert", model_path=str(tmp_path))
    assert info.value.code == "backend.weights"
    assert str(tmp_path) not in str(info.value)
    with pytest.raises(BackendError, match="another kind"):
        get_encoder("hubert", model_path=str(tiny_models / "wav2vec2"))


def test_auto_says_what_it_chose(tiny_models: Path, tmp_path: Path) -> None:
    assert get_encoder("auto", model_path=str(tiny_models / "hubert")).name == "hubert"
    assert get_encoder("auto", model_path=str(tmp_path)).name == "mel+moonshine"


def test_windows_are_centred_and_padded() -> None:
    rows = np.arange(40, dtype=np.float32)[:, None]
    found = windows(rows, 20, width=4)
    assert found.shape == (20, 4, 1)
    assert found[5, :, 0].tolist() == [8, 9, 10, 11]  # t = 5 is 0.2 s, between rows 9 and 10
    assert found[0, :, 0].tolist() == [0, 0, 0, 1]
    assert found[19, :, 0].tolist() == [36, 37, 38, 39]
    assert windows(rows, 25, width=4)[24, :, 0].tolist() == [39] * 4, "past the end the last row repeats"


def test_windows_of_a_part_are_those_of_the_whole() -> None:
    rows = np.random.default_rng(0).standard_normal((200, 3))
    np.testing.assert_array_equal(windows(rows, 100)[:50], windows(rows, 50))


def test_windows_of_later_sound() -> None:
    rows = np.arange(40, dtype=np.float32)[:, None]
    plain = windows(rows, 18, width=4)
    assert (windows(rows, 18, width=4, offset=np.full(18, 1.0))[:-1] == plain[1:]).all(), (
        "a frame is two rows"
    )
    half = windows(rows, 18, width=4, offset=np.full(18, 0.25))
    assert (half[2:-2] == plain[2:-2] + 0.5).all(), "between two rows half of each"
    early = windows(rows, 18, width=4, offset=np.full(18, -0.25))
    assert (early[2:-2] == plain[2:-2] - 0.5).all()


@pytest.mark.parametrize("lengths", [(200,), (1, 1, 198), (60, 70, 70), (150, 50)])
@pytest.mark.parametrize("width", [1, 4, 20, 33])
@pytest.mark.parametrize("n_frames", [3, 100, 120])
def test_windows_of_parts_are_those_of_the_whole(lengths: tuple[int, ...], width: int, n_frames: int) -> None:
    rows = np.random.default_rng(0).standard_normal((200, 3))
    parts = np.split(rows, np.cumsum(lengths)[:-1])
    blocks = list(window_blocks(parts, n_frames, width=width))
    np.testing.assert_array_equal(np.concatenate(blocks), windows(rows, n_frames, width=width))


def test_windows_come_before_the_last_part() -> None:
    parts = iter([np.zeros((100, 1)), np.zeros((100, 1))])
    first = next(window_blocks(parts, 100))
    assert 40 <= len(first) < 50
    assert next(parts, None) is not None, "the second part was not asked for"


def test_a_long_recording_is_heard_in_parts_and_leaves_the_process_free() -> None:
    """Children score it, so that other threads go on: the decoder would hold Python's lock all the while."""
    sound, ticks, done = voice(24.0), [], threading.Event()

    def tick() -> None:
        while not done.wait(0.01):
            ticks.append(1)

    beside = threading.Thread(target=tick)
    beside.start()
    try:
        parts = list(encoder("phones").parts(sound))
    finally:
        done.set()
        beside.join()
    assert [len(part) for part in parts] == [500, 500, 200]
    assert len(ticks) > 20
