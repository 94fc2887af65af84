"""Layers: each number worked out by hand."""

import pytest
import torch

from distillguard.defenses import (
    JPEG,
    BitDepth,
    GaussianNoise,
    Layer,
    MedianFilter,
    RandomResizePad,
    TotalVariation,
)
from distillguard.defenses._total_variation import _divergence, _gradient

# Layers.


class Doubled(Layer):
    def transform(self, inputs):
        return 2 * inputs


def test_a_layer_clips_to_its_bounds_and_its_gradient_does_not_end_there():
    layer = Doubled(bounds=(-1, 1))
    inputs = torch.tensor([[0.25, 0.75, -0.75]], requires_grad=True)
    found = layer(inputs)
    assert found.tolist() == [[0.5, 1, -1]]
    (gradient,) = torch.autograd.grad(found.sum(), inputs)
    assert gradient.tolist() == [[2, 2, 2]]
    layer.gradient = "identity"
    (gradient,) = torch.autograd.grad(layer(inputs).sum(), inputs)
    assert gradient.tolist() == [[1, 1, 1]]
    assert not layer(inputs.detach()).requires_grad
    with torch.no_grad():
        assert not layer(inputs).requires_grad
    assert layer(inputs[:0]).shape == (0, 3)
    assert layer(inputs.double().detach()).dtype == torch.float64
    for bounds in ((1.0, 1.0), (1.0, 0.0)):
        with pytest.raises(ValueError, match="the lower one first"):
            Doubled(bounds=bounds)
    with pytest.raises(NotImplementedError, match="Layer must implement transform"):
        Layer()(inputs)


@pytest.mark.parametrize("seed", [None, 3])
def test_a_seed_draws_one_thing_for_all_examples_and_none_another_for_each(seed):
    noise = GaussianNoise(0.125, seed=seed, bounds=(-9.0, 9.0))
    inputs = torch.zeros(2000, 6)
    drawn = noise(inputs)
    assert drawn[0].equal(drawn[1]) is (seed is not None)
    assert noise(inputs).equal(drawn) is (seed is not None)
    assert noise.random is (seed is None)
    if seed is None:
        assert drawn.std().item() == pytest.approx(0.125, rel=0.05)
        assert drawn.mean().abs() < 0.01
        uniform = noise.draw(inputs, 2)
        assert uniform.shape == (2000, 2)
        assert 0 <= uniform.min() < uniform.max() < 1
    else:
        assert not GaussianNoise(0.125, seed=4, bounds=(-9.0, 9.0))(inputs).equal(drawn)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        GaussianNoise(seed=-1)
    GaussianNoise(seed=0)


@pytest.mark.parametrize(
    ("bits", "bounds", "values", "levels"),
    [
        (1, (0.0, 1.0), [0.4, 0.6], [0, 1]),
        (2, (0.0, 3.0), [0.4, 1.6, 2.9], [0, 2, 3]),
        (2, (-3.0, 3.0), [-2.1, 0.9, 1.9], [-3, 1, 1]),
    ],
)
def test_values_are_rounded_to_two_to_the_bits_levels_between_the_bounds(
    bits, bounds, values, levels
):
    found = BitDepth(bits, bounds=bounds)(torch.tensor([values]))
    torch.testing.assert_close(found, torch.tensor([levels], dtype=torch.float32))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [[0, 1, 2], [3, 4, 5], [6, 7, 9]]),
        # The lower of the two middle values of four, with the pixel above and to the left.
        (2, [[0, 0, 1], [0, 1, 2], [3, 4, 5]]),
        (3, [[1, 2, 2], [3, 4, 5], [6, 6, 7]]),
    ],
)
def test_a_median_is_that_of_the_window_with_the_edge_repeated(size, expected):
    image = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 9]]).float()[None, None]
    found = MedianFilter(size, bounds=(0.0, 9.0))(image)
    assert found[0, 0].tolist() == expected
    with pytest.raises(ValueError, match=r"images of shape \(n, channels, height, width\)"):
        MedianFilter()(image[0])


def test_jpeg_keeps_channels_and_bounds_and_refuses_others():
    flat = torch.full((2, 3, 8, 8), 102 / 255)
    torch.testing.assert_close(JPEG(90)(flat), flat, atol=2 / 255, rtol=0)
    wide = JPEG(100, bounds=(-1.0, 3.0))
    grey = torch.rand(1, 1, 8, 8).mul(4).sub(1)
    torch.testing.assert_close(wide(grey), grey, atol=4 * 3 / 255, rtol=0)
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        JPEG()(torch.zeros(1, 2, 8, 8))
    for quality in (0, 101):
        with pytest.raises(ValueError, match="quality must be at"):
            JPEG(quality)
    assert JPEG(1).quality == 1


def test_total_variation_follows_chambolles_iteration():
    image = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)[None, None]
    across, down = torch.zeros_like(image), torch.zeros_like(image)
    for _ in range(3):
        rest = _divergence(across, down) - image / 0.5
        slope = _gradient(rest)
        by_hand = torch.zeros_like(image), torch.zeros_like(image)
        by_hand[0][..., 0] = rest[..., 1] - rest[..., 0]
        by_hand[1][..., 0, :] = rest[..., 1, :] - rest[..., 0, :]
        assert slope[0].equal(by_hand[0])
        assert slope[1].equal(by_hand[1])
        length = (slope[0] ** 2 + slope[1] ** 2).sqrt()
        across = (across + slope[0] / 8) / (1 + length / 8)
        down = (down + slope[1] / 8) / (1 + length / 8)
    found = TotalVariation(0.5, steps=3)(image)
    torch.testing.assert_close(found, image - 0.5 * _divergence(across, down), atol=1e-5, rtol=0)
    # The divergence is minus the adjoint of the gradient.
    p, q, u = (torch.rand(1, 1, 4, 5, dtype=torch.float64) for _ in range(3))
    p[..., -1], q[..., -1, :] = 0, 0
    one, other = _gradient(u)
    assert (one * p + other * q).sum().item() == pytest.approx(
        -(u * _divergence(p, q)).sum().item()
    )


def test_an_image_is_shrunk_by_the_drawn_share_and_framed_in_the_lowest_value(monkeypatch):
    layer = RandomResizePad(0.5, bounds=(-1.0, 1.0))
    drawn = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.3, 0.7], [0.0, 0.5, 0.5]])
    monkeypatch.setattr(layer, "draw", lambda inputs, *shape: drawn[: len(inputs)])
    found = layer(torch.ones(4, 1, 8, 8))
    frame = torch.full((8, 8), -1.0)
    for place, (rows, columns) in enumerate([((0, 4), (0, 4)), ((4, 8), (4, 8)), ((0, 8), (0, 8))]):
        expected = frame.clone()
        expected[slice(*rows), slice(*columns)] = 1
        inner = found[place, 0, rows[0] + 1 : rows[1] - 1, columns[0] + 1 : columns[1] - 1]
        torch.testing.assert_close(inner, torch.ones_like(inner))
        mean = expected.mean().item()
        assert found[place].mean().item() == pytest.approx(mean, abs=0.15)
    assert found[3, 0, 3:5, 3:5].eq(1).all()
    assert found[3, 0, [0, 0, 7, 7], [0, 7, 0, 7]].eq(-1).all()
    for smallest in (0.0, 1.01):
        with pytest.raises(ValueError, match="smallest must be"):
            RandomResizePad(smallest)
    RandomResizePad(1.0)
