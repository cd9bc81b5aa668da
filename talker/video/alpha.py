"""Frames with alpha: ProRes 4444 in QuickTime, a form editors take and the signed mark can be written into.

WebM (VP9 with alpha) would be smaller, but the C2PA library signs no WebM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from talker.video.encode import OUT_RATE, Mp4Writer

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.video.stream import VideoStream

_SHARE = 32
"""Squares of the chequerboard across a picture."""
_LIGHT, _DARK = 236, 208


class AlphaWriter(Mp4Writer):
    """Like :class:`talker.video.encode.Mp4Writer`, for frames [H, W, 4] uint8 with straight alpha and a ``.mov``."""

    _channels, _pixels, _sample_format = 4, "yuva444p10le", "s16"

    def _video_stream(self, fps: int, crf: int) -> VideoStream:
        stream = self._stream("prores_ks", fps)
        stream.options = {"profile": "4444", "alpha_bits": "16", "vendor": "apl0"}
        return stream

    def _audio_stream(self) -> AudioStream:
        return cast("AudioStream", self._container.add_stream("pcm_s16le", rate=OUT_RATE, layout="mono"))


def on_chequers(rgba: np.ndarray) -> np.ndarray:
    """A frame [H, W, 4] as pictures without alpha show it: [H, W, 3] over a pale chequerboard."""
    height, width = rgba.shape[:2]
    side = max(4, width // _SHARE)
    rows, columns = np.arange(height) // side, np.arange(width) // side
    board = np.where((rows[:, None] + columns) % 2, _DARK, _LIGHT)[..., None].astype(np.uint16)
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + board * (255 - alpha) + 127) // 255).astype(np.uint8)
