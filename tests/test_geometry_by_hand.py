"""Balls, boxes and steps: numbers worked out by hand, also at the edges of what is asked."""

import math

import numpy as np
import pytest
import torch

from distillguard._boxes import box, boxes, check_bounds, checked_mask, digits, hold_within
from distillguard._geometry import (
    ascent_step,
    ball,
    block_signs,
    check_reach,
    feasible_gradient,
    inside,
    lp_norm,
    project_to_budget,
    random_point,
)
from distillguard._l1 import adapted_spread, project, steepest_step

DOUBLE = torch.float64


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_what_has_no_coordinates_has_no_length(norm):
    assert lp_norm(torch.zeros(2, 0), norm).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("low", "high", "at_low", "at_high"),
    [
        (0.0, 1.0, 1e-6, 1 - 1e-6),
        (-1.0, 3.0, -1 + 4e-6, 3 - 4e-6),
        # A unit of float32's precision, where that is more.
        (1024.0, 1025.0, 1024 + 2**-13, 1025 - 1025 * 2**-23),
        (-1025.0, -1024.0, -1025 + 1025 * 2**-23, -1024 - 2**-13),
        # And no number that float32 has no full precision for.
        (0.0, 1e-33, 2.0**-126, 1e-33 - 2.0**-126),
        # Bounds that leave no room between them keep what lies on them.
        (0.5, 0.5, 0.5, 0.5),
    ],
)
def test_what_lies_on_a_bound_moves_a_hair_inwards(low, high, at_low, at_high):
    points = torch.tensor([[low, high, (low + high) / 2]], dtype=DOUBLE)
    found = inside(points, low, high, torch.float32)
    expected = torch.tensor([[at_low, at_high, (low + high) / 2]], dtype=DOUBLE)
    torch.testing.assert_close(found, expected, rtol=1e-15, atol=0)


def test_a_slope_out_of_the_bounds_is_none():
    points = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5, 0.5, -0.1, 1.1])[None]
    slope = 0.5 * torch.tensor([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0])[None]
    found = feasible_gradient(slope, points, torch.zeros(1, 8), torch.ones(1, 8))
    assert found.tolist() == [[0, 0.5, -0.5, 0, -0.5, 0.5, 0, 0]]


@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((1, 8, 8), [(1, 4, 4), (1, 2, 2)]),
        ((3, 8, 4), [(3, 4, 4), (1, 2, 1)]),
        ((2, 2, 3), [(2, 2, 3), (1, 1, 1)]),
        ((20,), [(20,), (1,)]),
        ((6, 7), [(6, 7), (1, 1)]),
        ((2, 3, 8, 8), [(2, 3, 4, 4), (1, 1, 2, 2)]),
    ],
)
def test_a_start_has_one_sign_for_each_sixteenth_of_a_channel_or_each_number(shape, groups):
    coarse, size = groups
    keys = torch.arange(400)
    signs = block_signs(torch.zeros(400, *shape), keys, 0)
    assert signs.shape == (400, *shape)
    assert signs.abs().eq(1).all()
    first = signs
    for axis, (few, side) in enumerate(zip(coarse, size, strict=True), start=1):
        blocks = first.unflatten(axis, (few, side))
        assert blocks.eq(blocks.select(axis + 1, 0).unsqueeze(axis + 1)).all()
        first = blocks.select(axis + 1, 0)
    # Every block by itself: of 400, about half agree with any other.
    flat = first.flatten(1)
    alike = (flat.T @ flat / 400).fill_diagonal_(0)
    assert alike.abs().max() < 0.25
    assert flat.mean(0).abs().max() < 0.25
    assert not block_signs(torch.zeros(400, *shape), keys, 1).equal(signs)


def test_a_start_of_uneven_blocks_follows_the_share_of_the_side():
    signs = block_signs(torch.zeros(200, 1, 6, 6), torch.arange(200), 0)
    same = [
        signs[..., a, :].equal(signs[..., a + 1, :]) and signs[..., a].equal(signs[..., a + 1])
        for a in range(5)
    ]
    # Rows 0 to 5 lie in blocks 0, 0, 1, 2, 2, 3.
    assert same == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("norm", "bounds", "reach"),
    [
        ("linf", (0.0, 1.0), 1.0),
        ("linf", (-1.0, 2.0), 3.0),
        ("l2", (0.0, 1.0), math.sqrt(12)),
        ("l1", (0.0, 1.0), 12.0),
        ("l0", (0.0, 1.0), 12.0),
        ("l0_pixels", (0.0, 1.0), 4.0),
    ],
)
def test_a_radius_is_at_most_the_distance_of_opposite_corners(norm, bounds, reach):
    like = torch.zeros(1, 3, 2, 2)
    low, high = (torch.tensor(bound) for bound in bounds)
    check_reach(reach, norm, low, high, like)
    check_reach(reach * (1 + 5e-7), norm, low, high, like)
    words = {"l0": "counts the values", "l0_pixels": "counts the pixels"}.get(norm, "in the units")
    with pytest.raises(ValueError, match=rf"at most {reach:.6g}, .*{words}"):
        check_reach(reach * 1.00001, norm, low, high, like)
    check_reach(99.0, norm, low, low, like)  # where nothing can move nothing is meant
    check_reach(99.0, norm, low, high, like[:0])


@pytest.mark.parametrize(
    ("norm", "mean"), [("linf", 0.5), ("l2", 4 / (3 * math.pi)), ("l1", 1 / 3)]
)
def test_a_point_of_a_ball_in_two_free_coordinates_is_uniform_there(norm, mean):
    n = 4000
    free = torch.tensor([False, True, False, True, False])
    like = torch.zeros(n, 5, dtype=DOUBLE)
    points = ball(norm).sample(like, torch.arange(n), 0, free)
    assert not points[:, ~free].any()
    moved = points[:, free]
    # Of the unit square, disc or diamond: the mean size of a coordinate.
    assert moved.abs().mean(0).tolist() == pytest.approx([mean] * 2, rel=0.05)
    assert moved.mean(0).abs().max() < 0.05
    assert lp_norm(moved, norm).max() <= 1 + 1e-12
    assert lp_norm(moved, norm).square().mean().item() == pytest.approx(0.5, rel=0.05)
    inputs, low, high = like + 0.5, like.clone(), like + 1
    low[:, ~free] = high[:, ~free] = 0.5
    drawn = random_point(inputs, torch.arange(n), 0, norm, 0.25, low, high)
    torch.testing.assert_close(drawn - inputs, 0.25 * points)


def test_steps_and_projections_of_each_norm_by_hand():
    gradient = torch.tensor([[3.0, -4.0, 0.0]], dtype=DOUBLE)
    points = inputs = torch.zeros(1, 3, dtype=DOUBLE)
    length = torch.tensor([0.5], dtype=DOUBLE)
    for norm, step in (
        ("linf", [0.5, -0.5, 0.0]),
        ("l2", [0.3, -0.4, 0.0]),
        ("l1", [0.0, -0.5, 0.0]),
    ):
        found = ascent_step(points, gradient, inputs, norm, length, -1.0, 1.0)
        assert found[0].tolist() == pytest.approx(step)
    far = torch.tensor([[3.0, -4.0, 0.0]], dtype=DOUBLE)
    for norm, radius, low, expected in (
        ("linf", 3.5, -9.0, [3, -3.5, 0]),
        ("linf", 3.5, -2.0, [3, -2, 0]),
        ("l2", 2.5, -9.0, [1.5, -2, 0]),
        ("l2", 2.5, -1.0, [1.5, -1, 0]),
        ("l1", 3.0, -9.0, [1, -2, 0]),
        ("l1", 3.0, -1.0, [2, -1, 0]),
        ("l0", 1.0, -9.0, [0, -4, 0]),
    ):
        found = project_to_budget(far, inputs, norm, radius, low, 9.0)
        assert found[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("d", "moved", "spread"),
    [(1000, 90, 30), (1000, 600, 50), (1000, 2, 1), (1000, 0, 1), (4, 4, 1), (40, 40, 2)],
)
def test_a_step_is_spread_over_a_third_of_what_moved_and_a_twentieth_at_most(d, moved, spread):
    delta = torch.zeros(1, d)
    delta[0, :moved] = -1
    assert adapted_spread(delta).tolist() == [spread]


def test_a_step_in_l1_goes_where_there_is_room_and_a_projection_gives_all_the_same_back():
    low, high = torch.tensor([[-1.0] * 4]), torch.tensor([[1.0] * 4])
    points = torch.tensor([[0.0, 0.75, 0.0, 0.0]])
    gradient = torch.tensor([[1.0, 3.0, -2.0, 0.0]])
    # The steepest has room for a quarter, the next takes the rest, as much as its part allows.
    found = steepest_step(points, gradient, 1.0, low, high)
    assert found.tolist() == [[0, 0.25, -0.75, 0]]
    found = steepest_step(points, gradient, 1.0, low, high, spread=2.0)
    assert found.tolist() == [[0.25, 0.25, -0.5, 0]]
    assert project(points[:0], points[:0], 1.0, low, high).shape == (0, 4)
    still = project(points, points, 0.0, low, high)
    assert still.equal(points)
    out = torch.tensor([[2.0, -2.0, 2.0, 0.0]])
    assert project(out, 0 * out, 1.5, low, high).tolist() == [[0.5, -0.5, 0.5, 0]]
    assert project(out, 0 * out, 9.0, low, high).tolist() == [[1, -1, 1, 0]]


# Boxes.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("units", [-6, -4, 4, 6])
def test_values_exceed_a_bound_by_four_units_of_precision_and_no_more(dtype, units):
    eps = torch.finfo(dtype).eps
    value = torch.tensor([[0.5, 2 * (1 + abs(units) * eps)]], dtype=dtype).copysign(
        torch.tensor(float(units), dtype=dtype)
    )
    bounds = (-2.0, 2.0)
    if abs(units) == 4:
        assert hold_within("X", value, bounds)[0, 1].item() == math.copysign(2, units)
    else:
        with pytest.raises(ValueError, match="X must be within bounds"):
            hold_within("X", value, bounds)


def test_a_coordinate_that_the_mask_excludes_has_its_own_value_for_a_box():
    inputs = torch.tensor([[0.25, 0.5], [0.75, 1.0]])
    low, high = boxes(inputs, (0.0, np.ones(1)), torch.tensor([True, False]))
    assert low.tolist() == [[0, 0.5], [0, 1]]
    assert high.tolist() == [[1, 0.5], [1, 1]]
    assert hold_within("X", inputs[:0], (0.0, 1.0)).shape == (0, 2)
    for bounds in ((0.0, torch.zeros(1)), (torch.zeros(1), 1.0), (np.float32(0), 1)):
        check_bounds(bounds)
    for bounds in ((1.0, 1.0), (0.0, np.inf), (-np.inf, 0.0), (torch.tensor(torch.nan), 1.0)):
        with pytest.raises(ValueError, match="bounds must be finite"):
            check_bounds(bounds)


@pytest.mark.parametrize(
    ("values", "bounds", "hint"),
    [
        ([0.0, 255.0], (0.0, 1.0), "; for images stored as 0 to 255 write X / 255"),
        ([0.0, 1.5], (0.0, 1.0), "; for images stored as 0 to 255 write X / 255"),
        ([0.0, 256.0], (0.0, 1.0), ""),
        ([0.0, 255.0], (0.0, 2.0), ""),
        ([-0.5, 0.5], (0.0, 1.0), "; if they are normalised by mean and standard deviation"),
        ([-0.5, 255.0], (0.0, 1.0), "; if they are normalised by mean and standard deviation"),
        ([-2.5, 0.5], (-1.0, 1.0), ""),
    ],
)
def test_what_leaves_the_bounds_is_told_what_probably_happened(values, bounds, hint):
    with pytest.raises(ValueError, match="X must be within bounds") as caught:
        hold_within("X", torch.tensor([values]), bounds)
    shown = f"got values in [{values[0]:g}, {values[1]:g}]"
    message = str(caught.value)
    assert shown in message
    assert message.endswith(shown) if not hint else message.split(shown)[1].startswith(hint)


def test_bounds_of_each_coordinate_name_the_place_that_leaves_them():
    high = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    values = torch.full((2, 2, 2), 0.5)
    assert hold_within("X", values, (0.0, high)) is values
    values[1, 0, 1] = 2.5
    with pytest.raises(ValueError, match=r"got 2\.5 at \[1, 0, 1\], where bounds are \[0, 2\]"):
        hold_within("X", values, (0.0, high))
    low, _ = box((0.0, high[None]), values)
    assert low.shape == (2, 2)
    with pytest.raises(ValueError, match=r"got low above high at \[0, 1\]"):
        box((torch.tensor([[0.0, 2.5], [0.0, 0.0]]), high), values)
    with pytest.raises(ValueError, match=r"one per channel reshape them to \(3, 1, 1\)"):
        box((0.0, torch.ones(3)), torch.zeros(2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"got shape \(2,\)$"):
        box((0.0, torch.ones(2)), torch.zeros(2, 3, 4, 5))


def test_numbers_are_shown_as_short_as_their_dtype_tells_them_apart():
    assert digits(torch.tensor(0.1)) == "0.1"
    assert digits(torch.tensor(0.1, dtype=DOUBLE)) == "0.1"
    assert digits(torch.tensor(0.1).double()) == "0.10000000149011612"
    assert digits(torch.tensor(3.0)) == "3"


@pytest.mark.parametrize(
    ("mask", "found"),
    [((2, 3), (1, 2, 3)), ((3,), (1, 1, 3)), ((5, 2, 3), (5, 2, 3)), ((1, 2, 1), (1, 2, 1)),
     ((2, 2, 3), None), ((2, 4), None), ((1, 5, 2, 3), None)],
)  # fmt: skip
def test_a_mask_has_the_axes_of_one_example_or_of_all(mask, found):
    given = torch.ones(mask, dtype=torch.bool)
    if found is None:
        with pytest.raises(ValueError, match="mask must have the shape of one input"):
            checked_mask(given, (5, 2, 3))
    else:
        assert checked_mask(given, (5, 2, 3)).shape == found
