"""A preset of other length is the same preset."""

from __future__ import annotations

from dataclasses import replace

import pytest

from talker.train.presets import PRESETS, get_preset, scaled


@pytest.mark.parametrize("factor", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("name", list(PRESETS))
def test_scaling_changes_steps_and_nothing_else(name: str, factor: float) -> None:
    preset = get_preset(name)
    other = scaled(preset, factor)
    for old, new in zip(preset.stages, other.stages, strict=True):
        assert new.steps == round(factor * old.steps)
        assert replace(new, steps=old.steps, density=old.density) == old
        before, after = old.density, new.density
        assert after.every / before.every == pytest.approx(factor, rel=0.05)
        assert (after.start, after.stop) == (round(factor * before.start), round(factor * before.stop))
        assert replace(after, every=before.every, start=before.start, stop=before.stop) == before
    assert replace(other, stages=preset.stages) == preset


def test_even_the_shortest_has_steps() -> None:
    short = scaled(get_preset("standard"), 0.001)
    assert all(stage.steps >= 2 and stage.density.every >= 1 for stage in short.stages)


def test_the_second_papers_mouth_follows_the_lips() -> None:
    mouth = get_preset("pgstalker").model.mouth
    assert mouth is not None and mouth.follows_lips
