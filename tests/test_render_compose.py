"""Layers on top of each other."""

from __future__ import annotations

import torch

from talker.render.compose import compose, over
from talker.types import RenderOutput


def layer(rgb: tuple[float, float, float], alpha: float) -> RenderOutput:
    """A plain layer of 2 x 3 pixels; ``rgb`` already multiplied by ``alpha``, as renderers give it."""
    nothing = torch.zeros(0)
    return RenderOutput(torch.tensor(rgb).expand(2, 3, 3), torch.full((2, 3, 1), alpha), nothing, nothing)


PLATE = torch.tensor([0.2, 0.4, 0.8]).expand(2, 3, 3)


def test_an_opaque_layer_hides_and_a_clear_one_shows_what_is_behind() -> None:
    assert torch.equal(over(layer((0.5, 0.1, 0.0), 1.0), PLATE)[0, 0], torch.tensor([0.5, 0.1, 0.0]))
    assert torch.equal(over(layer((0.0, 0.0, 0.0), 0.0), PLATE), PLATE)


def test_half_a_layer_is_half_of_each() -> None:
    mixed = over(layer((0.5, 0.0, 0.0), 0.5), PLATE)
    torch.testing.assert_close(mixed[1, 2], torch.tensor([0.6, 0.2, 0.4]))


def test_the_face_covers_the_mouth_and_the_mouth_the_plate() -> None:
    face, mouth = layer((0.5, 0.0, 0.0), 0.5), layer((0.0, 0.5, 0.0), 0.5)
    picture = compose(face, mouth, PLATE)
    torch.testing.assert_close(picture[0, 0], torch.tensor([0.5 + 0.05, 0.25 + 0.1, 0.2]))
    assert torch.equal(compose(face, None, PLATE), over(face, PLATE))


def test_closed_lips_hide_the_mouth() -> None:
    lips = layer((0.7, 0.3, 0.3), 1.0)
    assert torch.equal(compose(lips, layer((1.0, 1.0, 1.0), 1.0), PLATE), compose(lips, None, PLATE))
