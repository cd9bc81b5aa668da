"""The declaration that the person shown agrees. Data the server requires, not a tick in the browser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from talker.errors import ConsentError

if TYPE_CHECKING:
    from talker.types import Consent

CONSENT_VERSION = "1"
"""Version of the text; raise it with every change, so that old declarations are recognised."""

CONSENT_TEXT = (
    "I am the person shown in this video, or I have that person's explicit permission to make a talking avatar "
    "of them. The person is an adult. I will not use the avatar to deceive, to impersonate, or to harm anybody, "
    "and I know that its videos are marked as AI-generated."
)

MAX_WHO = 120
MAX_STATEMENT = 2000
_ADVICE = "Read the declaration, agree to it and give the name of the person who agrees."


def new_consent(who: str, statement: str = CONSENT_TEXT) -> Consent:
    """A declaration made now.

    Args:
        who: Name of the person who declares; at most ``MAX_WHO`` characters.
        statement: What they declare; the current text, or their own words.

    Raises:
        ConsentError: ``consent.who`` or ``consent.statement`` when one of them is empty or too long.
    """
    from talker.types import Consent

    now = datetime.now(UTC).isoformat(timespec="seconds")
    consent = Consent(_clean(statement), _clean(who), now, CONSENT_VERSION)
    require(consent)
    return consent


def require(consent: Consent | None) -> None:
    """Return only if ``consent`` is a complete declaration of the current version.

    Raises:
        ConsentError: ``consent.missing``, ``.version``, ``.who``, ``.statement`` or ``.when``.
    """
    if consent is None:
        raise ConsentError("consent.missing", "The declaration of consent is missing.", todo=_ADVICE)
    if consent.version != CONSENT_VERSION:
        raise ConsentError(
            "consent.version",
            "The declaration of consent was made for another version of its text.",
            expected=f"Version {CONSENT_VERSION}.",
            todo=_ADVICE,
        )
    for code, what, text, limit in (
        ("consent.who", "the name of the person who agrees", consent.who, MAX_WHO),
        ("consent.statement", "the text", consent.statement, MAX_STATEMENT),
    ):
        if not _clean(text):
            raise ConsentError(code, f"The declaration of consent lacks {what}.", todo=_ADVICE)
        if len(text) > limit:
            raise ConsentError(
                code,
                f"In the declaration of consent, {what} has {len(text)} characters.",
                expected=f"At most {limit}.",
            )
    if not _is_past(consent.when):
        raise ConsentError("consent.when", "The declaration of consent has no valid date.", todo=_ADVICE)


def _is_past(when: str) -> bool:
    try:
        moment = datetime.fromisoformat(when)
    except ValueError:
        return False
    # An hour of grace: the declaration may come from another machine with its own clock.
    return moment.tzinfo is not None and moment <= datetime.now(UTC) + timedelta(hours=1)


def _clean(text: str) -> str:
    """One line without control or invisible characters: the text is shown on pages and cards."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
