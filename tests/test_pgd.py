"""What only PGD and FGSM promise: their steps by hand, restarts, momentum, l1 at the bounds."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from distillguard.attacks import fgsm, pgd
from distillguard.attacks._checks import ModelFacts
from distillguard.functional import margin_loss


class Route:
    """The identity as a model: remembers the points it was asked about, one example's route."""

    facts = ModelFacts()

    def __init__(self) -> None:
        self.points: list[Tensor] = []

    def __call__(self, points: Tensor) -> Tensor:
        self.points.append(points.detach()[0].clone())
        return points * 1


def slopes(*gradients: list[float]):
    """A loss whose gradient at its k-th evaluation is the k-th of ``gradients``."""
    pending = [torch.tensor(gradient, dtype=torch.float64) for gradient in gradients]
    return lambda logits, labels: (logits * pending.pop(0)).sum(dim=1)


def point(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


LABEL = torch.tensor([0])
WIDE = {"bounds": (-9.0, 9.0), "epsilon": 5.0}
PLAIN = {"random_start": False, "early_stop": False}


def check_route(route: Route, *expected: list[float]) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(torch.stack(route.points), wanted)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
def test_fgsm_is_one_step_of_pgd_as_long_as_the_budget(tangled, norm, loss):
    inputs = torch.rand(8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = tangled.decided(inputs)
    common = {"epsilon": 0.2, "norm": norm, "loss": loss}
    one_step = pgd(tangled, inputs, labels, steps=1, step_size=0.2, random_start=False, **common)
    assert torch.equal(fgsm(tangled, inputs, labels, **common), one_step)


def test_decayed_steps_shrink_linearly_over_each_run():
    route = Route()
    loss = slopes(*([1.0, -1.0],) * 6)
    settings = {"random_start": False, "early_stop": False, "step_size": 3.0, "step_decay": True}
    pgd(
        route,
        point(0.0, 0.0),
        LABEL,
        loss=loss,
        steps=3,
        bounds=(-9.0, 9.0),
        epsilon=8.0,
        **settings,
    )
    check_route(route, [0.0, 0.0], [3.0, -3.0], [5.0, -5.0], [6.0, -6.0])


class Seen:
    """A model of images that keeps the points it was asked about; nothing fools it."""

    facts = ModelFacts()

    def __init__(self) -> None:
        self.points: list[Tensor] = []

    def __call__(self, points: Tensor) -> Tensor:
        self.points.append(points.detach().clone())
        slope = points.flatten(1).sum(dim=1)
        return torch.stack([100 + 0 * slope, slope], dim=1)


@pytest.mark.parametrize(("norm", "value"), [("linf", 0.2), ("l2", 0.2 / 10), ("l1", 0.2 / 100)])
def test_block_starts_are_constant_on_a_sixteenth_of_the_image_and_as_long_as_the_budget(
    norm, value
):
    model, inputs = Seen(), torch.full((32, 1, 10, 10), 0.5, dtype=torch.float64)
    inputs += torch.rand(32, 1, 1, 1, generator=torch.Generator().manual_seed(0)).double() / 100
    labels = torch.zeros(32, dtype=torch.long)
    settings = {"steps": 1, "restarts": 2, "random_start": "blocks", "random_state": 0}
    pgd(model, inputs, labels, norm=norm, epsilon=0.2, **settings)
    first, second = (model.points[run] - inputs for run in (0, 2))
    torch.testing.assert_close(first.abs(), torch.full_like(first, value))
    # A side of ten is cut after 3, 5 and 8: by hand, floor(4 i / 10) for i from 0 to 9.
    row = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
    block = row[:, None] * 4 + row
    signs = torch.zeros(32, 16, dtype=torch.float64)
    for number in range(16):
        inside = first[:, 0, block == number].sign()
        assert (inside == inside[:, :1]).all()
        signs[:, number] = inside[:, 0]
    assert signs.mean().abs() < 4 / (32 * 16) ** 0.5  # four standard deviations
    assert len(signs.unique(dim=0)) == 32
    assert not torch.equal(first, second)


def test_block_starts_of_tables_have_a_sign_for_each_coordinate():
    model, inputs = Seen(), torch.full((64, 12), 0.5) + torch.arange(64)[:, None] / 1000
    labels = torch.zeros(64, dtype=torch.long)
    pgd(model, inputs, labels, epsilon=0.25, steps=1, random_start="blocks", random_state=0)
    delta = model.points[0] - inputs
    torch.testing.assert_close(delta.abs(), torch.full_like(delta, 0.25))
    assert (delta > 0).any(dim=0).all()
    assert (delta < 0).any(dim=0).all()


def test_block_starts_cross_a_plateau_that_uniform_ones_do_not_leave():
    class Plateau(torch.nn.Module):
        """Looks at means over blocks, and not at all at small changes of them."""

        def forward(self, inputs: Tensor) -> Tensor:
            means = torch.nn.functional.avg_pool2d(inputs - 0.5, 4)
            beyond = (means.abs() - 0.15).clamp(min=0).flatten(1).amax(dim=1)
            return torch.stack([torch.full_like(beyond, 0.02), beyond], dim=1)

    inputs, labels = torch.full((20, 1, 16, 16), 0.5), torch.zeros(20, dtype=torch.long)
    inputs += torch.arange(20)[:, None, None, None] * 1e-4
    settings = {"epsilon": 0.2, "loss": "margin", "restarts": 5, "random_state": 0}

    def robust(**start) -> float:
        points = pgd(Plateau(), inputs, labels, **settings, **start)
        return (Plateau()(points).argmax(dim=1) == labels).float().mean().item()

    assert robust() == 1
    assert robust(random_start="blocks") == 0


def test_steps_follow_the_sign_in_linf_and_every_iterate_is_visited():
    route = Route()
    loss = slopes([3.0, -2.0], [-1.0, 0.0])
    pgd(route, point(4.0, 2.0), LABEL, loss=loss, steps=2, step_size=0.5, **WIDE, **PLAIN)
    check_route(route, [4.0, 2.0], [4.5, 1.5], [4.0, 1.5])


def test_steps_follow_the_unit_gradient_in_l2():
    route = Route()
    loss = slopes([3.0, 4.0], [0.0, 0.0])
    found = pgd(
        route, point(4.0, 2.0), LABEL, loss=loss, norm="l2", steps=2, step_size=5, **WIDE, **PLAIN
    )
    check_route(route, [4.0, 2.0], [7.0, 6.0])
    assert torch.equal(found, point(7.0, 6.0))


def test_the_ball_is_around_the_input_and_not_around_the_last_iterate():
    route = Route()
    loss = slopes([1.0, 0.0], [1.0, 0.0], [1.0, 0.0])
    settings = {"steps": 3, "step_size": 0.5, "epsilon": 0.75, "bounds": (-9.0, 9.0)}
    pgd(route, point(4.0, 2.0), LABEL, loss=loss, **settings, **PLAIN)
    check_route(route, [4.0, 2.0], [4.5, 2.0], [4.75, 2.0], [4.75, 2.0])


def test_default_steps_begin_with_the_radius_and_fall_linearly():
    route = Route()
    loss = slopes(*[[1.0, 0.0], [-1.0, 0.0]] * 3)
    pgd(route, point(4.0, 2.0), LABEL, loss=loss, steps=5, **WIDE, **PLAIN)
    check_route(route, *([first, 2.0] for first in (4.0, 9.0, 5.0, 8.0, 6.0, 7.0)))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"step_decay": False}, 2.5 * 5.0 / 10), ({"step_size": 0.3}, 0.3)],
    ids=["asked for", "of a given size"],
)
def test_equal_steps_where_they_are_asked_for_or_given_a_size(settings, expected):
    route = Route()
    settings = {"loss": slopes(*[[1.0, 0.0], [-1.0, 0.0]] * 6), "steps": 10} | settings
    pgd(route, point(4.0, 2.0), LABEL, **settings, **WIDE, **PLAIN)
    lengths = [(after - before).abs().max().item() for before, after in pairwise(route.points)]
    assert lengths == pytest.approx([expected] * 10)


def test_momentum_adds_gradients_that_are_first_divided_by_their_l1_norm():
    route = Route()
    # Dong 2018, algorithm 1: (1, 0), then half of it plus (0, -1).
    loss = slopes([2.0, 0.0], [0.0, -8.0])
    settings = {"norm": "l2", "momentum": 0.5, "steps": 2, "step_size": 1.25**0.5}
    pgd(route, point(4.0, 2.0), LABEL, loss=loss, **settings, **WIDE, **PLAIN)
    check_route(route, [4.0, 2.0], [4.0 + 1.25**0.5, 2.0], [4.0 + 1.25**0.5 + 0.5, 2.0 - 1.0])


def test_each_restart_starts_elsewhere_and_without_the_momentum_of_the_last():
    route = Route()
    loss = slopes([1.0, 0.0], [0.0, 1.0], [0.0, -1.0])
    settings = {"steps": 1, "restarts": 3, "momentum": 1.0, "step_size": 0.01, "norm": "l2"}
    settings |= {"bounds": (-9.0, 9.0), "epsilon": 3.0, "early_stop": False, "random_state": 0}
    pgd(route, point(4.0, 2.0), LABEL, loss=loss, **settings)
    starts, ends = torch.stack(route.points[0::2]), torch.stack(route.points[1::2])
    assert len(starts.unique(dim=0)) == 3
    inside = (starts - point(4.0, 2.0)).norm(dim=1) < 2.9
    assert inside.all(), "choose another random_state: a start too near the edge is projected"
    moved = (ends - starts) / 0.01
    torch.testing.assert_close(moved, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double())


def test_more_restarts_never_narrow_the_margin(tangled):
    inputs = torch.rand(20, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = tangled.decided(inputs)
    tangled.eval()
    few, many = (
        margin_loss(
            tangled(
                pgd(
                    tangled,
                    inputs,
                    labels,
                    epsilon=0.05,
                    steps=3,
                    restarts=restarts,
                    early_stop=False,
                    random_state=0,
                )
            ),
            labels,
        )
        for restarts in (1, 4)
    )
    assert (many >= few).all()
    assert (many > few).any()


def test_without_early_stop_the_margin_only_grows(tangled):
    inputs = torch.rand(20, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = tangled.decided(inputs)
    tangled.eval()
    common = {"epsilon": 0.2, "steps": 10, "random_state": 0}
    stopped, on = (
        margin_loss(tangled(pgd(tangled, inputs, labels, early_stop=stop, **common)), labels)
        for stop in (True, False)
    )
    assert (on >= stopped).all()
    assert (on > stopped).any()


@pytest.mark.parametrize(("judge_last", "expected"), [(True, [0.7, 0.4]), (False, [0.9, 0.2])])
def test_a_step_that_does_not_help_comes_back_only_where_nobody_judges_it(judge_last, expected):
    route = Route()
    settings = {"epsilon": 0.2, "loss": slopes([1.0, -1.0]), "judge_last": judge_last}
    adversarial = fgsm(route, point(0.7, 0.4), LABEL, **settings)
    assert adversarial[0].tolist() == pytest.approx(expected)
    assert len(route.points) == 1 + judge_last


def test_without_the_last_judgement_what_an_earlier_iterate_fooled_is_kept():
    route = Route()
    settings = {"epsilon": 0.2, "step_size": 0.2, "steps": 2, "judge_last": False} | PLAIN
    loss = slopes([-1.0, 1.0], [1.0, -1.0])
    adversarial = pgd(route, point(0.7, 0.4), LABEL, loss=loss, **settings)
    assert adversarial[0].tolist() == pytest.approx([0.5, 0.6])
    check_route(route, [0.7, 0.4], [0.5, 0.6])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_larger_budget_never_saves_an_example(halfspace, examples, norm):
    inputs, labels = examples(20)
    fooled = [
        halfspace(fgsm(halfspace, inputs, labels, epsilon=epsilon, norm=norm)).argmax(1) != labels
        for epsilon in (0.01, 0.02, 0.04, 0.08)
    ]
    for less, more in pairwise(fooled):
        assert more[less].all()
    assert len({int(each.sum()) for each in fooled}) > 1


def test_iterates_are_ranked_by_the_margin_and_not_by_the_loss_that_drives_the_ascent():
    # Towards the right the cross-entropy of class 0 rises from 0.75 to 1.03, and yet only the
    # left end is misclassified: with three classes the two can disagree.
    def model(inputs: Tensor) -> Tensor:
        share = ((inputs[:, :1] - 0.2) / 0.6).clamp(0, 1)
        left, right = point(1.0, 1.1, -5.0), point(1.0, 0.9, 0.9)
        return left + share * (right - left)

    inputs = point(0.2, 0.0)
    adversarial = pgd(model, inputs, LABEL, epsilon=0.6, steps=5, **PLAIN)
    assert model(adversarial).argmax().item() == 1


@pytest.mark.parametrize(
    ("held", "sign", "expected"), [(1.0, 1.0, [1.0, 0.75]), (0.0, -1.0, [0.0, 0.25])]
)
def test_an_l1_step_does_not_pick_a_pixel_that_the_bounds_hold(held, sign, expected):
    def model(inputs: Tensor) -> Tensor:
        steepest_first = sign * (3 * inputs[:, :1] + inputs[:, 1:])
        return torch.cat([torch.full_like(steepest_first, 10.0), steepest_first], dim=1)

    adversarial = fgsm(model, point(held, 0.5), LABEL, epsilon=0.25, norm="l1")
    assert adversarial.tolist() == [expected]


def first_points(inputs: Tensor, labels: Tensor) -> Tensor:
    """Where runs on the identity as a model start."""
    starts = {}

    def note(indices: Tensor, points: Tensor, logits: Tensor) -> None:
        for index, start in zip(indices.tolist(), points, strict=True):
            starts.setdefault(index, start)

    settings = {"epsilon": 0.1, "steps": 1, "random_state": 0, "callback": note}
    pgd(lambda points: points * 1, inputs, labels, **settings)
    return torch.stack([starts[index] for index in range(len(inputs))])


def test_copies_of_an_example_start_at_points_of_their_own_and_the_first_as_if_alone():
    inputs = point(0.5, 0.25).repeat(4, 1)
    inputs[2, 1] = 0.3
    labels = torch.tensor([0, 0, 0, 1])
    starts = first_points(inputs, labels)
    assert torch.equal(starts[:1], first_points(inputs[:1], labels[:1]))
    assert torch.equal(starts[2:3], first_points(inputs[2:3], labels[2:3]))
    assert torch.equal(starts[0], starts[3])  # another label: another example
    assert not torch.isclose(starts[0], starts[1]).any()


def test_the_starts_of_copies_are_the_same_set_in_any_order():
    inputs = point(0.5, 0.25).repeat(5, 1)
    inputs[3, 0] = 0.1
    labels = torch.zeros(5, dtype=torch.int64)
    order = torch.tensor([4, 3, 1, 0, 2])
    mixed = first_points(inputs[order], labels)
    straight = first_points(inputs, labels)
    assert sorted(mixed.tolist()) == sorted(straight.tolist())
    assert len(straight.unique(dim=0)) == 5


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_a_run_without_slope_asks_once_where_no_other_point_is_drawn(norm, momentum):
    settings = {"steps": 7, "norm": norm, "momentum": momentum, "early_stop": False, **WIDE}
    once, thrice = Route(), Route()
    flat = slopes(*([0.0, 0.0],) * 4)
    pgd(once, point(1.0, -1.0), LABEL, loss=flat, random_start=False, **settings)
    settings |= {"redraw": False, "restarts": 3, "random_state": 0}
    pgd(thrice, point(1.0, -1.0), LABEL, loss=flat, **settings)
    assert (len(once.points), len(thrice.points)) == (1, 3)


@pytest.mark.parametrize("start", [True, "blocks"])
def test_steps_without_slope_go_to_other_random_points(start):
    route, inputs = Route(), torch.linspace(-1, 1, 16, dtype=torch.float64)[None]
    flat = slopes(*([0.0] * 16,) * 10)
    settings = {"steps": 4, "restarts": 2, "random_start": start, "random_state": 0, **WIDE}
    pgd(route, inputs, LABEL, loss=flat, early_stop=False, **settings)
    assert len({tuple(each.tolist()) for each in route.points}) == 2 * (4 + 1)
    assert all((each - inputs[0]).abs().max() <= 5.0 for each in route.points)


def test_the_first_point_with_a_slope_is_climbed_from():
    route = Route()
    loss = slopes([0.0, 0.0], [1.0, -1.0], [1.0, 0.0])
    settings = {"steps": 3, "step_size": 1.0, "random_state": 0, "early_stop": False}
    pgd(route, point(0.0, 0.0), LABEL, loss=loss, epsilon=2.0, bounds=(-9.0, 9.0), **settings)
    first, second, third, fourth = route.points
    assert not torch.equal(first, second)
    assert torch.equal(third, (second + torch.tensor([1.0, -1.0])).clamp(-2, 2))
    assert torch.equal(fourth, (third + torch.tensor([1.0, 0.0])).clamp(-2, 2))


@pytest.mark.parametrize(("steps", "restarts"), [(1, 1), (9, 1), (4, 2)])
def test_without_slope_each_look_is_a_draw_of_its_own(steps, restarts):
    def tenth(points):
        # Fooled on the uppermost tenth of the interval, without a slope anywhere.
        above = 0 * points[:, 0] + (points[:, 0] > 0.5 + 0.8 * 0.2)
        return torch.stack([0.5 - above, above - 0.5], dim=1)

    inputs = 0.5 + torch.linspace(0, 1e-9, 4000, dtype=torch.float64)[:, None]
    labels = torch.zeros(4000, dtype=torch.long)
    settings = {"steps": steps, "restarts": restarts, "random_state": 0}
    found = pgd(tenth, inputs, labels, epsilon=0.2, **settings)
    fooled = tenth(found).argmax(dim=1) != 0
    share = 1 - 0.9 ** (restarts * (steps + 1))
    assert fooled.double().mean() == pytest.approx(share, abs=4 * (0.25 / 4000) ** 0.5)
    alone = pgd(tenth, inputs[7:9], labels[7:9], epsilon=0.2, **settings)
    assert torch.equal(alone, found[7:9])


def test_momentum_carries_a_run_across_a_flat_spot():
    route = Route()
    loss = slopes([1.0, 0.0], [0.0, 0.0], [0.0, 1.0])
    pgd(route, point(0.0, 0.0), LABEL, steps=3, step_size=1.0, loss=loss, momentum=1.0,
        **WIDE, **PLAIN)  # fmt: skip
    check_route(route, [0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 1.0])


def test_one_example_without_slope_does_not_stop_the_others():
    def model(points):
        # The first is flat, the second climbs.
        return points * (points[:, :1] > 0)

    inputs = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    loss = lambda logits, labels: logits[:, 1]  # noqa: E731
    found = pgd(model, inputs, torch.tensor([0, 0]), steps=3, step_size=1.0, loss=loss,
                epsilon=3.0, bounds=(-9.0, 9.0), **PLAIN)  # fmt: skip
    assert torch.equal(found, inputs + torch.tensor([[0.0, 0.0], [0.0, 3.0]]))


# l1 on linear models, where the best point of the ball within the bounds is known.


def linear(d: int, share: float, seed: int, power: int = 1) -> tuple[nn.Linear, Tensor, float]:
    """A linear model, an input, and the least l1 radius at which it can be fooled."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(d, generator=generator) ** power
    x = (2 * torch.rand(1, d, generator=generator) - 0.5).clamp(0, 1)
    room = torch.where(w > 0, x[0], 1 - x[0]).double()
    slack = share * (w.abs().double() * room).sum()

    # The steepest coordinates go to their bounds, the last as far as needed.
    order = w.abs().argsort(descending=True)
    slope, room = w[order].abs().double(), room[order]
    gained = (slope * room).cumsum(dim=0)
    whole = int((gained < slack).sum())
    left = slack - (gained[whole - 1] if whole else 0)
    needed = room[:whole].sum() + left / slope[whole]

    model = nn.Linear(d, 2)
    with torch.no_grad():
        scale = float(3 / slack)
        model.weight.copy_(torch.stack([w, -w]) * scale / 2)
        offset = (3 - scale * (w.double() @ x[0].double())) / 2
        model.bias.copy_(torch.stack([offset, -offset]))
    return model, x, float(needed)


each_size = pytest.mark.parametrize("d", [20, 100, 784, 3072, 16_000])
each_share = pytest.mark.parametrize("share", [0.001, 0.02, 0.3])


@each_size
@each_share
@pytest.mark.parametrize("power", [1, 3])
def test_one_l1_step_fools_a_linear_model_exactly_from_the_least_radius_on(d, share, power):
    model, inputs, needed = linear(d, share, seed=d, power=power)
    for factor, expected in ((0.99, False), (1.01, True)):
        settings = {"norm": "l1", "epsilon": factor * needed}
        adversarial = fgsm(model, inputs, LABEL, **settings)
        assert (model(adversarial).argmax(dim=1) != LABEL).item() == expected
        assert (adversarial.double() - inputs.double()).abs().sum() <= factor * needed * (1 + 1e-6)


@each_size
@each_share
@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize("start", [True, False, "blocks"])
def test_l1_steps_fool_a_linear_model_from_a_little_above_the_least_radius_on(
    d, share, power, start
):
    model, inputs, needed = linear(d, share, seed=d, power=power)
    settings = {"norm": "l1", "epsilon": 1.05 * needed, "random_start": start, "random_state": 0}
    adversarial = pgd(model, inputs, LABEL, **settings)
    assert model(adversarial).argmax(dim=1) != LABEL


def test_a_tie_that_fools_nobody_is_no_success():
    def model(points):
        return torch.cat([0 * points, points - 0.5], dim=1)

    inputs = point(0.5)
    assert model(inputs).tolist() == [[0, 0]]
    assert model(inputs).argmax(dim=1) == LABEL  # as any judge would say
    found = pgd(model, inputs, LABEL, epsilon=0.1, steps=3, random_start=False)
    assert model(found).argmax(dim=1) == 1


def test_where_nothing_moves_and_nothing_is_drawn_the_search_ends_at_once():
    asked = []

    def flat(inputs):
        asked.append(len(inputs))
        return 0 * inputs[:, :2] + torch.tensor([3.0, 0.0])

    counts = {}
    for start in (False, True):
        asked.clear()
        pgd(flat, torch.rand(1, 4), torch.tensor([0]), epsilon=0.1, steps=30, random_start=start)
        counts[start] = sum(asked)
    assert counts[True] - counts[False] >= 28
