"""Reading the marks of a file; for foreign files this runs in the limited child process. Imports nothing heavy."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from talker.errors import ProvenanceError

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP_UUID = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
"""Type of the MP4 box that holds an XMP packet (XMP specification part 3)."""
XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="talker"
 Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>""".encode()
_OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
"""A manifest may name an address to fetch: a file must never make this machine call somebody."""


def mime_of(path: Path) -> str:
    """Type of a video by its name."""
    return "video/quicktime" if path.suffix.lower() == ".mov" else "video/mp4"


def child_inspect(request: dict[str, Any], progress: Callable[[int], None]) -> dict[str, Any]:
    """Child work: :func:`read_marks` of ``request["path"]``."""
    return read_marks(Path(request["path"]))


def read_marks(path: Path) -> dict[str, Any]:
    """The marks of an MP4 or MOV: ``c2pa`` (None if there is no manifest), ``tags``, ``xmp``.

    Raises:
        ProvenanceError: ``provenance.unreadable``.
    """
    from talker.video.metadata import read_tags

    try:
        tags = read_tags(path)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            xmp = content.find(XMP_UUID + XMP) >= 0
    except (OSError, ValueError) as error:
        raise ProvenanceError(
            "provenance.unreadable",
            f"{path.name} cannot be read as a video.",
            expected="An MP4 or MOV file.",
            todo="Choose another file.",
        ) from error
    return {"c2pa": read_manifest(path), "tags": tags, "xmp": xmp}


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The active C2PA manifest of a file, verified without any network: None if it has none.

    Returns:
        ``intact`` (signature and content hashes hold), ``problems`` (codes of what does not hold, without the
        unknown signer), ``software``, ``source_type``, ``signer``.
    """
    import c2pa

    context = c2pa.Context(c2pa.Settings.from_dict(_OFFLINE))
    try:
        with path.open("rb") as file:
            reader = c2pa.Reader.try_create(mime_of(path), file, None, context)
            if reader is None:
                return None
            with reader:
                value = json.loads(reader.json())
    except c2pa.C2paError as error:
        # A manifest is there, or something that should be one, and cannot be parsed or fetched.
        return _summary({}, False, [type(error).__name__.lstrip("_")])
    failures = value.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    problems = [str(f.get("code")) for f in failures if f.get("code") != "signingCredential.untrusted"]
    manifest = value.get("manifests", {}).get(value.get("active_manifest"), {})
    intact = value.get("validation_state") in ("Valid", "Trusted") and not problems
    return _summary(manifest, intact, problems)


def _summary(manifest: dict[str, Any], intact: bool, problems: list[str]) -> dict[str, Any]:
    actions = [
        action
        for assertion in manifest.get("assertions", [])
        if str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in assertion.get("data", {}).get("actions", [])
    ]
    generators = manifest.get("claim_generator_info") or [{}]
    return {
        "intact": intact,
        "problems": problems,
        "software": str(generators[0].get("name", "")),
        "source_type": next((str(a["digitalSourceType"]) for a in actions if "digitalSourceType" in a), ""),
        "signer": str(manifest.get("signature_info", {}).get("common_name", "")),
    }
