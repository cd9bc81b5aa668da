"""Sentences that come with their figures already in them, such as those of errors, and still have to be translated.

What raises an error is below the pages and knows nothing of languages. So a finished sentence is matched with
the patterns of ``es_sentences.toml``: ``"{name} has {size} MB."`` finds a name and a size in ``"a.mp4 has 12 MB."``,
and the translation gets both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

PLACE = re.compile(r"\{(\w+)\}")
TRANSLATED = frozenset({"reason", "what", "when", "kind", "state"})
"""Places that hold words of ours; the others hold names and figures, which nobody translates."""
FIGURES = frozenset(
    {
        "n",
        "s",
        "i",
        "all",
        "bad",
        "size",
        "seconds",
        "start",
        "end",
        "low",
        "high",
        "share",
        "width",
        "height",
    }
    | {"tall", "side", "rate", "head", "intensity", "found"}
)
"""Places that hold one word: a number, or the ending of a plural."""


class Sentences:
    """Patterns and their translations.

    Args:
        translations: Text = text, both with the same ``{places}``.

    Raises:
        ValueError: A place stands twice in one pattern.
    """

    def __init__(self, translations: Mapping[str, str]) -> None:
        # Of two that fit, the one that says more by itself: "{a} has {b} MB." before "{a} {b}.".
        exact_first = sorted(translations.items(), key=lambda pair: -len(PLACE.sub("", pair[0])))
        self._patterns = [(_compiled(pattern), meant) for pattern, meant in exact_first]

    def translate(self, sentence: str, word: Callable[[str], str]) -> str | None:
        """The sentence in the other language; None if no pattern fits.

        Args:
            sentence: With its figures.
            word: Translates what stands in a place of ``TRANSLATED``.
        """
        for pattern, meant in self._patterns:
            found = pattern.fullmatch(sentence)
            if found is not None:
                values = found.groupdict()
                return meant.format(**{k: word(v) if k in TRANSLATED else v for k, v in values.items()})
        return None


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = PLACE.split(pattern)
    if len(set(parts[1::2])) != len(parts) // 2:
        raise ValueError(f"a place stands twice in {pattern!r}")
    return re.compile("".join(_place(p) if i % 2 else re.escape(p) for i, p in enumerate(parts)), re.DOTALL)


def _place(name: str) -> str:
    return f"(?P<{name}>{r'[^ ]*?' if name in FIGURES else '.*?'})"
