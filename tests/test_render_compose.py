"""Layers on top of each other."""

from __future__ import annotations

import torch

from talker.render.compose import compose, compose_uint8, over, to_uint8
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


def random_layer(generator: torch.Generator, dtype: torch.dtype = torch.float32) -> RenderOutput:
    rgb, alpha = torch.rand(9, 14, 3, generator=generator), torch.rand(9, 14, 1, generator=generator)
    nothing = torch.zeros(0)
    return RenderOutput(rgb.to(dtype).requires_grad_(), alpha.to(dtype).requires_grad_(), nothing, nothing)


def test_one_pass_is_the_definition_and_has_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    front, plate = random_layer(generator), torch.rand(9, 14, 3, generator=generator)
    upstream = torch.rand(9, 14, 3, generator=generator)
    found = []
    for picture in (over(front, plate), front.rgb + (1 - front.alpha) * plate):
        slopes = torch.autograd.grad((picture * upstream).sum(), (front.rgb, front.alpha))
        found.append((picture.detach(), *slopes))
    for mine, true in zip(*found, strict=True):
        torch.testing.assert_close(mine, true)


def test_bytes_are_those_of_the_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    face, mouth, plate = (random_layer(generator) for _ in range(3))
    for behind in (None, mouth):
        for dtype in (torch.float32, torch.float64):
            layers = [
                None
                if part is None
                else RenderOutput(part.rgb.to(dtype), part.alpha.to(dtype), *[torch.zeros(0)] * 2)
                for part in (face, behind)
            ]
            back = plate.rgb.detach().to(dtype)
            assert layers[0] is not None
            expected = to_uint8(compose(layers[0], layers[1], back)).int()
            bytes_ = compose_uint8(layers[0], layers[1], back)
            assert bytes_.dtype == torch.uint8 and (bytes_.int() - expected).abs().max() <= 1
