"""What only the Carlini-Wagner attacks promise."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from conftest import Halfspace, Recording, examples_of
from distillguard import UndefendedClassifier, datasets
from distillguard._geometry import lp_norm, per_example
from distillguard.attacks import (
    carlini_wagner_l0,
    carlini_wagner_l2,
    carlini_wagner_linf,
    sigma_zero,
)
from distillguard.attacks._examples import Examples
from distillguard.attacks.carlini_wagner._l0 import SparseDescent
from distillguard.attacks.carlini_wagner._l2 import AdamInTanhSpace
from distillguard.attacks.carlini_wagner._linf import SignsWithinALimit
from distillguard.attacks.carlini_wagner._multi_target import (
    DescentState,
    MultiTargetDescent,
)
from distillguard.attacks.carlini_wagner._prune import Pruning, Trial
from distillguard.attacks.carlini_wagner._runs import schedule

each_attack = pytest.mark.parametrize(
    "attack", [carlini_wagner_l2, carlini_wagner_linf, carlini_wagner_l0]
)


class Constant(nn.Module):
    """Logits that no input changes, though autograd sees a path."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tensor([2.0, 0.0]).to(inputs) + 0 * inputs.flatten(1)[:, :1]


class Ball(nn.Module):
    """Class 1 outside the ball of radius 0.3 around the middle of the unit cube."""

    def forward(self, inputs: Tensor) -> Tensor:
        outside = (inputs - 0.5).flatten(1).norm(dim=1) - 0.3
        return torch.stack([-outside, outside], dim=1)


def least_distance(halfspace: Halfspace, inputs: Tensor) -> Tensor:
    """Least L2 distance to the other class within [0, 1], by bisection on the multiplier.

    At the optimum every coordinate that the bounds let move is proportional to its weight.
    """
    signed = halfspace.signed_distance(inputs).detach()
    weights = -per_example(signed.sign(), inputs.flatten(1)) * halfspace.w.detach()
    flat = inputs.flatten(1)

    def moved(multiplier: Tensor) -> Tensor:
        return (flat + multiplier[:, None] * weights).clamp(0, 1) - flat

    low, high = torch.zeros_like(signed), torch.full_like(signed, 1e6)
    for _ in range(100):
        middle = (low + high) / 2
        crossed = (moved(middle) * weights).sum(dim=1) >= signed.abs()
        low, high = torch.where(crossed, low, middle), torch.where(crossed, middle, high)
    return moved(high).norm(dim=1)


def distance(adversarial: Tensor, inputs: Tensor) -> Tensor:
    return lp_norm(adversarial - inputs, "l2")


@pytest.fixture
def corners() -> tuple[Halfspace, Tensor, Tensor]:
    """Inputs of nothing but exact zeros and ones."""
    model = Halfspace((16,), seed=1)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 2, (12, 16), generator=generator).double()
    return model, inputs, model(inputs).argmax(dim=1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_closest_point_of_a_half_space_is_found_at_any_scale_of_the_logits(examples, scale):
    model = Halfspace(scale=scale)
    inputs, labels = examples(16)

    adversarial = carlini_wagner_l2(model, inputs, labels)

    assert (model(adversarial).argmax(dim=1) != labels).all()
    ratio = distance(adversarial, inputs) / model.least_epsilon(inputs, "l2")
    assert (ratio >= 1).all()
    assert ratio.max() < 1.002


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_saturated_inputs_move_to_the_closest_point_within_bounds(corners, dtype):
    model, inputs, labels = corners

    adversarial = carlini_wagner_l2(model, inputs.to(dtype), labels)

    assert adversarial.dtype == dtype
    assert (model(adversarial).argmax(dim=1) != labels).all()
    ratio = distance(adversarial.double(), inputs) / least_distance(model, inputs)
    assert ratio.max() < (1.03 if dtype == torch.bfloat16 else 1.002)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_all_black_and_an_all_white_input_change(value):
    model = Halfspace((16,))
    inputs = torch.full((1, 16), value, dtype=torch.float64)
    labels = model(inputs).argmax(dim=1)
    adversarial = carlini_wagner_l2(model, inputs, labels)
    assert model(adversarial).argmax(dim=1) != labels
    ratio = distance(adversarial, inputs) / least_distance(model, inputs)
    assert ratio < 1.002


def test_a_curved_boundary_is_met_at_its_closest_point():
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(8, 12, generator=generator, dtype=torch.float64)
    inputs = 0.5 + 0.2 * directions / directions.norm(dim=1, keepdim=True)
    adversarial = carlini_wagner_l2(Ball(), inputs, torch.zeros(8, dtype=torch.int64))
    least = torch.full((8,), 0.1, dtype=torch.float64)
    torch.testing.assert_close(distance(adversarial, inputs), least, rtol=2e-3, atol=0)


@pytest.mark.parametrize("confidence", [0.0, 0.5])
def test_the_margin_reaches_the_confidence_and_hardly_more(halfspace, examples, confidence):
    inputs, labels = examples(16)
    adversarial = carlini_wagner_l2(halfspace, inputs, labels, confidence=confidence)
    margin = halfspace(adversarial).diff(dim=1).squeeze(1) * (1 - 2 * labels)
    assert (margin >= confidence).all()
    assert (margin < confidence + 0.01).all()


def test_a_shift_of_the_logits_below_zero_changes_nothing(halfspace, examples):
    inputs, labels = examples(8)

    def lowered(points: Tensor) -> Tensor:
        return halfspace(points) - 64

    expected = carlini_wagner_l2(halfspace, inputs, labels)
    actual = carlini_wagner_l2(lowered, inputs, labels)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)


def test_with_two_classes_the_target_is_the_other_class(halfspace, examples):
    inputs, labels = examples(8)
    untargeted = carlini_wagner_l2(halfspace, inputs, labels)
    targeted = carlini_wagner_l2(halfspace, inputs, 1 - labels, targeted=True)
    # Equal but for the steps that the targeted attack has left over.
    torch.testing.assert_close(targeted, untargeted, rtol=0, atol=1e-3)


def test_the_target_is_reached_and_not_merely_the_label_left(tangled):
    generator = torch.Generator().manual_seed(0)
    inputs = 0.3 + 0.4 * torch.rand(8, 12, generator=generator, dtype=torch.float64)
    labels = tangled.decided(inputs)
    targets = (labels + 2) % 4

    adversarial = carlini_wagner_l2(tangled, inputs, targets, targeted=True)

    reached = tangled.decided(adversarial) == targets
    assert reached.sum() >= 6
    assert (distance(adversarial, inputs)[~reached] == 0).all()


def test_a_failed_example_comes_back_as_the_input(halfspace, examples):
    inputs, _ = examples(4)
    labels = torch.zeros(4, dtype=torch.int64)
    torch.testing.assert_close(
        carlini_wagner_l2(Constant(), inputs, labels), inputs, rtol=0, atol=0
    )


def test_an_input_misclassified_already_comes_back_unchanged(halfspace, examples):
    inputs, labels = examples(4)
    adversarial = carlini_wagner_l2(halfspace, inputs, 1 - labels)
    torch.testing.assert_close(adversarial, inputs, rtol=0, atol=0)


def test_the_last_iterate_is_judged(halfspace, examples):
    inputs, labels = examples(8)
    adversarial = carlini_wagner_l2(halfspace, inputs, labels, steps=1)
    assert (halfspace(adversarial).argmax(dim=1) != labels).all()


def test_the_units_of_the_input_do_not_matter(halfspace, examples):
    inputs, labels = examples(8)

    def in_bytes(points: Tensor) -> Tensor:
        return halfspace(points / 255)

    expected = carlini_wagner_l2(halfspace, inputs, labels)
    actual = carlini_wagner_l2(in_bytes, 255 * inputs, labels, bounds=(0.0, 255.0))
    torch.testing.assert_close(actual / 255, expected, rtol=0, atol=1e-3)


def test_more_steps_come_closer(halfspace, examples):
    inputs, labels = examples(16)
    distances = [
        distance(carlini_wagner_l2(halfspace, inputs, labels, steps=steps), inputs).mean()
        for steps in (5, 20, 80)
    ]
    assert distances[0] > distances[1] > distances[2]


@pytest.mark.parametrize(
    "how", [{"steps": 40}, {"steps": 200, "algorithm": "paper"}], ids=["fast", "paper"]
)
def test_it_is_done_at_the_first_success_that_is_near_enough(halfspace, examples, how):
    inputs, labels = examples(12)
    nearest = least_distance(halfspace, inputs)
    radius = nearest.median().item()

    every, few = Recording(halfspace), Recording(halfspace)
    whole = carlini_wagner_l2(every, inputs, labels, **how)
    stopped = carlini_wagner_l2(few, inputs, labels, **how, stop_within=radius)

    torch.testing.assert_close(stopped[nearest > radius], whole[nearest > radius])
    within = distance(whole, inputs) <= radius
    assert within.sum() >= 4
    assert (distance(stopped, inputs)[within] <= radius).all()
    assert (halfspace(stopped).argmax(dim=1) != labels).all()
    assert few.backwards < 0.9 * every.backwards


def test_an_example_is_done_with_its_very_first_success_at_whatever_distance(halfspace, examples):
    inputs, labels = examples(8)
    model = Recording(halfspace)
    found = carlini_wagner_l2(model, inputs, labels, steps=50, stop_within=1e3)
    assert (halfspace(found).argmax(dim=1) != labels).all()
    # The linearised step to the boundary, and one or two more across it.
    assert model.backwards <= 4 * len(inputs)


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf])
def test_a_distance_to_stop_within_is_finite_and_above_0(halfspace, examples, wrong):
    with pytest.raises(ValueError, match="stop_within must be a finite number above 0"):
        carlini_wagner_l2(halfspace, *examples(2), stop_within=wrong)


@pytest.mark.parametrize("confidence", [-1.0, math.nan, math.inf])
def test_a_wrong_confidence_is_refused(halfspace, examples, confidence):
    with pytest.raises(ValueError, match="confidence must be a finite number of at least 0"):
        carlini_wagner_l2(halfspace, *examples(2), confidence=confidence)


@each_attack
def test_no_steps_are_refused(halfspace, examples, attack):
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        attack(halfspace, *examples(2), steps=0)


class Detour(nn.Module):
    """Class 1 has the larger logit at 0.5, class 2 the nearer boundary."""

    def forward(self, inputs: Tensor) -> Tensor:
        first, second = (inputs - 0.5).flatten(1)[:, :2].unbind(dim=1)
        return torch.stack([torch.zeros_like(first), first - 0.3, 8 * second - 0.8], dim=1)


def test_a_near_boundary_is_found_behind_a_class_of_smaller_logit():
    inputs = torch.full((1, 4), 0.5, dtype=torch.float64)
    adversarial = carlini_wagner_l2(Detour(), inputs, torch.tensor([0]))
    assert distance(adversarial, inputs).item() == pytest.approx(0.1, rel=2e-3)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_linf_finds_the_closest_point_of_a_half_space(examples, scale):
    model = Halfspace(scale=scale)
    inputs, labels = examples(8)

    adversarial = carlini_wagner_linf(model, inputs, labels)

    assert (model(adversarial).argmax(dim=1) != labels).all()
    ratio = lp_norm(adversarial - inputs, "linf") / model.least_epsilon(inputs, "linf")
    assert (ratio >= 1 - 1e-9).all()
    assert ratio.max() < 1.002


def fewest_changes(model: Halfspace, inputs: Tensor) -> Tensor:
    """Count the largest single contributions, each coordinate at its bound, that cross."""
    signed = model.signed_distance(inputs).detach()
    weights = -per_example(signed.sign(), inputs.flatten(1)) * model.w.detach()
    flat = inputs.flatten(1)
    gains = torch.maximum(weights * (1 - flat), -weights * flat)
    sums = gains.sort(dim=1, descending=True).values.cumsum(dim=1)
    return (sums < signed.abs()[:, None]).sum(dim=1) + 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_l0_changes_as_few_coordinates_as_a_half_space_allows(seed):
    model = Halfspace((12,), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(32, 12, generator=generator, dtype=torch.float64) / 2
    inputs = torch.where(model.w.detach() > 0, 1 - inputs, inputs)
    labels = model(inputs).argmax(dim=1)

    adversarial = carlini_wagner_l0(model, inputs, labels)

    assert (model(adversarial).argmax(dim=1) != labels).all()
    least = fewest_changes(model, inputs)
    assert least.max() >= 3
    assert torch.equal((adversarial != inputs).sum(dim=1), least)


def test_l0_changes_no_more_of_a_digit_than_a_like_descent_in_as_few_steps():
    X, y = datasets.load_digits("train")
    network = UndefendedClassifier(max_epochs=20, random_state=0).fit(X, y).model_.eval()
    inputs = datasets.load_digits("test")[0][:40]
    labels = network(inputs).argmax(dim=1)
    found, like = (
        (attack(network, inputs, labels, steps=20) != inputs).flatten(1).sum(dim=1)
        for attack in (carlini_wagner_l0, sigma_zero)
    )
    assert (like > 0).all()
    assert (found <= like).all()
    assert found.sum() < 0.9 * like.sum()


@pytest.mark.parametrize(("before", "reached", "after"), [(1e-4, False, 0.0), (0.9999, True, 1.0)])
def test_what_l0_takes_back_is_a_share_of_the_width_between_none_and_all(before, reached, after):
    inputs = torch.full((1, 4), 0.5)
    machine = SparseDescent(steps=20, confidence=0.0, targeted=False)
    state = machine.start(examples_of(inputs))
    state = state._replace(threshold=torch.tensor([before]), step=torch.tensor([1]))
    slope, none = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.zeros(1, 4)
    moved = machine.descended(state, none, slope, torch.tensor([reached]))
    assert moved.threshold.tolist() == [after]
    # Up the slope where it is not reached yet, and kept, however small the change is.
    assert (moved.current != inputs).tolist() == [[not reached, False, False, False]]


def test_no_change_that_l0_leaves_could_be_taken_back_alone():
    model, generator = Ball(), torch.Generator().manual_seed(0)
    inputs = 0.45 + 0.1 * torch.rand(16, 16, generator=generator, dtype=torch.float64)
    adversarial = carlini_wagner_l0(model, inputs, torch.zeros(16).long(), bounds=(0.35, 0.65))
    assert (model(adversarial).argmax(dim=1) == 1).all()
    assert (adversarial != inputs).sum(dim=1).min() >= 3
    for coordinate in range(16):
        fewer = adversarial.clone()
        fewer[:, coordinate] = inputs[:, coordinate]
        changed = (fewer != adversarial).any(dim=1)
        assert (model(fewer).argmax(dim=1) == 0)[changed].all()


def test_two_changes_make_room_for_one_that_does_more():
    inputs, best = torch.zeros(1, 4), torch.tensor([[1.0, 0.5, 0.0, 0.0]])
    trial = Trial.none(inputs, torch.tensor([0]))
    trial = trial.rank_changes(torch.tensor([True]), torch.tensor([[2.0, 1.0, 0.5, 0.0]]), best)
    current, points = best, []
    # The slope where both are taken back: the third does more there, the fourth does nothing.
    for slope in ([2, 1, 0.5, 0], *[[1, -1, 2, 0]] * 2, *[[-1, 3, 2, 0]] * 2, [9, 9, 2, 0.1]):
        slopes = torch.tensor([slope], dtype=torch.float32)
        trial, current = Pruning(examples_of(inputs)).moved(trial, best, current, slopes)
        points.append(current[0].tolist())
    assert points == [
        [1.0, 0.0, 0.0, 0.0],  # without the second, which matters least
        [1.0, 0.0, 0.0, 0.0],  # the first as far as it goes
        [0.0, 0.5, 0.0, 0.0],  # without the first
        [0.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],  # without both
        [0.0, 0.0, 1.0, 0.0],
    ]
    for _ in range(2):
        assert not trial.over.any()
        trial, current = Pruning(examples_of(inputs)).moved(trial, best, current, slopes)
    assert trial.over.all()


def test_a_change_without_a_slope_stays_when_the_others_are_pushed():
    inputs, best = torch.full((1, 4), 0.5), torch.tensor([[0.9, 0.2, 0.7, 0.6]])
    trial = Trial.none(inputs, torch.tensor([0]))
    trial = trial.rank_changes(torch.tensor([True]), torch.ones(1, 4), best - inputs)
    pruning = Pruning(examples_of(inputs))
    trial, current = pruning.moved(trial, best, best, torch.ones(1, 4))
    assert current.equal(torch.tensor([[0.9, 0.2, 0.7, 0.5]]))
    _, pushed = pruning.moved(trial, best, current, torch.tensor([[2.0, -2.0, 0.0, 2.0]]))
    assert pushed.equal(torch.tensor([[1.0, 0.0, 0.7, 0.5]]))


@each_attack
def test_every_norm_moves_saturated_inputs_and_returns_failures_unchanged(corners, attack):
    model, inputs, labels = corners
    adversarial = attack(model, inputs, labels)
    assert (model(adversarial).argmax(dim=1) != labels).all()
    assert ((adversarial >= 0) & (adversarial <= 1)).all()
    stuck = attack(Constant(), inputs, torch.zeros_like(labels))
    torch.testing.assert_close(stuck, inputs, rtol=0, atol=0)


@each_attack
def test_an_example_fares_the_same_in_any_batch(tangled, attack):
    generator = torch.Generator().manual_seed(0)
    inputs = 0.3 + 0.4 * torch.rand(5, 12, generator=generator, dtype=torch.float64)
    labels = tangled.decided(inputs)
    together = attack(tangled, inputs, labels, steps=40)
    apart = attack(tangled, inputs.flip(0), labels.flip(0), steps=40, batch_size=2).flip(0)
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("steps", "slope"), [(200, 1), (200, 5), (1000, 10)])
@pytest.mark.parametrize(
    ("attack", "norm"), [(carlini_wagner_l2, 2), (carlini_wagner_linf, math.inf)]
)
def test_a_target_is_reached_between_two_rivals_that_face_each_other(attack, norm, steps, slope):
    """The way to class 2 leads along a ridge, x = 0.5, up to y = 0.9, closed form."""

    def model(points):
        side, height = slope * (points[:, 0] - 0.5), 1 - points[:, 1]
        return torch.stack([height + side, height - side, torch.full_like(side, 0.1)], dim=1)

    inputs = torch.tensor([[0.52, 0.05]], dtype=torch.float64)
    adversarial = attack(model, inputs, torch.tensor([2]), targeted=True, steps=steps)
    assert model(adversarial).argmax(dim=1).tolist() == [2]
    distance = torch.linalg.vector_norm(adversarial - inputs, ord=norm).item()
    nearest = torch.linalg.vector_norm(torch.tensor([0.02, 0.85]), ord=norm).item()
    assert nearest - 1e-6 <= distance < 1.05 * nearest


def humps(points: Tensor) -> Tensor:
    """Class 1 where the coordinates' mean hump around 0.5, flat at 0, is above 0.6."""
    hump = torch.exp(-50 * (points.flatten(1) - 0.5) ** 2).mean(dim=1)
    return torch.stack([torch.full_like(hump, 0.6), hump], dim=1)


@pytest.mark.parametrize("dimension", [16, 64])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(
    ("attack", "norm"), [(carlini_wagner_l2, 2), (carlini_wagner_linf, math.inf)]
)
def test_a_boundary_is_found_where_the_slope_foretells_one_beyond_the_bounds(
    attack, norm, targeted, dimension
):
    generator = torch.Generator().manual_seed(0)
    inputs = 0.1 * torch.rand(8, dimension, generator=generator, dtype=torch.float64)
    labels = torch.full((8,), int(targeted))

    adversarial = attack(humps, inputs, labels, targeted=targeted)

    assert (humps(adversarial).argmax(dim=1) == 1).all()
    # All coordinates at one value: of the points on the boundary not the closest in L2.
    level = 0.5 - math.sqrt(math.log(1 / 0.6) / 50)
    known = torch.linalg.vector_norm(level - inputs, ord=norm, dim=1)
    found = torch.linalg.vector_norm(adversarial - inputs, ord=norm, dim=1)
    assert (found < (1.0 if norm == 2 else 1.03) * known).all()


def test_a_search_fares_the_same_in_any_batch():
    generator = torch.Generator().manual_seed(0)
    inputs = 0.3 * torch.rand(6, 16, generator=generator, dtype=torch.float64)
    labels = torch.zeros(6, dtype=torch.int64)
    together = carlini_wagner_l2(humps, inputs, labels)
    alone = torch.cat([carlini_wagner_l2(humps, each[None], labels[:1]) for each in inputs])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)


def test_a_search_fares_the_same_in_other_units_and_mirrored():
    generator = torch.Generator().manual_seed(0)
    inputs = 0.1 * torch.rand(6, 16, generator=generator, dtype=torch.float64)
    labels = torch.zeros(6, dtype=torch.int64)
    sign = 1 - 2 * (torch.arange(16) % 2)
    found = carlini_wagner_l2(
        lambda points: humps((1 + sign * points) / 2),
        sign * (2 * inputs - 1),
        labels,
        bounds=(-1.0, 1.0),
    )
    expected = carlini_wagner_l2(humps, inputs, labels)
    assert (humps(expected).argmax(dim=1) == 1).all()
    torch.testing.assert_close((1 + sign * found) / 2, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attack", [carlini_wagner_l2, carlini_wagner_linf])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("steps", [100, 200, 333])
def test_an_example_that_nothing_reaches_costs_what_was_asked_for(attack, targeted, steps):
    gradients = []

    def model(points: Tensor) -> Tensor:
        logits = Constant()(points)
        if logits.requires_grad:
            logits.register_hook(gradients.append)
        return logits

    labels = torch.tensor([int(targeted)])
    attack(model, torch.full((1, 16), 0.5), labels, targeted=targeted, steps=steps)
    # Beside the steps one for the last iterate, and some that every attack asks for at first.
    assert 0.9 * steps <= len(gradients) <= steps + 4


class Wandering(NamedTuple):
    """What a step of the descent in linf reads and writes."""

    examples: Examples
    current: Tensor
    mean: Tensor
    boundary_distance: Tensor
    misses: Tensor


def test_while_nothing_is_found_the_limit_grows_to_the_width_of_the_bounds_and_no_further():
    inputs = torch.full((2, 3), 0.25)
    state = Wandering(
        examples_of(inputs), inputs, torch.zeros(2, 3), torch.tensor([0.1, 0.9]), torch.ones(2)
    )
    for _ in range(60):
        delta = state.current - inputs
        state = SignsWithinALimit().moved(state, delta, torch.ones(2, 3), torch.full((2,), 0.5))
    assert state.boundary_distance.tolist() == [1, 1]


# What docs/explanation/attacks.md tells of the default.


def test_steps_are_shared_out_as_the_page_says():
    # 201 iterates are judged: a tenth for each of four classes, then two of them, then one.
    race = [run for run in schedule(200) if not run.search]
    assert [(run.rank, run.length) for run in race[:6]] == [
        (0, 20), (1, 20), (2, 20), (3, 20), (0, 30), (1, 30),
    ]  # fmt: skip
    assert [run.opening for run in race] == [True] * 4 + [False] * 3
    assert sum(run.length for run in race) == 201
    *four, long = (run for run in schedule(200) if run.search)
    # The first eight found nothing, and four runs share what is left; or else one has the rest.
    assert [run.length for run in four] == [48, 48, 48, 49]
    assert long.length == 201 - 8 - four[0].length
    assert [run.last_step for run in four[:3]] == [0.02] * 3
    assert [run.stride for run in (*four, long)] == [1.0, 0, 0, 0, 0]


@pytest.mark.parametrize(("candidates", "least"), [(4, 79), (1, 159)])
def test_in_too_few_steps_there_is_no_search_and_no_race(candidates, least):
    searches = [any(run.search for run in schedule(n, candidates)) for n in (least - 1, least)]
    assert searches == [False, True]
    # A tenth of the iterates is one of 19 and two of 20.
    assert [len(schedule(18, candidates)), len(schedule(19, candidates)) > 1] == [1, True]


def racing(targeted: bool, **more) -> tuple[MultiTargetDescent, DescentState]:
    """The machine at the centre of the unit square, at its start but for some fields."""
    runs = schedule(200, 1 if targeted else 4)
    machine = MultiTargetDescent(AdamInTanhSpace(), runs, confidence=0.0, targeted=targeted)
    return machine, machine.start(examples_of(torch.full((1, 2), 0.5)))._replace(**more)


def test_the_candidates_are_all_rivals_and_the_three_likeliest_at_a_tenth_of_the_margin():
    machine, state = racing(False)
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.5, 2.0, 0.0]])
    state = machine.init_candidates(logits, state)
    assert state.targets.tolist() == [[0, 2, 3, 4]]
    assert state.temperature.item() == pytest.approx(0.2, rel=1e-3)
    later = machine.init_candidates(2 * logits, state._replace(step=torch.tensor([1])))
    assert later.temperature.item() == pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize(
    ("step", "smooth"), [(0, False), (15, False), (16, True), (31, True), (32, False)]
)
def test_towards_a_target_the_largest_rival_and_all_together_take_turns_of_sixteen(step, smooth):
    machine, state = racing(True, step=torch.tensor([step]), temperature=torch.tensor([0.5]))
    state = state._replace(targets=torch.tensor([[0, -1, -1, -1]]))
    logits, labels = torch.tensor([[1.0, 2.0, 1.8]]), torch.tensor([0])
    together = 0.5 * math.log(math.exp(2.0 / 0.5) + math.exp(1.8 / 0.5))
    expected = 1.0 - (together if smooth else 2.0)
    assert machine.logit_gap(logits, labels, state).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("step", "share", "vain"),
    [(8, 0.0101, True), (8, 0.0099, False), (7, 0.5, False), (9, 0.5, False)],
)
def test_a_first_run_is_in_vain_after_eight_steps_if_the_slope_foretells_a_boundary_far_away(
    step, share, vain
):
    # The farthest point of the unit square is a corner.
    foretold = torch.tensor([share * math.sqrt(0.5)])
    machine, state = racing(False, step=torch.tensor([step]), boundary_distance=foretold)
    assert machine.in_vain(state).item() is vain


def test_exact_zeros_and_ones_lie_where_tanh_still_has_a_slope():
    ends = AdamInTanhSpace().enter(
        examples_of(torch.tensor([[0.0, 0.5, 1.0]])), torch.tensor([[0.0, 0.5, 1.0]])
    )
    torch.testing.assert_close(ends, torch.tensor([[-0.7, 0.0, 0.7]]))


def test_l0_descends_for_three_fifths_of_the_steps_from_sigma_zeros_threshold():
    machine = SparseDescent(steps=200, confidence=0.0, targeted=False)
    assert machine.descent == 120
    # Cina et al. (2025), algorithm 1: the threshold of 0.3, and a smoothness of 0.001.
    inputs = torch.full((1, 2), 0.25, dtype=torch.float64)
    state = machine.start(examples_of(inputs))
    assert state.threshold.tolist() == [0.3]
    delta = torch.tensor([[0.5, 0.1]], dtype=torch.float64)
    slopes = 2 * delta * 1e-3 / (delta**2 + 1e-3) ** 2
    slopes = slopes / slopes.max()
    state = state._replace(step=torch.tensor([1]))
    moved = machine.descended(state, delta, torch.zeros_like(delta), torch.tensor([True]))
    # Adam's decays are 0.7, as the page of the attacks says, and 0.999.
    torch.testing.assert_close(moved.mean, 0.3 * slopes)
    torch.testing.assert_close(moved.square, 0.001 * slopes**2)
