"""Sound of any kind becomes 16 kHz mono, or one clear refusal."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media_support import tone, write_clip, write_sound

from talker.audio.waveform import load, save_wav
from talker.errors import AudioError


def code_of(path: Path, **options: float) -> str:
    with pytest.raises(AudioError) as info:
        load(path, **options)
    assert str(path.parent) not in str(info.value)
    return info.value.code


def test_wav_round_trip_is_exact_to_16_bits(tmp_path: Path) -> None:
    wave = tone(0.5)
    save_wav(tmp_path / "a.wav", wave)
    back = load(tmp_path / "a.wav")
    assert back.dtype == np.float32
    assert back.shape == wave.shape
    np.testing.assert_allclose(back, wave, atol=2 / 32768)


def test_loud_samples_are_clipped_not_wrapped(tmp_path: Path) -> None:
    save_wav(tmp_path / "a.wav", np.array([-3.0, 3.0] * 1600, np.float32))
    back = load(tmp_path / "a.wav")
    assert back.min() == pytest.approx(-1, abs=1e-3)
    assert back.max() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize(
    ("suffix", "subtype", "channels"),
    [
        ("wav", "PCM_U8", 1),
        ("wav", "FLOAT", 2),
        ("flac", "PCM_16", 2),
        ("ogg", "VORBIS", 1),
        ("wav", "ALAW", 1),
    ],
)
def test_every_form_gives_the_same_tone(
    tmp_path: Path, rate: int, suffix: str, subtype: str, channels: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.repeat(tone(1.0, rate)[:, None], channels, axis=1), rate, subtype=subtype)
    wave = load(path)
    assert len(wave) == pytest.approx(16_000, abs=600)
    middle = wave[4000:12_000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(8000)))
    assert spectrum.argmax() == 220  # 440 Hz in bins of 2 Hz
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.06)


def test_the_sound_of_a_video(tmp_path: Path) -> None:
    wave = load(write_clip(tmp_path / "clip.mp4", n=25, sound=tone(1.0, 48_000)))
    assert len(wave) == pytest.approx(16_000, abs=1200)


def test_a_gap_in_the_recording_is_silence(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for start in [*range(0, 8000, 800), *range(16_000, 24_000, 800)]:  # half a second is missing
            frame = av.AudioFrame.from_ndarray(np.full((1, 800), 8000, np.int16), format="s16", layout="mono")
            frame.rate, frame.pts = 16_000, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    wave = load(path)
    assert len(wave) == pytest.approx(24_000, abs=50)
    assert np.abs(wave[8200:15_800]).max() == 0
    assert wave[[4000, 20_000]] == pytest.approx(8000 / 32768, abs=0.01)


def test_a_lying_header_is_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    save_wav(path, tone(0.5))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(data)
    assert len(load(path)) == 8000


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_invalid_samples(tmp_path: Path, bad: float) -> None:
    wave = tone(0.5)
    wave[1000] = bad
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    assert code_of(tmp_path / "a.wav") == "audio.invalid_samples"


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert code_of(tmp_path / "a.wav") == "audio.empty"


def test_no_samples(tmp_path: Path) -> None:
    save_wav(tmp_path / "a.wav", np.zeros(0, np.float32))
    assert code_of(tmp_path / "a.wav") == "audio.too_short"


def test_too_long(tmp_path: Path) -> None:
    save_wav(tmp_path / "a.wav", np.zeros(5 * 16_000, np.float32))
    assert code_of(tmp_path / "a.wav", max_seconds=2) == "audio.too_long"
    assert code_of(tmp_path / "a.wav", max_seconds=4.5) == "audio.too_long"
    assert len(load(tmp_path / "a.wav", max_seconds=5)) == 80_000


def test_a_silent_video_has_no_sound_track(tmp_path: Path) -> None:
    assert code_of(write_clip(tmp_path / "clip.mp4", n=5)) == "audio.none"


@pytest.mark.parametrize(
    "content",
    [
        b"just some words " * 50,
        b"#EXTM3U\nfile:///etc/passwd\n",
        b"PK\x03\x04" + bytes(500),
        b"MThd" + bytes(99),
    ],
)
def test_not_sound(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    assert code_of(tmp_path / "a.wav") == "audio.not_audio"


@pytest.mark.parametrize("kind", ["noise", "index"])
def test_damaged_sound(tmp_path: Path, kind: str) -> None:
    import av

    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        write_sound(out, out.add_stream("aac", rate=48_000, layout="mono"), tone(2.0, 48_000), 48_000)
    data = bytearray(path.read_bytes())
    if kind == "noise":
        first, last = data.index(b"mdat") + 4, data.index(b"moov") - 4
        data[first:last] = np.random.default_rng(0).integers(0, 256, last - first, np.uint8).tobytes()
    else:
        data[data.index(b"moov") :] = bytes(len(data) - data.index(b"moov"))
    path.write_bytes(data)
    assert code_of(path) == "audio.damaged"
