"""Marks inside the finished file: plain tags, an XMP packet, and a signed C2PA manifest, which comes last."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import Any

from talker import __version__
from talker.errors import ProvenanceError
from talker.provenance.identity import Identity, load_identity
from talker.provenance.reading import SOURCE_TYPE, XMP, XMP_UUID, mime_of, read_marks

PLAIN_MARK = "AI-generated with talker: a synthetic video, not a recording."
"""Goes into the ``comment`` tag, where every player and most converters keep it."""

MAX_INSPECT_BYTES = 1 << 30
_ADVICE = "Try again; the unmarked video was not kept."


def plain_metadata(avatar_name: str) -> dict[str, str]:
    """Container tags for a generated video; give them to the encoder, or let :func:`sign` add them."""
    return {"title": avatar_name, "comment": PLAIN_MARK, "description": PLAIN_MARK}


def sign(path: Path, *, avatar_name: str, identity_folder: Path | None = None) -> None:
    """Mark the finished MP4 or MOV ``path`` as AI-generated, in place and atomically, and verify the result.

    Nothing may write to the file afterwards: the signature would no longer hold. Fails closed: when a mark
    cannot be written, the unmarked file is removed.

    Args:
        path: A finished MP4 or MOV.
        avatar_name: For the title tag. The signed manifest carries no personal data.
        identity_folder: Where the signing key lives; a private folder in the cache by default.

    Raises:
        ProvenanceError: ``provenance.key``, ``provenance.failed`` or ``provenance.unreadable``.
    """
    path = Path(path)
    try:
        _sign(path, avatar_name, load_identity(identity_folder))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def inspect(path: Path) -> dict[str, Any]:
    """What a video says about its origin. Foreign files are read in a limited child process, without network.

    Returns:
        ``ai_generated``: some mark says so. ``made_by_talker``. ``c2pa``: None, or the manifest's ``intact``,
        ``problems``, ``software``, ``source_type`` and ``signer``. ``comment``: the tag. ``xmp``: the packet is
        there. ``summary``: one sentence for a person.

    Raises:
        ProvenanceError: ``provenance.unreadable``: no MP4 or MOV, too large, or not to be parsed in time.
    """
    from talker import sandbox

    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    if not 0 < size <= MAX_INSPECT_BYTES:
        raise _unreadable(path.name, f"An MP4 file of at most {MAX_INSPECT_BYTES >> 20} MB.")
    limits = sandbox.Limits(wall_s=30.0, memory_mb=4096, file_mb=1)
    try:
        found = sandbox.run("talker.provenance.reading:child_inspect", {"path": str(path.resolve())}, limits)
    except sandbox.SandboxError as error:
        raise _unreadable(path.name, "An ordinary MP4 file.") from error
    manifest, comment = found["c2pa"], str(found["tags"].get("comment", ""))
    software = "" if manifest is None else manifest["software"]
    plain = comment.startswith(PLAIN_MARK) or bool(found["xmp"])
    signed = manifest is not None and manifest["source_type"] == SOURCE_TYPE
    return {
        "ai_generated": plain or signed,
        "made_by_talker": plain or (signed and software == "talker"),
        "c2pa": manifest,
        "comment": comment,
        "xmp": bool(found["xmp"]),
        "summary": _sentence(manifest, plain, signed),
    }


def _sentence(manifest: dict[str, Any] | None, plain: bool, signed: bool) -> str:
    if manifest is not None and not manifest["intact"]:
        return "The file carries a signed mark of origin, but it was changed after signing."
    if signed:
        return "AI-generated; the signed mark is intact (the signer is a machine nobody vouches for)."
    if plain:
        return "AI-generated, say its plain tags; there is no signed mark, so it may have been changed."
    if manifest is not None:
        return "The file carries an intact signed mark that does not call it AI-generated."
    return "No mark of origin was found; that proves nothing either way."


def _sign(path: Path, avatar_name: str, identity: Identity) -> None:
    import c2pa

    from talker.video.metadata import rewrite_tags

    mime = mime_of(path)
    try:
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as folder:
            tagged, signed = Path(folder) / f"tagged{path.suffix}", Path(folder) / path.name
            rewrite_tags(path, tagged, plain_metadata(avatar_name))
            with tagged.open("ab") as file:
                file.write(struct.pack(">I", 24 + len(XMP)) + b"uuid" + XMP_UUID + XMP)
            info = c2pa.C2paSignerInfo(b"es256", identity.chain, identity.key, None)
            with (
                c2pa.Signer.from_info(info) as signer,
                c2pa.Builder({**_manifest(), "format": mime}) as builder,
                tagged.open("rb") as source,
                signed.open("w+b") as target,
            ):
                builder.sign(signer, mime, source, target)
            _verify(signed)
            signed.replace(path)
    except c2pa.C2paError as error:
        raise _failed(path.name) from error
    except (OSError, ValueError) as error:  # also PyAV's errors: not a readable MP4, or the disk is full
        raise _failed(path.name) from error


def _manifest() -> dict[str, Any]:
    agent = {"name": "talker", "version": __version__}
    created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": agent}
    return {
        "claim_generator_info": [agent],
        "title": "talker video",
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [created]}}],
    }


def _verify(path: Path) -> None:
    """Read back what was written: a mark nobody can read is no mark."""
    marks = read_marks(path)
    manifest = marks["c2pa"]
    signed = manifest is not None and manifest["intact"] and manifest["source_type"] == SOURCE_TYPE
    if not signed or not marks["xmp"] or marks["tags"].get("comment") != PLAIN_MARK:
        raise _failed(path.name)


def _failed(name: str) -> ProvenanceError:
    return ProvenanceError(
        "provenance.failed",
        f"{name} could not be marked as AI-generated.",
        expected="Every generated video carries its marks.",
        todo=_ADVICE,
    )


def _unreadable(name: str, expected: str) -> ProvenanceError:
    return ProvenanceError(
        "provenance.unreadable",
        f"{name} cannot be read as a video.",
        expected=expected,
        todo="Choose another file.",
    )
