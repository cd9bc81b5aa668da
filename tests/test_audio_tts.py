"""Text is spoken, with a time for every word; what cannot be spoken is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talker.audio import tts
from talker.audio.features import row_level_db
from talker.audio.tts import EspeakEngine, TransformersEngine, Voice, clean, engines, speak
from talker.errors import SpeechError
from talker.types import SAMPLE_RATE, Speech

SENTENCE = "Hello there, Dr. Smith! In 2024 well-known things — cost $5.50, right?"


@pytest.fixture(scope="module")
def speech() -> Speech:
    return speak(SENTENCE, voice="espeak:en-us")


def test_sound_is_speech_between_silences(speech: Speech) -> None:
    assert speech.waveform.dtype == np.float32
    assert np.abs(speech.waveform).max() <= 1
    assert 4 < speech.duration_s < 15
    assert np.abs(speech.waveform[: round(tts.LEAD_S * SAMPLE_RATE)]).max() == 0
    assert np.abs(speech.waveform[-round(tts.TAIL_S * SAMPLE_RATE) :]).max() == 0
    assert "basic voice" in speech.label


def test_words_are_the_text_in_order(speech: Speech) -> None:
    assert " ".join(word.text for word in speech.words) == SENTENCE
    times = np.array([(word.start_s, word.end_s) for word in speech.words])
    assert (np.diff(times.ravel()) >= -1e-9).all()
    assert times[0, 0] >= tts.LEAD_S
    assert times[-1, 1] <= speech.duration_s


def test_words_are_where_the_sound_is(speech: Speech) -> None:
    level = row_level_db(speech.waveform)
    for word in speech.words:
        inside = level[int(word.start_s * 50) : int(np.ceil(word.end_s * 50)) + 1]
        assert inside.max() > -40, f"{word} is silent"
    in_words = np.zeros(len(level), bool)
    for word in speech.words:
        in_words[int(word.start_s * 50) : int(np.ceil(word.end_s * 50)) + 1] = True
    assert level[~in_words].max() < -30, "and nothing is said outside of them"


def test_speed_and_voice_change_the_sound(speech: Speech) -> None:
    fast = speak(SENTENCE, voice="espeak:en-us", rate=1.6)
    assert fast.duration_s < 0.8 * speech.duration_s
    high = speak(SENTENCE, voice="espeak:en-us+f3")
    assert len(high.waveform) != len(speech.waveform) or not np.allclose(high.waveform, speech.waveform)


def test_same_text_same_sound(speech: Speech) -> None:
    np.testing.assert_array_equal(speech.waveform, speak(SENTENCE, voice="espeak:en-us").waveform)


def test_many_languages() -> None:
    voices = EspeakEngine().voices()
    assert len({voice.id for voice in voices}) == len(voices) > 100
    assert speak("Guten Tag.", language="de").label.startswith("German")
    words = speak(
        "你好，世界。今天天气很好，我们去公园散步吧，然后一起吃饭，晚上再回家休息吧", language="zh"
    ).words
    assert len(words) > 10, "without spaces the engine's words are used"


def test_markup_is_read_out_and_not_obeyed() -> None:
    plain = speak("hi", voice="espeak:en-us")
    tagged = speak('<speak><break time="20s"/>hi</speak> \x0150S [[h@l]]', voice="espeak:en-us")
    assert tagged.duration_s < 20
    assert tagged.duration_s > plain.duration_s


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty"),
        (" \n\t\x00 ", "empty"),
        ("\u200b\u202e", "empty"),
        ("a" * 2001, "too_long"),
        ("x" * 10**6, "too_long"),
    ],
)
def test_text_that_is_refused(text: str, code: str) -> None:
    with pytest.raises(SpeechError) as info:
        speak(text)
    assert info.value.code == f"speech.{code}"


def test_longest_text_works() -> None:
    assert speak(("word " * 400)[:2000]).duration_s > 60


@pytest.mark.parametrize("options", [{"voice": "espeak:tlh"}, {"language": "xx"}, {"voice": "nobody:en"}])
def test_unknown_voice(options: dict[str, str]) -> None:
    with pytest.raises(SpeechError) as info:
        speak("Hello.", **options)
    assert info.value.code == "speech.no_voice"


@pytest.mark.parametrize("rate", [0.1, 5.0])
def test_rate_out_of_range(rate: float) -> None:
    with pytest.raises(SpeechError) as info:
        speak("Hello.", rate=rate)
    assert info.value.code == "speech.rate"


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_cleaning_never_fails_and_is_idempotent(text: str) -> None:
    try:
        once = clean(text)
    except SpeechError as e:
        assert e.code == "speech.empty"
    else:
        assert clean(once) == once
        assert once.isprintable()


@pytest.mark.parametrize("seed", range(3))
def test_odd_text_never_breaks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    alphabet = list("ab ,.!?-—'\"<>&{}[]%$#@/\\|~^*()_+=1234567890äßçñ你好سلام😀👨‍👩‍👧‍👦\u0301\u202e")
    text = "".join(rng.choice(alphabet, 400))
    speech = speak(text, voice="espeak:en-us")
    assert np.isfinite(speech.waveform).all()
    said = "".join(word.text for word in speech.words)
    assert "".join(said.split()) == "".join(clean(text).split()), "nothing is lost from the captions"


def test_long_installation_paths_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library ignores data paths beyond 160 characters and exits; the short link avoids that."""
    import sys

    import espeakng_loader

    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    (deep / "espeakng_loader").symlink_to(Path(espeakng_loader.__file__).parent)
    monkeypatch.setattr(sys, "path", [str(deep), *sys.path])
    assert speak("Hello.", voice="espeak:en-us").duration_s > 0.5


@pytest.fixture(scope="module")
def tiny_vits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random VITS of the real architecture with a few thousand weights."""
    from talker.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    import torch
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    folder = tmp_path_factory.mktemp("vits")
    letters = "_ abcdefghijklmnopqrstuvwxyz',.?!"
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({letter: k for k, letter in enumerate(letters)}))
    VitsTokenizer(str(vocabulary), pad_token="_", unk_token="_", phonemize=False).save_pretrained(folder)
    torch.manual_seed(0)
    config = VitsConfig(
        vocab_size=len(letters),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=32,
        flow_size=16,
        spectrogram_bins=9,
        prior_encoder_num_flows=1,
        posterior_encoder_num_wavenet_layers=1,
        prior_encoder_num_wavenet_layers=1,
        duration_predictor_num_flows=1,
        depth_separable_num_layers=1,
        duration_predictor_filter_channels=16,
        upsample_initial_channel=32,
        upsample_rates=[8, 8, 2, 2],
        upsample_kernel_sizes=[16, 16, 4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
    )
    VitsModel(config).save_pretrained(folder)
    return folder


def test_transformers_engine_speaks(tiny_vits: Path) -> None:
    engine = TransformersEngine(str(tiny_vits))
    assert engine.available()
    (voice,) = engine.voices()
    text = "Hello you. How are things?"
    speech = engine.speak(text, voice, 1.0)
    np.testing.assert_array_equal(speech.waveform, engine.speak(text, voice, 1.0).waveform)
    assert " ".join(word.text for word in speech.words) == text
    starts = [word.start_s for word in speech.words]
    assert starts == sorted(starts)
    assert engine.speak(text, voice, 0.5).duration_s > speech.duration_s


def test_engines_say_what_they_can_do(tmp_path: Path) -> None:
    assert not TransformersEngine(str(tmp_path)).available()
    assert TransformersEngine(str(tmp_path)).voices() == ()
    assert {engine.name for engine in engines()} == {"transformers", "espeak"}
    assert EspeakEngine().available()


def test_a_voice_of_an_engine_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(SpeechError) as info:
        speak("Hello.", voice=Voice("other:en", "Other", "en", "other"))
    assert info.value.code == "speech.no_voice"
