"""The model card of an avatar: README.md with the front matter the Hub reads. Figures always name their protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from talker import __version__
from talker.atomic import write_atomic
from talker.errors import CheckpointError

if TYPE_CHECKING:
    from talker.card import AvatarCard

LIBRARY = "talker"
TAG = "talker-avatar"
TAGS = (TAG, "talking-head", "gaussian-splatting", "3d-gaussian-splatting", "avatar")
_README = "README.md"
_MEDIA = ("preview.mp4", "poster.jpg")
MAX_CARD_BYTES = 256 << 10
_GENERATED = "<!-- Written by talker; remove this line to keep your own text. -->"

_PROTOCOLS = {
    "A": "head drawn over the clip's own torso and background, as papers publish",
    "B": "the whole frame from the avatar alone, as a user gets it",
    "C": "the face pasted back into the clip's frame",
}
_UNITS = {"psnr": "dB", "lmd": "px at 512", "fps": "frames/s", "lag": "frames"}


def write_card(folder: Path, *, repo_id: str | None = None) -> Path:
    """Write ``README.md`` of the avatar in ``folder`` from its own files; returns its path.

    Args:
        folder: An avatar folder with ``avatar.json``; ``training.json`` adds the protocol of the figures.
        repo_id: Where it will be published, for the commands shown; a placeholder by default.

    Raises:
        CheckpointError: The avatar is missing or damaged, or the card cannot be written.
    """
    from talker.card import read_card

    card = read_card(folder)
    training = _training(folder)
    text = "\n".join(
        [_front_matter(folder), *_body(folder, card, training, repo_id or "owner/name"), _GENERATED, ""]
    )
    write_atomic(folder / _README, text.encode())
    return folder / _README


def keeps_own_card(folder: Path) -> bool:
    """Whether ``README.md`` was edited by a person and its front matter names the library and the tag."""
    import yaml

    path = folder / _README
    try:
        if not path.is_file() or path.stat().st_size > MAX_CARD_BYTES:
            return False
        text = path.read_text("utf-8")
        if _GENERATED in text:
            return False
        _, front, _ = text.split("---\n", 2)
        data = yaml.safe_load(front)
    except (OSError, ValueError, yaml.YAMLError):
        return False
    tags = data.get("tags") if isinstance(data, dict) else None
    return isinstance(tags, list) and TAG in tags and data.get("library_name") == LIBRARY


def _front_matter(folder: Path) -> str:
    lines = [
        "---",
        f"library_name: {LIBRARY}",
        "license: other",
        "license_name: likeness-with-consent",
        "tags:",
    ]
    lines += [f"- {tag}" for tag in TAGS]
    lines += ["inference: false"]
    media = next((name for name in _MEDIA if (folder / name).is_file()), None)
    if media:
        lines += ["widget:", '- text: "Preview"', "  output:", f"    url: {media}"]
    return "\n".join([*lines, "---", ""])


def _body(folder: Path, card: AvatarCard, training: dict[str, Any], repo_id: str) -> list[str]:
    lines = [
        f"# {plain(card.name)}",
        "",
        "A talking avatar made with talker: 3D Gaussians of one person, driven by speech. It renders on an "
        "ordinary computer, without a GPU.",
        "",
    ]
    if any((folder / name).is_file() for name in _MEDIA):
        lines += ["<Gallery />", ""]
    lines += [
        "## Use",
        "",
        "```",
        f"python -m talker pull {repo_id} --out avatar",
        'python -m talker drive avatar --text "Hello." --out hello.mp4',
        "```",
        "",
        "## Facts",
        "",
        "| | |",
        "|---|---|",
        f"| Size | {card.size} x {card.size} pixels, {card.n_gaussians:,} Gaussians |",
        f"| Preset | {plain(card.preset)} |",
        f"| Sound features | {plain(card.audio_encoder)} |",
        f"| Created | {plain(card.created)} |",
        *_origin(training),
        f"| Format | {card.version}, talker {plain(str(training.get('talker', __version__)))} |",
        "",
        "## Figures",
        "",
        *_figures(card.metrics, training),
        "",
        "## Consent",
        "",
        f"> {plain(card.consent.get('statement', ''))}",
        "",
        f"Declared by {plain(card.consent.get('who', ''))} on {plain(card.consent.get('when', ''))} "
        f"(text version {plain(card.consent.get('version', ''))}). It is a declaration; nobody verified it.",
        "",
        "## Licence and intended use",
        "",
        "The avatar shows a real person's likeness. It may be used only within the consent above, never to "
        "deceive, impersonate or harm, and its videos must keep their AI-generated marks. If it shows you "
        "without your consent, use *Report this model* in the menu of this page.",
        "",
    ]
    return lines


def _origin(training: dict[str, Any]) -> list[str]:
    """A row about the avatar whose networks this one started from, if there was one."""
    origin = training.get("init_from")
    if not isinstance(origin, dict):
        return []
    return [
        f"| Started from | {plain(origin.get('name', ''))} ({plain(str(origin.get('sha256', ''))[:12])}) |"
    ]


def _figures(metrics: dict[str, float], training: dict[str, Any]) -> list[str]:
    if not metrics:
        return ["Not measured: no part of the clip was held out."]
    protocol = str(training.get("protocol", "B"))
    meaning = _PROTOCOLS.get(protocol)
    where = f"Protocol {protocol} ({meaning})" if meaning else "Protocol unknown"
    rows = []
    for name, value in metrics.items():
        if not isinstance(value, int | float):
            continue
        unit = next((unit for key, unit in _UNITS.items() if key in name.lower()), "")
        rows.append(f"| {plain(name)} | {value:.4g} | {unit} |")
    return [
        f"{where}, on the last 1/11 of the clip, never seen in training.",
        "",
        "| | | |",
        "|---|---|---|",
        *rows,
    ]


def _training(folder: Path) -> dict[str, Any]:
    """``training.json``, or nothing: the card must not depend on a file for people."""
    from talker.safe_files import read_json

    try:
        return read_json(folder / "training.json", max_bytes=1 << 20)
    except CheckpointError:
        return {}


def plain(text: object) -> str:
    """A stranger's words as one line of inert Markdown: no HTML, no links, no table cells, no control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)[:2000]).split())
    # Numeric entities are inert in Markdown and in YAML, and show as the character itself.
    return "".join(f"&#{ord(c)};" if c in "<>&|`*_[]()#!\\~\"'{}$" else c for c in line)
