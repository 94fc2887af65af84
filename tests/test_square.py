"""What the Square attack promises beyond the contract of every attack."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import examples_of
from distillguard._geometry import lp_norm
from distillguard._random import example_keys, uniform
from distillguard.attacks import square
from distillguard.attacks._checks import ModelFacts
from distillguard.attacks._square import RandomSearch, moved_norm
from distillguard.attacks._windows import Window, bumps, draw_window, mask, sides
from distillguard.functional import margin_loss

EPSILON = {"linf": 0.1, "l2": 1.0, "l1": 6.0}
ORDER = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


class Recording(nn.Module):
    """A robust linear model that keeps what it was asked and refuses to be differentiated."""

    facts = ModelFacts()

    def __init__(self, shape: tuple[int, ...], offset: float = 1e6):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w = torch.randn(*shape, generator=generator, dtype=torch.float64)
        self.offset = offset
        self.points: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        assert not inputs.requires_grad
        self.points.append(inputs.clone())
        value = (inputs * self.w).flatten(1).sum(dim=1)
        return torch.stack([value * 0 + self.offset, value], dim=1)

    def history(self, example: int = 0) -> tuple[Tensor, Tensor]:
        points = torch.stack([batch[example] for batch in self.points])
        return points, (points * self.w).flatten(1).sum(dim=1)


def images(n: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.25 + 0.5 * torch.rand(n, *shape, generator=generator, dtype=torch.float64)


def radius(norm: str, inputs: torch.Tensor) -> float:
    """A budget that is no larger than the bounds of a few pixels."""
    return min(EPSILON[norm], torch.ones_like(inputs[:1]).norm(p=ORDER[norm]).item())


def searched(norm: str, shape=(2, 12, 12), queries: int = 60, n: int = 1, **more):
    model, inputs = Recording(shape), images(n, shape)
    labels = torch.zeros(n, dtype=torch.long)
    how = {"epsilon": radius(norm, inputs), "norm": norm, "queries": queries, "random_state": 0}
    adversarial = square(model, inputs, labels, **{**how, **more})
    return model, inputs, adversarial


# The search.


def test_starts_in_linf_from_vertical_stripes():
    model, inputs, _ = searched("linf")
    delta = model.history()[0][0] - inputs[0]
    torch.testing.assert_close(delta.abs(), torch.full_like(delta, 0.1))
    torch.testing.assert_close(delta, delta[:, :1].expand_as(delta))
    signs = delta[:, 0].sign()
    assert signs.unique().tolist() == [-1, 1]
    assert not torch.equal(signs[0], signs[1])


def test_starts_in_l2_from_tiles_that_use_the_whole_budget():
    model, inputs, _ = searched("l2", shape=(1, 28, 28), epsilon=2.0)
    delta = (model.history()[0][0] - inputs[0])[0]
    torch.testing.assert_close(delta.norm(), torch.tensor(2.0, dtype=torch.float64))
    # Five by five tiles of five pixels, the margins of one and two pixels left alone.
    assert (delta[0] == 0).all()
    assert (delta[26:] == 0).all()
    tiles = delta[1:26, 1:26].unfold(0, 5, 5).unfold(1, 5, 5).flatten(0, 1)
    torch.testing.assert_close(tiles.flatten(1).norm(dim=1), torch.full((25,), 0.4).double())
    shapes = {
        tuple((tile / tile.abs().max()).flatten().round(decimals=6).tolist()) for tile in tiles
    }
    assert len(shapes) == 4


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_changes_one_square_of_the_best_point_so_far(norm):
    model, inputs, _ = searched(norm, queries=200)
    points, values = model.history()
    best = 0
    for query in range(1, 200):
        changed = (points[query] != points[best]).any(dim=0)
        if norm == "linf":
            rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
            # Schedule of 200 queries: the share is halved after 0.2, 1, 4, 10, ... queries.
            halvings = sum(query > 200 * at / 10_000 for at in HALVED)
            side = max(round(math.sqrt(0.8 * 0.5**halvings * 144)), 1)
            assert rows.max() - rows.min() < side
            assert columns.max() - columns.min() < side
            delta = points[query] - inputs[0]
            torch.testing.assert_close(delta.abs(), torch.full_like(delta, 0.1))
        else:
            # Two windows at most: what is left alone keeps its values.
            assert query < 20 or changed.sum() <= 2 * 9**2
        if values[query] > values[best]:
            best = query


HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def test_the_share_of_pixels_is_halved_as_published():
    search = RandomSearch(
        epsilon=0.1,
        norm="linf",
        queries=10_000,
        p_init=0.8,
        restarts=1,
        early_stop=True,
        targeted=False,
    )
    state = search.start(examples_of(images(1, (1, 4, 4))))
    shares = {}
    for asked in (1, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001, 9999):
        shares[asked] = search._share(state._replace(asked=torch.tensor([asked]))).item()
    exponents = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    assert list(shares.values()) == [0.8 * 0.5**k for k in exponents]


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 6, 6)])
def test_never_asks_in_linf_about_the_point_it_has_already(shape):
    model, _, _ = searched("linf", shape=shape, queries=300)
    points, values = model.history()
    best = 0
    for query in range(1, 300):
        assert not torch.equal(points[query], points[best])
        if values[query] > values[best]:
            best = query


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize(("queries", "restarts"), [(1, 1), (7, 1), (5, 3)])
def test_asks_exactly_as_often_as_it_may(norm, queries, restarts):
    model, _, _ = searched(norm, queries=queries, restarts=restarts, n=3)
    assert sum(len(points) for points in model.points) == 3 * queries * restarts
    first = torch.stack([model.points[run * queries][0] for run in range(restarts)])
    assert len(first.flatten(1).unique(dim=0)) == restarts


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_stops_asking_about_an_example_once_it_is_fooled(norm):
    shape = (1, 8, 8)
    model = Recording(shape)
    inputs = images(4, shape)
    model.offset = float((inputs * model.w).flatten(1).sum(dim=1).max()) + 1e-3
    how = {"norm": norm, "epsilon": EPSILON[norm], "random_state": 0}
    labels = torch.zeros(4, dtype=torch.long)
    adversarial = square(model, inputs, labels, queries=500, **how)
    asked = sum(len(points) for points in model.points)
    assert (margin_loss(model(adversarial), labels) > 0).all()
    assert asked < 4 * 100


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_more_queries_never_narrow_the_margin(norm):
    values = []
    for queries in (1, 20, 200):
        # The schedule is stretched over the queries, so each is a search of its own.
        model, _, adversarial = searched(norm, queries=queries)
        found = (adversarial[0] * model.w).sum()
        assert found == model.history()[1].max()
        values.append(found)
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("shape", [(40,), (5, 8), (2, 2, 6, 6), (1, 1, 1), (3, 2, 9)], ids=str)
def test_examples_of_any_shape_are_searched(norm, shape):
    model, inputs, adversarial = searched(norm, shape=shape, queries=150)
    delta = adversarial - inputs
    budget = radius(norm, inputs)
    assert lp_norm(delta, norm).item() <= budget * (1 + 1e-9)
    dual = {"linf": 1.0, "l2": 2.0, "l1": math.inf}[norm]
    reachable = budget * model.w.flatten().norm(p=dual)
    gain = (delta * model.w).sum()
    assert gain > (0.5 if norm == "linf" else 0.1) * reachable or model.w.numel() == 1


def test_reaches_in_linf_the_corner_that_a_linear_model_asks_for():
    model, inputs, adversarial = searched("linf", shape=(1, 5, 5), queries=1500)
    best = (0.1 * model.w.abs()).sum()
    gain = ((adversarial - inputs) * model.w).sum()
    assert gain > 0.97 * best


# Windows and bumps.


@pytest.mark.parametrize(
    ("share", "rows", "columns", "least", "odd", "expected"),
    [
        (0.8, 28, 28, 1, False, (25, 25)),
        (0.8 / 512, 28, 28, 1, False, (1, 1)),
        (0.1, 28, 28, 3, True, (9, 9)),
        (0.001, 28, 28, 3, True, (3, 3)),
        (0.5, 1, 40, 1, False, (1, 20)),
        (0.5, 40, 1, 1, False, (20, 1)),
        (1.0, 2, 8, 1, False, (2, 8)),
    ],
)
def test_sides_of_windows_by_hand(share, rows, columns, least, odd, expected):
    height, width = sides(torch.tensor([share]), rows, columns, least, odd)
    assert (height.item(), width.item()) == expected


@given(
    seed=st.integers(0, 2**40),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    share=st.floats(0.001, 1.0),
    odd=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_windows_lie_within_the_image(seed, rows, columns, share, odd):
    keys = torch.arange(4) + seed
    shares = torch.full((4,), share)
    height, width = sides(shares, rows, columns, 3 if odd else 1, odd)
    window = draw_window(height, width, uniform(keys, 0, 2, torch.float64), rows, columns)
    inside = mask(window, rows, columns)
    assert (inside.flatten(1).sum(dim=1) == height * width).all()
    for image, top, left, h, w in zip(inside, *window, strict=True):
        assert image[top : top + h, left : left + w].all()


def test_windows_come_to_every_place_alike():
    keys = example_keys(torch.rand(3000, 1, generator=torch.Generator().manual_seed(0)), 0)
    side = torch.full((3000,), 3)
    window = draw_window(side, side, uniform(keys, 0, 2, torch.float64), 5, 7)
    assert window.top.bincount().tolist() == pytest.approx([1000] * 3, abs=100)
    assert window.left.bincount().tolist() == pytest.approx([600] * 5, abs=100)


def half_bump(rows: int, columns: int) -> Tensor:
    """Equation 2 by nested rectangles around the middle, each adding the next 1 / k^2."""
    total = torch.zeros(rows, columns, dtype=torch.float64)
    top, left = rows // 2, columns // 2
    for k in range(1, max(rows, columns) // 2 + 2):
        grown = torch.zeros_like(total)
        grown[max(top - k + 1, 0) : top + k, max(left - k + 1, 0) : left + k] = 1 / k**2
        total += grown
    return total / total.norm()


@pytest.mark.parametrize("side", [3, 5, 8, 11])
@pytest.mark.parametrize("sideways", [False, True])
def test_a_bump_is_the_published_one(side, sideways):
    expected = torch.cat([half_bump(side // 2, side), -half_bump(side - side // 2, side)])
    expected = expected / expected.norm()
    if sideways:
        expected = expected.T
    one = torch.ones(1, dtype=torch.long)
    window = Window(2 * one, one, side * one, side * one)
    bump = bumps(window, torch.tensor([sideways]), side + 4, side + 2)[0]
    torch.testing.assert_close(bump[2 : 2 + side, 1 : 1 + side], expected)
    assert bump.norm().item() == pytest.approx(1)
    assert (bump[:2] == 0).all()
    assert (bump[:, 1 + side :] == 0).all()


@given(seed=st.integers(0, 2**40), channels=st.integers(1, 3), used=st.floats(0.1, 1.0))
@settings(deadline=None, max_examples=30)
def test_the_norm_of_two_windows_moves_into_one(seed, channels, used):
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(1, channels, 8, 8, generator=generator, dtype=torch.float64)
    delta = used * 2 * delta / delta.norm()
    into, outof = torch.zeros(2, 1, 1, 8, 8, dtype=torch.bool)
    into[..., 1:4, 2:5], outof[..., 3:6, 3:6] = True, True
    one = torch.ones(1, dtype=torch.long)
    bump = bumps(Window(one, 2 * one, 3 * one, 3 * one), one > 1, 8, 8)[:, None]

    moved = moved_norm(delta, bump, into, outof, 2.0)

    assert moved.norm().item() == pytest.approx(2.0)
    assert (moved.masked_select(outof & ~into) == 0).all()
    assert torch.equal(moved.masked_select(~(outof | into)), delta.masked_select(~(outof | into)))
    per_channel = moved.masked_fill(~into, 0).flatten(2).norm(dim=2)
    before = delta.masked_fill(~(into | outof), 0).flatten(2).norm(dim=2)
    unused = 4 - (2 * used) ** 2
    torch.testing.assert_close(per_channel**2, before**2 + unused / channels)


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("l1", 1)])
def test_a_budget_overdrawn_by_rounding_leaves_nothing_to_spend_and_no_nan(norm, order):
    # All of the budget and a rounding more lie outside the windows, which hold nothing.
    delta = torch.zeros(1, 1, 1, 6)
    delta[..., 5] = 1 + 1e-6
    into = torch.tensor([True, True, False, False, False, False]).view(1, 1, 1, 6)
    outof = torch.tensor([False, False, True, True, False, False]).view(1, 1, 1, 6)
    bump = torch.tensor([0.8, -0.6, 0, 0, 0, 0]).view(1, 1, 1, 6)
    moved = moved_norm(delta, bump, into, outof, 1.0, norm)
    assert torch.equal(moved, delta)


def test_an_l1_move_keeps_what_the_windows_use_and_spends_what_is_left():
    # By hand: 1.5 of 2 is used, 0.5 of it in the windows and 1 elsewhere; 0.5 is unused.
    delta = torch.zeros(1, 1, 1, 6, dtype=torch.float64)
    delta[..., 0], delta[..., 2], delta[..., 5] = 0.25, -0.25, 1.0
    into = torch.tensor([True, True, False, False, False, False]).view(1, 1, 1, 6)
    outof = torch.tensor([False, False, True, True, False, False]).view(1, 1, 1, 6)
    bump = torch.tensor([0.5, -0.5, 0, 0, 0, 0], dtype=torch.float64).view(1, 1, 1, 6)
    moved = moved_norm(delta, bump, into, outof, 2.0, "l1")
    # Half the bump (0.5, -0.5) and all of what was there (1, 0): 1.5 to -0.5, of size 1.
    expected = torch.tensor([0.75, -0.25, 0, 0, 0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(moved.flatten(), expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "l0"}, r"norm must be one of 'linf', 'l2', 'l1', got 'l0'"),
        ({"queries": 0}, r"queries must be at least 1, got 0"),
        ({"restarts": 0}, r"restarts must be at least 1, got 0"),
        ({"p_init": 0.0}, r"p_init must be a finite number above 0, got 0.0"),
        ({"p_init": 1.2}, r"p_init must be at most 1, got 1.2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(halfspace, examples, wrong, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        square(halfspace, *examples(2), **{"epsilon": 0.1, **wrong})
