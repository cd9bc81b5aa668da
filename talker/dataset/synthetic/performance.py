"""What the person does: lips from the sound, blinks, brows, gaze, head and torso motion. All seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from talker.dataset.synthetic.head import Face
from talker.geometry import rotvec_to_matrix
from talker.types import FPS, SAMPLE_RATE

FOCAL = 2.2
"""Focal length in picture widths: a webcam about a metre away."""

REST = np.array([0.0, -0.42, FOCAL * 512 / 104])
"""Camera-frame place of the head frame's origin at rest; the eyes' corners are 104 of 512 pixels apart."""

NECK = np.array([0.0, 1.15, 0.72])
"""Head-frame point the head turns about."""

_HOP = 160
_BLINKS = ((0.55, 1.0, 0.75, 0.3), (0.5, 1.0, 0.9, 0.55, 0.2), (0.45, 1.0, 1.0, 0.7, 0.4, 0.15))
_BLINK_EVERY = (3.0, 5.0)


@dataclass(frozen=True)
class Performance:
    """Frame by frame at FPS."""

    jaw: np.ndarray  # [T] 0..1
    spread: np.ndarray  # [T] -1..1
    press: np.ndarray  # [T] 0..1
    blink: np.ndarray  # [T] 0..1, both eyes
    brow: np.ndarray  # [T] -1..1
    gaze: np.ndarray  # [T, 2] radians, head frame
    T_cam_head: np.ndarray  # [T, 4, 4]
    T_cam_body: np.ndarray  # [T, 4, 4]

    def __len__(self) -> int:
        return len(self.jaw)

    def face(self, t: int) -> Face:
        """What the face does in frame ``t``."""
        blink = float(self.blink[t])
        gaze = (float(self.gaze[t, 0]), float(self.gaze[t, 1]))
        mouth = (float(self.jaw[t]), float(self.spread[t]), float(self.press[t]))
        return Face(*mouth, blink=(blink, blink), brow=float(self.brow[t]), gaze=gaze)


def camera_matrix(size: int) -> np.ndarray:
    """K [3, 3] in pixels of a square picture; the principal point is its centre."""
    return np.array([[FOCAL * size, 0, size / 2], [0, FOCAL * size, size / 2], [0, 0, 1.0]])


def _bands(waveform: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Power per 10 ms in bands that tell vowels, nasals and hiss apart; total first."""
    window = np.hanning(480)
    padded = np.pad(waveform.astype(np.float64), (240, 240 + _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 480)[::_HOP]
    power = np.abs(np.fft.rfft(frames * window, 512)) ** 2
    hertz = np.fft.rfftfreq(512, 1 / SAMPLE_RATE)

    def band(low: float, high: float) -> np.ndarray:
        return power[:, (hertz >= low) & (hertz < high)].sum(1) + 1e-9

    named = {
        "murmur": band(90, 420),
        "first": band(480, 1150),
        "back": band(600, 1300),
        "front": band(1600, 3000),
        "upper": band(1500, 5000),
    }
    return band(90, 5000), named


def lips(waveform: np.ndarray, n_frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Jaw, spread and press [n_frames] each, a fixed function of the sound.

    Open vowels carry their energy between about 500 and 1150 Hz (a high first formant), close vowels and nasals
    below it, hiss above: so the energy of that band opens the mouth. Energy around 2 kHz rather than around
    900 Hz means a front vowel, lips drawn wide; the contrary means rounded lips.
    """
    total, bands = _bands(waveform)
    level = 10 * np.log10(total)
    # The floors keep a silent clip from being taken for quiet speech (0 dB here: about -50 dB of full scale).
    loud = max(float(np.percentile(level, 95)), 0.0)
    voiced = np.clip((level - (loud - 32)) / 10, 0, 1)
    reference = max(float(np.percentile(10 * np.log10(bands["first"]), 95)), loud - 20)
    first = np.clip((10 * np.log10(bands["first"]) - (reference - 26)) / 26, 0, 1)
    open_share = bands["first"] / (bands["first"] + bands["murmur"])
    jaw = voiced * first**1.6 * (0.38 + 0.62 * np.clip((open_share - 0.12) / 0.55, 0, 1))
    # Hiss and close front vowels leave a slit; nasals and stops have nothing up there and leave none.
    upper = np.clip((10 * np.log10(bands["upper"]) - (reference - 32)) / 24, 0, 1)
    jaw = np.maximum(jaw, 0.24 * voiced * upper)
    balance = 10 * np.log10(bands["front"] / bands["back"])
    spread = voiced * np.tanh((balance + 9) / 8)
    # Inside speech, hardly any energy in the vowels' band: lips or tongue shut the mouth.
    press = voiced * np.clip(1 - first / 0.45, 0, 1)
    at = np.arange(n_frames) * (SAMPLE_RATE // FPS) / _HOP

    def frames(track: np.ndarray, sigma: float) -> np.ndarray:
        return np.interp(at, np.arange(len(track)), gaussian_filter1d(track, sigma), right=0.0)

    jaw = np.clip(1.12 * frames(jaw, 2.6), 0, 1)
    # Closed lips close fully: the last bit of opening is cut off softly.
    jaw = np.clip(np.where(jaw < 0.08, jaw**2 / 0.16, jaw - 0.04), 0, 1)
    return jaw, 0.75 * frames(spread, 4.5), frames(press, 3.0)


def _wander(n: int, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Smooth noise [n] of deviation about 1: a few sines between two frequencies in hertz."""
    time = np.arange(n) / FPS
    hertz = rng.uniform(low, high, 5)
    phase = rng.uniform(0, 2 * np.pi, 5)
    weight = rng.uniform(0.6, 1.0, 5) / (0.4 + hertz / high)
    waves = np.sin(2 * np.pi * hertz[:, None] * time + phase[:, None]) * weight[:, None]
    return waves.sum(0) / np.sqrt((weight**2).sum() / 2)


def _blinks(n: int, rng: np.random.Generator) -> np.ndarray:
    track = np.zeros(n)
    at = int(rng.uniform(1.0, 2.5) * FPS)
    while at < n:
        shape = _BLINKS[rng.integers(len(_BLINKS))]
        count = min(len(shape), n - at)
        track[at : at + count] = shape[:count]
        at += int(rng.uniform(*_BLINK_EVERY) * FPS)
    return track


def _brows(jaw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Raised now and then on a loud syllable, otherwise nearly still."""
    n = len(jaw)
    track = 0.10 * _wander(n, rng, 0.05, 0.3)
    at = int(rng.uniform(0.8, 2.0) * FPS)
    while at < n:
        reach = jaw[at : at + FPS]
        if reach.max(initial=0) > 0.35:
            centre = at + int(reach.argmax())
            track += rng.uniform(0.45, 0.9) * np.exp(
                -0.5 * ((np.arange(n) - centre) / rng.uniform(5, 8)) ** 2
            )
        at += int(rng.uniform(2.0, 4.0) * FPS)
    return np.clip(track, -1, 1)


def _rigid(rotvec: np.ndarray, shift: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    """[T, 4, 4] turning about ``pivot``, then moving by ``shift`` [T, 3]."""
    R = rotvec_to_matrix(torch.from_numpy(rotvec)).numpy()
    T = np.tile(np.eye(4), (len(R), 1, 1))
    T[:, :3, :3] = R
    T[:, :3, 3] = shift + pivot - R @ pivot
    return T


def _poses(jaw: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    n = len(jaw)
    time = np.arange(n) / FPS
    accent = gaussian_filter1d(jaw, 4) - gaussian_filter1d(jaw, 18)
    breath = np.sin(2 * np.pi * (0.26 * time + rng.uniform()))
    sway = np.stack([_wander(n, rng, 0.04, 0.25) for _ in range(4)], 1)
    body_turn = np.stack((0.006 * breath, 0.022 * sway[:, 0], 0.014 * sway[:, 1]), 1)
    body_shift = np.stack((0.045 * sway[:, 1], 0.012 * breath + 0.01 * sway[:, 2], 0.05 * sway[:, 3]), 1)
    body = _rigid(body_turn, REST + body_shift, np.array([0.0, 3.5, 0.8]))
    turn = np.stack(
        (
            0.038 * _wander(n, rng, 0.08, 0.45) + 0.16 * accent,
            0.075 * _wander(n, rng, 0.06, 0.40),
            0.032 * _wander(n, rng, 0.06, 0.35),
        ),
        1,
    )
    shift = np.stack([s * _wander(n, rng, 0.06, 0.3) for s in (0.022, 0.010, 0.03)], 1)
    return body @ _rigid(turn, shift, NECK), body


def _gaze(T_cam_head: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Towards the camera whatever the head does, with short looks aside."""
    to_camera = -np.einsum("tji,tj->ti", T_cam_head[:, :3, :3], T_cam_head[:, :3, 3])
    gaze = np.stack([np.arctan2(to_camera[:, i], -to_camera[:, 2]) for i in (0, 1)], 1)
    at = int(rng.uniform(1.5, 3.0) * FPS)
    while at < len(gaze):
        hold = int(rng.uniform(0.4, 1.0) * FPS)
        gaze[at : at + hold] += rng.uniform((-0.13, -0.05), (0.13, 0.07))
        at += hold + int(rng.uniform(1.2, 3.0) * FPS)
    return gaze


def perform(waveform: np.ndarray, n_frames: int, seed: int) -> Performance:
    """Everything the person does while saying ``waveform`` [S]."""
    rng = np.random.default_rng((seed, 29))
    jaw, spread, press = lips(waveform, n_frames)
    blink, brow = _blinks(n_frames, rng), _brows(jaw, rng)
    head, body = _poses(jaw, rng)
    return Performance(jaw, spread, press, blink, brow, _gaze(head, rng), head, body)
