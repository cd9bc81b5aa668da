"""What a file is, judged by its first bytes and never by its name, and whether its container was cut short.

The answer pins the demuxer: a playlist or a drawing that calls itself ``clip.mp4`` never reaches a parser
that could open other files or the network.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

HEAD = 4096

_ISO_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot"}
_STILL_BRANDS = {b"heic", b"heix", b"mif1", b"msf1", b"avif"}
_MAX_BOXES = 10_000
_MAX_INDEX = 64 << 20
_FAR = 1 << 40
_MP3_KBIT_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_MP3_KBIT_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)

# (offset, magic, demuxer, carries pictures, name for people). A demuxer of "" names a file that is refused.
_MAGIC: tuple[tuple[int, bytes, str, bool, str], ...] = (
    (0, b"\x1aE\xdf\xa3", "matroska", True, "Matroska or WebM"),
    (8, b"AVI ", "avi", True, "AVI"),
    (8, b"WAVE", "wav", False, "WAV"),
    (8, b"WEBP", "", False, "a WebP picture"),
    (0, b"FLV\x01", "flv", True, "FLV"),
    (0, b"\x00\x00\x01\xba", "mpeg", True, "MPEG program stream"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "asf", True, "WMV"),
    (0, b"OggS", "ogg", True, "Ogg"),
    (0, b"fLaC", "flac", False, "FLAC"),
    (0, b"ID3", "mp3", False, "MP3"),
    (0, b"FORM", "aiff", False, "AIFF"),
    (0, b"caff", "caf", False, "CAF"),
    (0, b"#!AMR", "amr", False, "AMR"),
    (0, b".snd", "au", False, "AU"),
    (0, b"PK\x03\x04", "", False, "a ZIP archive or an office document"),
    (0, b"PK\x05\x06", "", False, "an empty ZIP archive"),
    (0, b"%PDF", "", False, "a PDF document"),
    (0, b"\x89PNG", "", False, "a PNG picture"),
    (0, b"\xff\xd8\xff", "", False, "a JPEG picture"),
    (0, b"GIF8", "", False, "a GIF picture"),
    (0, b"BM", "", False, "a BMP picture"),
    (0, b"MZ", "", False, "a Windows program"),
    (0, b"\x7fELF", "", False, "a program"),
    (0, b"Rar!", "", False, "a RAR archive"),
    (0, b"7z\xbc\xaf", "", False, "a 7-Zip archive"),
    (0, b"\x1f\x8b", "", False, "a gzip archive"),
)


@dataclass(frozen=True)
class Kind:
    """What the bytes are."""

    demuxer: str
    """FFmpeg demuxer to pin; empty when the file is refused."""
    pictures: bool
    """The container can carry a video track."""
    label: str
    """For people: ``WebM``, ``a PNG picture``, ``plain text``."""


def sniff(path: Path) -> Kind:
    """Name the format of a file from its first bytes. Never raises on content."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[4:8] in _ISO_BOXES:
        if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
            return Kind("", False, "a HEIC or AVIF picture")
        return Kind("mov", True, "MP4 or QuickTime")
    for offset, magic, demuxer, pictures, label in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return Kind(demuxer, pictures, label)
    return _sniff_streams(head)


def _sniff_streams(head: bytes) -> Kind:
    """Formats without a magic number at the start, then what people most often upload by mistake."""
    for packet, offset in ((188, 0), (192, 4)):
        syncs = head[offset::packet]
        if len(syncs) >= 3 and all(byte == 0x47 for byte in syncs[:8]):
            return Kind("mpegts", True, "MPEG transport stream")
    for length, kind in (
        (_mp3_frame(head), Kind("mp3", False, "MP3")),
        (_adts_frame(head), Kind("aac", False, "AAC")),
    ):
        if length and head[length : length + 2] == head[:2]:  # two frames in a row, not two lucky bytes
            return kind
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:7] == b"#EXTM3U":
        return Kind("", False, "a playlist")
    if text[:1] == b"<":
        return Kind("", False, "a web page or a drawing (HTML, SVG or XML)")
    if (
        head
        and b"\0" not in head
        and sum(byte >= 32 or byte in b"\t\r\n\f" for byte in head) > 0.95 * len(head)
    ):
        return Kind("", False, "plain text")
    return Kind("", False, "unknown data")


def _mp3_frame(head: bytes) -> int:
    """Length in bytes of the MPEG audio layer III frame at the start; 0 if there is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    first_version = head[1] & 0x18 == 0x18
    bit_rate = (_MP3_KBIT_1 if first_version else _MP3_KBIT_2)[head[2] >> 4]
    rate = (44_100, 48_000, 32_000, 0)[head[2] >> 2 & 3] >> {0x18: 0, 0x10: 1, 0x00: 2}.get(head[1] & 0x18, 9)
    if not bit_rate or rate < 8_000:
        return 0
    return (144 if first_version else 72) * bit_rate * 1000 // rate + (head[2] >> 1 & 1)


def _adts_frame(head: bytes) -> int:
    """Length in bytes of the AAC (ADTS) frame at the start; 0 if there is none."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return 0
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5


def truncated(path: Path, kind: Kind) -> bool:
    """Whether the container's own sizes say that the end of the file is missing (MP4, Matroska, AVI)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if kind.demuxer == "mov":
            return _mov_truncated(file, size)
        if kind.demuxer == "matroska":
            return _matroska_truncated(file, size)
        if kind.demuxer == "avi":
            return int.from_bytes(file.read(8)[4:], "little") + 8 > size
    return False


def protected(path: Path, kind: Kind) -> bool:
    """Whether the pictures of an MP4 are encrypted (a film bought or rented): its index says so by name."""
    if kind.demuxer != "mov":
        return False
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        for _ in range(_MAX_BOXES):
            file.seek(position)
            header = file.read(16)
            length, name = int.from_bytes(header[:4], "big"), header[4:8]
            length = int.from_bytes(header[8:16], "big") if length == 1 else length or size - position
            if name == b"moov":
                file.seek(position)
                index = file.read(min(length, _MAX_INDEX))
                return b"encv" in index and b"schm" in index
            if length < 8 or position + length >= size:
                return False
            position += length
    return False


def _mov_truncated(file: BinaryIO, size: int) -> bool:
    """The index must be there, and no top-level box that matters may pass the end of the file."""
    position, seen = 0, set()
    for _ in range(_MAX_BOXES):
        if position + 8 > size:
            break
        file.seek(position)
        header = file.read(16)
        length, name = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:  # the box reaches to the end of the file
            length = size - position
        if length < 8:
            break
        if name in (b"moov", b"mdat", b"moof") and position + length > size:
            return True
        seen.add(name)
        position += length
    return b"moov" not in seen


def _matroska_truncated(file: BinaryIO, size: int) -> bool:
    """The segment's size must fit into the file (live recordings leave it open)."""
    _element(file)
    length = _element(file, skip=False)
    return length is not None and file.tell() + length > size


def _element(file: BinaryIO, *, skip: bool = True) -> int | None:
    """Read one EBML header: the size of its content, None if unknown. ``skip`` moves past the content."""
    first = file.read(1)
    if not first:
        return None
    file.seek(max(0, 8 - first[0].bit_length()), os.SEEK_CUR)
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    value = first[0] & ((1 << (8 - width)) - 1)
    rest = file.read(width - 1)
    value = (value << (8 * len(rest))) | int.from_bytes(rest, "big")
    if value == (1 << (7 * width)) - 1:
        return None
    if skip:
        file.seek(min(value, _FAR), os.SEEK_CUR)  # a damaged size must not overflow the position
    return value
