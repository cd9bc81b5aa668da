"""The table of features names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "docs" / "FEATURES.md"


def test_every_feature_has_tests_that_exist() -> None:
    rows = re.findall(r"^\| (?!feature|---)(.+?) \| (.+) \|$", TABLE.read_text(), re.MULTILINE)
    assert len(rows) > 30
    for feature, row in rows:
        named = re.findall(r"`(test_\w+)::(test_\w+)`", row)
        assert named, f"{feature}: no test"
        for module, test in named:
            assert f"def {test}(" in (TESTS / f"{module}.py").read_text(), f"{feature}: {module}::{test}"
