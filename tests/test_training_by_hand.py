"""The parts of training and of its estimators, each against a figure by hand or a second route."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from distillguard._data import Spec
from distillguard._data._batch import Batch
from distillguard._data._sources import TensorSource
from distillguard.adaptive._surrogate import _Lesson, _towards_boundaries
from distillguard.estimators._adversary import Adversary, AttackSettings
from distillguard.estimators._calibration import calibrate_offset, joint_thresholds
from distillguard.estimators._classifier import joined
from distillguard.estimators._extended import Doubts, logit_variance, moved_to_outliers
from distillguard.estimators._logits import filled
from distillguard.estimators._recipes import decayed_sgd
from distillguard.estimators._robust_objectives import ADVERSARIAL, DISTILLATION, Outputs
from distillguard.estimators._run import _held_out, _weighted, held_out, training_data
from distillguard.exceptions import DivergenceError
from distillguard.networks import Rejecting
from distillguard.training import Ascent, Plan, attack_mode, perturbed, train
from distillguard.training._asked import Asked
from distillguard.training._fabric import ExistingGroup
from distillguard.training._layout import stands_channels_last, wants_channels_last
from distillguard.training._loop import (
    BatchLosses,
    Stopping,
    _finite,
    _seed,
    _told_of_single_examples,
    _Totals,
)
from distillguard.training._optimisers import make_optimizer, make_scheduler
from distillguard.training._runtime import Runtime, native_bfloat16
from distillguard.training._scaled_head import find_head

# The loop.


def stops(values, patience, by="loss"):
    """After which epoch training stops, and the figure of the weights that are kept."""
    network, stopping = nn.Linear(1, 1), Stopping(patience, by)
    seen = []
    for value in values:
        seen.append(value)
        nn.init.constant_(network.weight, value)
        if stopping.should_stop({f"validation_{by}": value}, network):
            break
    return len(seen), stopping.weights["weight"].item()


@pytest.mark.parametrize(
    ("values", "patience", "by", "expected"),
    [
        ([3.0, 2.0, 2.0, 1.0, 0.5], 1, "loss", (3, 2.0)),
        ([3.0, 2.0, 2.0, 1.0, 4.0, 5.0, 0.5], 2, "loss", (6, 1.0)),
        ([0.5, 0.75, 0.25, 0.75, 1.0], 2, "accuracy", (4, 0.75)),
        ([0.5, 0.25, 0.75, 0.25, 0.5], 2, "accuracy", (5, 0.75)),
    ],
)
def test_training_stops_after_so_many_epochs_in_a_row_without_a_better_one(
    values, patience, by, expected
):
    assert stops(values, patience, by) == expected


def test_every_epoch_of_every_stage_and_seed_has_a_seed_of_its_own_whatever_half_is_used():
    names = [(s, stage, n) for s in range(5) for stage in ("teacher", "student") for n in range(20)]
    seeds = [_seed(*name) for name in names]
    assert len({seed % 2**32 for seed in seeds}) == len({seed >> 32 for seed in seeds}) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 0.9 * 2**63
    assert len({seed % 2 for seed in seeds}) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_enough_for_divergence(value):
    network = nn.BatchNorm1d(3)
    assert _finite(1.0, network)
    assert not _finite(value, network)
    for tensor in (network.weight.data, network.running_var):
        tensor[1] = value
        assert not _finite(1.0, network)
        tensor[1] = 1.0


class Alone:
    """A runtime of one process."""

    processes = SimpleNamespace(all_reduce_sum=lambda tensor: tensor, rank=0, count=1, first=True)


def test_an_epochs_figures_are_means_over_examples_and_those_without_weight_are_not_seen():
    totals, labels = _Totals(Alone), torch.tensor([0, 1])
    logits = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    totals.add(BatchLosses(torch.tensor([1.0, 2.0]), logits, 1 - logits), labels, 0.5)
    totals.add(BatchLosses(torch.tensor([6.0]), logits[:1], logits[:1]), labels[:1], 0.5)
    totals.add(BatchLosses(torch.tensor([99.0]), logits[:1], logits[:1]), labels[:1], 0.0)
    assert totals.means() == {"loss": 3.0, "accuracy": 2 / 3, "robust_accuracy": 2 / 3}
    totals = _Totals(Alone)
    totals.add(BatchLosses(torch.tensor([1.0]), None), labels[:1], 1.0)
    assert totals.means() == {"loss": 1.0}


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("divided", [False, True])
def test_the_average_over_processes_is_the_mean_over_the_whole_batch(n, count, divided):
    values = torch.arange(1.0, n + 1) ** 2
    batch = Batch(values, torch.arange(n), torch.arange(n) + 10, 2 * values, 0.25)
    means, seen = [], []
    for rank in range(count):
        runtime = SimpleNamespace(processes=SimpleNamespace(rank=rank, count=count))
        part, weight = Runtime.shard(runtime, batch, divided)
        means.append((part.inputs * weight).sum().item())
        assert (part.indices - 10).equal(part.labels)
        assert part.weights.equal(2 * part.inputs)
        assert part.progress == 0.25
        assert len(part.labels) > 0
        if weight:
            seen += part.labels.tolist()
    if divided:
        assert means == pytest.approx([values.mean().item()] * count)
    else:
        assert sum(means) / count == pytest.approx(values.mean().item())
        assert sorted(seen) == list(range(n))


@pytest.mark.parametrize(("rank", "expected"), [(0, (0, 0)), (1, (1, 0)), (2, (0, 1)), (5, (1, 2))])
def test_a_process_knows_its_place_in_its_machine_and_its_machine(rank, expected):
    group = ExistingGroup(SimpleNamespace(rank=rank, count=6), per_node=2)
    assert (group.local_rank(), group.node_rank()) == expected
    assert (group.global_rank(), group.world_size()) == (rank, 6)


# What a network says in training.


def test_of_several_outputs_the_one_called_logits_is_trained_or_else_the_first_of_its_shape():
    inputs, good, other = torch.ones(2, 3), torch.zeros(2, 4), torch.ones(2, 4)
    asked = Asked(lambda x: {"aux": other, "logits": good}, 4, "module")
    with pytest.warns(UserWarning, match="'logits' of it is trained"):
        assert asked(inputs).equal(good)
    assert asked(inputs).equal(good)  # told once
    asked = Asked(lambda x: (torch.ones(2, 5), good, other), 4, "module")
    with pytest.warns(UserWarning, match="1 of it is trained"):
        assert asked(inputs).equal(good)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(2, 5), "one logit for each of the 4 classes .* got 5"),
        (torch.zeros(3, 4), "module must return"),
        (torch.zeros(2, 4, dtype=torch.int64), "module must return"),
    ],
)
def test_what_is_not_one_logit_for_each_class_is_refused_in_training(output, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Asked(lambda x: output, 4, "module")(torch.ones(2, 3))


def test_a_network_in_training_is_given_a_copy_and_its_buffer_is_copied():
    buffer, inputs = torch.zeros(2, 2), torch.ones(2, 2)
    asked = Asked(lambda x: buffer.copy_(x.mul_(2)), 2, "module")
    first = asked(inputs)
    buffer.zero_()
    assert inputs.eq(1).all()
    assert first.eq(2).all()


# The inner attack.


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize("bounds", [(-9.0, 9.0), (-0.1, 0.05)])
def test_ascent_along_a_line_goes_so_many_steps_from_its_start_as_far_as_ball_and_bounds(
    steps, bounds
):
    slopes, inputs = torch.tensor([1.0, -2.0, 0.5]), torch.zeros(50, 3)
    torch.manual_seed(0)
    start = Ascent("linf", 0.2, 0, 0.03, bounds)(inputs, lambda points: points @ slopes)
    torch.manual_seed(0)
    found = Ascent("linf", 0.2, steps, 0.03, bounds)(inputs, lambda points: points @ slopes)
    low, high = max(bounds[0], -0.2), min(bounds[1], 0.2)
    assert start.amin() >= low
    assert start.amax() <= high
    expected = (start + 0.03 * steps * slopes.sign()).clamp(low, high)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_ascent_starts_anywhere_in_the_ball_and_elsewhere_for_every_example():
    starts = Ascent("linf", 0.5, 0, 0.1, (-9.0, 9.0))(torch.ones(400, 5), None) - 1
    assert starts.abs().max() > 0.49
    assert starts.mean().abs() < 4 * 0.5 / math.sqrt(3 * 2000)
    assert starts.square().mean().item() == pytest.approx(0.25 / 3, rel=0.1)
    assert len(starts.unique(dim=0)) == 400


def test_ascent_in_l2_goes_along_the_gradient_of_each_example_alone():
    inputs, slopes = torch.zeros(2, 2), torch.tensor([[3.0, 4.0], [-1.0, 0.0]])
    found = Ascent("l2", 2.0, 40, 0.5, (-9.0, 9.0))(inputs, lambda x: (x * slopes).sum(1))
    expected = 2 * slopes / slopes.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("broken", [False, True])
def test_attacks_leave_modes_and_running_statistics_as_they_were(batch_statistics, broken):
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    network.train()[2].eval()
    network.add_module("still", nn.BatchNorm1d(3, track_running_stats=False))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inputs = torch.randn(8, 2)
    try:
        with attack_mode(network, batch_statistics):
            assert network[1].training is batch_statistics
            inside = network[:2](inputs)
            if broken:
                raise KeyError
    except KeyError:
        assert broken
    modes = [part.training for part in network]
    assert modes == [True, True, False, True]
    assert network[1].track_running_stats
    assert not network.still.track_running_stats
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    hidden = network[0](inputs)
    if batch_statistics:
        hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    else:
        hidden = hidden / math.sqrt(1 + 1e-5)
    torch.testing.assert_close(inside, hidden)


def test_weights_move_along_their_gradients_by_a_share_of_their_own_norms():
    network = nn.Sequential(nn.Linear(2, 2, bias=True), nn.Linear(2, 1))
    network[1].weight.requires_grad_(False)
    inputs = torch.tensor([[1.0, 2.0]])
    weight, bias = network[0].weight.detach().clone(), network[0].bias.detach().clone()
    moved = perturbed(network, network, lambda each: 7 * each(inputs).sum(), 0.25)
    # The gradient is the outer product of the second layer's weights and the input.
    gradient = network[1].weight.detach().T @ inputs
    weight = weight + 0.25 * weight.norm() * gradient / gradient.norm()
    expected = network[1]((inputs @ weight.T) + bias)
    torch.testing.assert_close(moved(inputs), expected)
    assert not torch.allclose(network(inputs), expected)


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ([nn.Conv2d(1, 2, 3)], True),
        ([nn.Linear(3, 2)], False),
        ([nn.Conv1d(1, 2, 3)], False),
        ([nn.Conv2d(1, 2, 3), nn.Conv3d(1, 2, 3)], False),
    ],
)
def test_channels_last_is_for_two_dimensional_convolutions_alone(layers, wanted):
    assert wants_channels_last(nn.Sequential(*layers)) is wanted


class InMemory(nn.Module):
    """Asks how the numbers of a convolution lie: by how much its answer is another then."""

    def __init__(self, wrong, mode):
        super().__init__()
        self.convolution, self.wrong, self.mode = nn.Conv2d(2, 3, 3), wrong, mode

    def forward(self, inputs):
        logits = self.convolution(inputs)
        turned = self.convolution.weight.is_contiguous(memory_format=torch.channels_last)
        if turned and self.mode in (None, self.training):
            if self.wrong is None:
                raise RuntimeError("view size is not compatible")
            return logits.amax((2, 3)) * (1 + self.wrong)
        return logits.amax((2, 3))


@pytest.mark.parametrize(
    ("wrong", "mode", "stands"),
    [
        (0.0, None, True),
        (0.009, False, True),
        (0.011, False, False),
        (-0.011, False, False),
        (None, False, False),
        (None, True, False),
    ],
)
@pytest.mark.parametrize("n", [1, 2])
def test_a_network_stands_a_layout_in_which_it_computes_the_same_to_a_hundredth(
    wrong, mode, stands, n
):
    torch.manual_seed(0)
    network = InMemory(wrong, mode).train()
    assert stands_channels_last(network, torch.rand(n, 2, 5, 5)) is stands
    assert network.training
    assert network.convolution.weight.is_contiguous()
    assert network.convolution.weight.grad is None


# Optimisers and the head.


@pytest.mark.parametrize("total", [1, 2, 10, 39, 60, 61, 400])
def test_a_warm_up_is_short_whatever_the_number_of_steps_and_ends_at_the_highest_rate(total):
    optimizer = make_optimizer("sgd", nn.Linear(1, 1).parameters(), 0.5)
    schedule = make_scheduler("warmup_cosine", optimizer, total)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[0]["momentum"] == 0.9
        optimizer.step()
        schedule.step() if len(rates) < total else None
    if total < 3:
        assert rates == [0.5] * total
        return
    top = rates.index(max(rates))
    assert top <= math.ceil(max(total / 40, 1))
    assert max(rates) > 0.9 * 0.5
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 1e-4


def test_the_recipes_sgd_decays_matrices_and_neither_biases_nor_norms():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    found = decayed_sgd(network.parameters(), 0.1)
    decays = {id(p): g["weight_decay"] for g in found.param_groups for p in g["params"]}
    assert decays == {id(p): 5e-4 if p.ndim > 1 else 0.0 for p in network.parameters()}
    for group in found.param_groups:
        assert (group["lr"], group["momentum"], group["nesterov"]) == (0.1, 0.9, True)
    assert len(decayed_sgd(nn.Linear(2, 2, bias=False).parameters(), 0.1).param_groups) == 1


class AlmostLinear(nn.Module):
    """A head whose logits bend, by so much of themselves at a factor of 1.5 or only far away."""

    def __init__(self, bend, where):
        super().__init__()
        self.head, self.bend, self.where = nn.Linear(3, 2), bend, where

    def forward(self, inputs):
        logits = self.head(inputs)
        return logits * (1 + self.bend * (logits.detach().abs().max() > self.where))


@pytest.mark.parametrize(
    ("bend", "where", "found"), [(0.0, 0, True), (0.01, 20, False), (1e-4, 20, True)]
)
def test_a_head_scales_the_logits_near_and_far_to_a_thousandth(bend, where, found):
    torch.manual_seed(0)
    network = AlmostLinear(bend, where)
    inputs = torch.rand(2, 3)
    before = [each.detach().clone() for each in network.parameters()]
    assert (find_head(network, inputs) is network.head) is found
    assert all(p.equal(b) for p, b in zip(network.parameters(), before, strict=True))


# What is held out, and what counts.


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([60, 30, 10], 10, [6, 3, 1]),
        ([60, 30, 10, 1], 10, [6, 3, 1, 0]),
        ([5, 5], 0, [0, 0]),
        ([2, 2, 1], 9, [2, 2, 0]),
        ([1, 1], 1, [0, 0]),
        ([50, 50], 1, [0, 1]),
    ],
)
def test_every_class_gives_its_share_of_what_is_held_out(sizes, count, expected):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    torch.manual_seed(0)
    labels = labels[torch.randperm(len(labels))]
    first, second = held_out(labels, count), held_out(labels, count)
    assert labels[first].bincount(minlength=len(sizes)).tolist() == expected
    if 0 < sum(expected) < sum(sizes) - 1:
        assert not first.equal(second)


@pytest.mark.parametrize(
    ("n", "fraction", "held"), [(10, 0.04, 1), (10, 0.26, 3), (10, 0.94, 9), (20, 0.3, 6)]
)
def test_a_fraction_of_the_examples_is_held_out_and_one_at_least(n, fraction, held):
    source = TensorSource(torch.arange(n)[:, None].float(), torch.arange(n) % 2, 4)
    rest, few = _held_out(source, SimpleNamespace(validation_fraction=fraction))
    assert (rest.n_examples, few.n_examples) == (n - held, held)
    batches = [batch for each in (rest, few) for batch in each.in_order()]
    assert sorted(torch.cat([batch.inputs for batch in batches])[:, 0].tolist()) == [*range(n)]
    with pytest.raises(ValueError, match="must leave examples to train on"):
        _held_out(source, SimpleNamespace(validation_fraction=0.99))


@pytest.mark.parametrize(
    ("sample_weight", "class_weight", "expected"),
    [
        ([1.0, 2, 3, 2], None, [0.5, 1, 1.5, 1]),
        # Those of weight 0 are left out, also of the mean that is 1.
        ([0.0, 2, 4, 0], None, [2 / 3, 4 / 3]),
        (None, {"a": 1.0, "b": 3.0}, [2 / 3, 2 / 3, 2 / 3, 2]),
        # n / (classes * count): 2 / 3 and 2, which have the mean 1.
        (None, "balanced", [2 / 3, 2 / 3, 2 / 3, 2]),
        ([1.0, 1, 2, 2], {"a": 2.0, "b": 1.0}, [0.8, 0.8, 1.6, 0.8]),
        (None, {"a": 1.0, "b": 0.0}, [1, 1, 1]),
    ],
)
def test_weights_of_examples_and_classes_are_multiplied_to_a_mean_of_1(
    sample_weight, class_weight, expected
):
    source = TensorSource(torch.zeros(4, 1), torch.tensor([0, 0, 0, 1]), 4)
    (batch,) = _weighted(source, sample_weight, class_weight, ["a", "b"]).in_order()
    assert batch.weights.tolist() == pytest.approx(expected)
    assert _weighted(source, None, None, ["a", "b"]) is source


@pytest.mark.parametrize("stopping", [False, True])
@pytest.mark.parametrize("aside", [False, True])
def test_examples_are_kept_from_training_for_what_needs_them(stopping, aside):
    estimator = SimpleNamespace(_keeps_aside=lambda: aside, _EXTRA_COLUMNS={}, module=None)
    settings = SimpleNamespace(
        batch_size=4, class_weight=None, early_stopping=stopping, validation_fraction=0.1
    )
    X, y = torch.zeros(20, 3), torch.tensor([0, 1] * 10)
    data = training_data(estimator, X, y, None, None, settings, 0)
    if stopping or aside:
        assert (data.source.n_examples, data.validation.n_examples) == (18, 2)
    else:
        assert data.source.n_examples == 20
        assert data.validation is None
    assert (data.spec.shape, list(data.spec.classes)) == ((3,), [0, 1])


# Radii and bounds.


def attack_settings(**more):
    settings = {
        "epsilon": 0.1, "norm": "linf", "steps": 1, "step_size": None, "bounds": None,
        "attack": None, "batch_statistics": False, "weight_perturbation": 0.0,
        "label_smoothing": 0.0, "extra_fraction": 0.5,
    }  # fmt: skip
    return AttackSettings.of(settings | more)


def adversary(low, high, validation=None, **more):
    def source(*values):
        return TensorSource(torch.tensor(values)[:, None], torch.zeros(len(values)).long(), 2)

    held = None if validation is None else source(*validation)
    run = SimpleNamespace(source=source(low, high), validation=held, input_shape=(1,), runtime=None)
    return attack_settings(**more).adversary(run).ascent


def test_a_step_is_a_quarter_of_the_radius_and_bounds_are_the_range_of_all_data():
    ascent = adversary(0.25, 0.75, epsilon=0.2)
    assert (ascent.step_size, ascent.bounds) == (0.2 / 4, (0.25, 0.75))
    assert adversary(0.25, 0.75, (-1.0, 0.5)).bounds == (-1.0, 0.75)
    assert adversary(0.25, 0.75, (0.5, 2.0)).bounds == (0.25, 2.0)
    ascent = adversary(0.25, 0.75, bounds=(0, 1), step_size=0.3, epsilon=0.2)
    assert (ascent.step_size, ascent.bounds, ascent.epsilon) == (0.3, (0.0, 1.0), 0.2)


@pytest.mark.parametrize(
    ("low", "high", "more", "refused"),
    [
        (0.0, 100.0, {"epsilon": 0.49}, True),
        (0.0, 100.0, {"epsilon": 0.5}, False),
        (0.0, 99.0, {"epsilon": 0.49}, False),
        (1.0, 100.0, {"epsilon": 0.49}, False),
        (0.0, 100.0, {"epsilon": 0.49, "norm": "l2"}, False),
        (0.0, 100.0, {"epsilon": 0.49, "bounds": (0.0, 100.0)}, False),
        (-2.0, 2.0, {"epsilon": 3.9e-4}, True),
        (-2.0, 2.0, {"epsilon": 4.1e-4}, False),
    ],
)
def test_a_radius_far_below_the_steps_of_the_data_is_refused_where_nobody_gave_bounds(
    low, high, more, refused
):
    if refused:
        with pytest.raises(ValueError, match="epsilon must be in the units of X"):
            adversary(low, high, **more)
    else:
        assert adversary(low, high, **more).epsilon == more["epsilon"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"extra_fraction": 0.0}, "extra_fraction must be above 0 and below 1"),
        ({"extra_fraction": 1.0}, "extra_fraction must be above 0 and below 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"step_size": 0.0}, "step_size must be a finite number above 0"),
        ({"weight_perturbation": -1.0}, "weight_perturbation must be"),
        ({"label_smoothing": 1.5}, "label_smoothing must be"),
        ({"epsilon": 0.0}, "epsilon must be"),
    ],
)
def test_what_no_attack_in_training_could_use_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        attack_settings(**more)


@pytest.mark.parametrize("bound", [torch.zeros(3), np.zeros((2, 2))])
def test_bounds_in_training_are_two_numbers(bound):
    with pytest.raises(TypeError, match="bounds must be two numbers for training"):
        attack_settings(bounds=(bound, bound + 1))
    attack_settings(bounds=(torch.zeros(1), torch.ones(())))


# What the objectives have from their papers.


def test_methods_begin_with_the_numbers_of_their_papers():
    numbers = {name: row.defaults for name, row in (ADVERSARIAL | DISTILLATION).items()}
    assert numbers == {
        "trades": {"beta": 6.0},  # Zhang et al. 2019
        "pgd": {"beta": 0.0},  # no such term
        "mart": {"beta": 5.0},  # Wang et al. 2020
        "rslad": {"alpha": 5 / 6},  # Zi et al. 2021
        "ard": {"alpha": 1.0, "temperature": 30.0},  # Goldblum et al. 2020
        "iad": {"beta": 0.1},  # Zhu et al. 2022
        "adaad": {"alpha": 1.0},  # Huang et al. 2023
        "igdm_rslad": {"alpha": 5 / 6, "beta": 1.0},  # Lee et al. 2025
        "igdm_adaad": {"alpha": 1.0, "beta": 1.0},
    }


def test_the_opposite_of_an_adversarial_input_is_as_far_on_the_other_side():
    inputs, points = torch.tensor([[1.0, 5.0]]), torch.tensor([[1.5, 4.0]])
    batch = Batch(inputs, torch.tensor([0]))
    teacher = SimpleNamespace(compute=lambda points: 10 * points)
    outputs = Outputs(lambda points: points, batch, points, teacher)
    assert outputs.opposite.tolist() == [[0.5, 6.0]]
    assert outputs.teacher_opposite.tolist() == [[5.0, 60.0]]
    assert (outputs.clean.tolist(), outputs.adversarial.tolist()) == ([[1, 5]], [[1.5, 4]])


# Rejection.


@pytest.mark.parametrize(
    ("n", "rate", "place"), [(9, 0.1, 9), (9, 0.2, 8), (9, 0.05, 9), (19, 0.05, 19), (39, 0.05, 38)]
)
def test_one_detectors_threshold_is_the_quantile_corrected_for_a_finite_sample(n, rate, place):
    scores = torch.arange(1.0, n + 1)[torch.randperm(n)][:, None]
    assert joint_thresholds(scores, rate).tolist() == [place]


def test_joint_thresholds_are_the_lowest_common_level_at_which_few_enough_alarm():
    random = np.random.default_rng(0)
    for _ in range(20):
        scores = random.integers(0, 12, (30, 3)) * [1.0, 10.0, -1.0]
        rate, ordered = random.choice([0.1, 0.2, 0.5]), np.sort(scores, axis=0)
        # Of 31 with the next one, at most a share of rate may alarm, and the next one does.
        allowed = math.floor(rate * 31 + 1e-9) - 1 if rate * 31 >= 1 else 0
        levels = (
            level for level in ordered if (scores > level).any(axis=1).sum() <= max(allowed, 0)
        )
        expected = next(levels)
        found = joint_thresholds(torch.from_numpy(scores), float(rate)).numpy()
        assert found.tolist() == expected.tolist()


def rejecting(leads):
    """A network of two classes that rejects as far as an input's only number says."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.zero = nn.Parameter(torch.zeros(()))

        def forward(self, inputs):
            flat = 0 * inputs + self.zero
            return torch.cat([flat, flat - 1, inputs], dim=1)

    return Rejecting(Network()), torch.tensor(leads)[:, None]


def test_without_a_rate_the_offset_is_0_and_all_examples_are_counted():
    network, inputs = rejecting([-1.0, 0.0, 1.0, 2.0, -3.0])
    network.offset.fill_(-7)
    assert calibrate_offset(network, [inputs[:2], inputs[2:]], None, 0) == (2, 5)
    assert network.offset == 0


def test_one_half_sets_the_offset_and_the_other_is_counted():
    network, inputs = rejecting(list(np.arange(1.0, 40)))
    alarms, shown = calibrate_offset(network, [inputs], 0.25, 3)
    assert shown == 19  # the odd one sets the offset
    # The permitted rank of 20 is the 16th: ceil(0.75 * 21).
    order = torch.randperm(39, generator=torch.Generator().manual_seed(3))
    threshold = inputs[order[:20], 0].sort().values[15].item()
    assert -network.offset.item() == pytest.approx(threshold, rel=1e-4)
    assert -network.offset.item() > threshold
    assert alarms == (inputs[order[20:], 0] > threshold).sum()
    # Nothing is made to reject more than it does.
    network, inputs = rejecting([-5.0] * 40)
    assert calibrate_offset(network, [inputs], 0.25, 3) == (0, 20)
    assert network.offset == 0


def test_mass_that_moves_to_outliers_leaves_the_label():
    found = moved_to_outliers(torch.tensor([0, 1]), torch.tensor([0.25, 1.0]), 3)
    assert found.tolist() == [[0.75, 0, 0.25], [0, 0, 1]]


def test_doubt_is_the_variance_of_logits_in_units_of_the_least_sure_example():
    # One number that is dropped half of the time, or else doubled, moves one logit: its variance
    # is the square of the number.
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 2)).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0], [0.0]]))
    inputs = torch.tensor([[3.0], [1.0], [0.0], [2.0]])
    found = logit_variance(network, inputs, 2000)
    assert found.tolist() == pytest.approx([9, 1, 0, 4], rel=0.15)
    assert not network[0].training
    runtime = SimpleNamespace(fabric=SimpleNamespace(autocast=torch.no_grad))
    source = TensorSource(inputs[:2], torch.tensor([0, 1]), 2)
    doubts = Doubts(network, source, runtime, 2000)
    known = Batch(inputs[:1], torch.tensor([0]), torch.tensor([1]))
    assert doubts(known).item() == pytest.approx(1 / 9, rel=0.2)
    # Of examples that are known by no number the teacher is asked, and none counts above 1.
    assert doubts(Batch(5 * inputs[1:3], torch.tensor([0, 0]))).tolist() == pytest.approx([1, 0])


def test_rows_are_filled_with_zeros_up_to_a_size_and_never_cut():
    rows = torch.ones(2, 3)
    assert filled(rows, 4).tolist() == [[1.0] * 3] * 2 + [[0.0] * 3] * 2
    assert filled(rows, 2) is rows
    assert len(filled(rows, 1)) == 2


@pytest.mark.parametrize("n", [None, 6])
def test_parts_are_joined_in_order_whatever_their_sizes(n):
    parts = list(torch.arange(12.0).reshape(6, 2).split([1, 2, 0, 2, 1]))
    found = joined(iter(parts), n)
    assert found.tolist() == np.arange(12.0).reshape(6, 2).tolist()
    assert found.dtype == np.float32
    assert found.base is None


# A student to lend its gradient.


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        # The median range of the first answers is 40: they are divided by 4.
        ([10.0, 40.0, 400.0], [2.5, 10, 100]),
        # A range that a softmax keeps apart stays.
        ([1.0, 9.0, 20.0], [1, 9, 20]),
        ([0.1, 0.11, 0.12], [0.1, 0.11, 0.12]),
        # Where all are small, each is taken to a range of 10, and nothing stays nothing.
        ([0.01, 0.09, 0.0], [10, 10, 0]),
    ],
)
def test_logits_are_taught_in_units_of_their_usual_range(ranges, expected):
    logits = torch.tensor(ranges)[:, None] * torch.tensor([0.0, 1.0])
    lesson = _Lesson(lambda inputs: inputs, 0)
    lesson.ask(logits)
    found = lesson.in_units(logits)
    assert (found[:, 1] - found[:, 0]).tolist() == pytest.approx(expected)
    # The unit is that of the first answers.
    lesson.ask(1000 * logits)
    assert lesson.in_units(logits).equal(found)
    assert lesson.points.equal(torch.cat([logits, 1000 * logits]))
    assert lesson.account.forwards == 6


def test_a_step_towards_boundaries_is_up_the_slope_of_what_the_model_says():
    student = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        student.weight.copy_(torch.tensor([[1.0, -2.0], [-3.0, 0.5]]))
    points = torch.zeros(600, 2)
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(300, 1)
    found = _towards_boundaries(student, points, logits, 0.25)
    assert found[0].tolist() == [0.25, -0.25]
    assert found[1].tolist() == [-0.25, 0.25]
    assert found.equal(found[:2].repeat(300, 1))


def test_the_spec_of_training_data_is_that_of_the_classes_by_name():
    assert Spec(np.array(["a", "b"])).encode(np.array(["b", "a"])).tolist() == [1, 0]


# A whole stage of the loop, whose only weight is followed by hand.


class One(nn.Module):
    """Logits (w x, 0)."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))

    def forward(self, inputs):
        return torch.cat([self.w * inputs, 0 * inputs], dim=1)


class Watcher:
    """An objective and a callback that note how they are called."""

    def __init__(self, scale=1.0, stop_at=None):
        self.scale, self.stop_at, self.batches, self.seen = scale, stop_at, [], []

    def __call__(self, network, batch):
        self.batches.append((network.training, torch.is_grad_enabled(), batch))
        logits = network(batch.inputs)
        return BatchLosses(self.scale * logits[:, 0], logits)

    def on_epoch(self, record, network):
        self.network = network
        self.seen.append((network.training, network.w.item(), dict(record)))
        return record["epoch"] == self.stop_at


INPUTS = [1.0, 2.0, 3.0, 6.0]


def stage(watcher, *, weights=None, validate=False, **more):
    """Train the weight by SGD at a rate of 0.1; return the network, the history and the rate."""
    weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    source = TensorSource(torch.tensor(INPUTS)[:, None], torch.zeros(4).long(), 2, 0, None, weights)
    held = TensorSource(torch.tensor([[-5.0], [7.0]]), torch.tensor([0, 0]), 1)
    settings = {"stage": "network", "source": source, "objective": watcher, "max_epochs": 1}
    settings |= {"validation": held if validate else None, "callbacks": [watcher]}
    network = One()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5) if more.pop("halve", 0) else None
    plan = Plan(**settings | more)
    return network, train(network, optimizer, schedule, plan, Runtime("cpu", "32-true"))


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 0.5]])
def test_a_step_is_the_rate_times_the_mean_gradient_of_the_weighted_losses(weights):
    watcher = Watcher()
    network, (record,) = stage(watcher, weights=weights)
    weighted = np.multiply(INPUTS, 1 if weights is None else weights)
    assert network.w.item() == pytest.approx(2 - 0.1 * weighted.sum() / 2)
    # The loss of each batch is that before its step.
    first, second = (INPUTS.index(b.inputs[0].item()) for _, _, b in watcher.batches)
    parts = [weighted[[INPUTS.index(x) for x in b.inputs[:, 0].tolist()]].sum()
             for _, _, b in watcher.batches]  # fmt: skip
    assert first != second
    expected = (2 * parts[0] + (2 - 0.1 * parts[0] / 2) * parts[1]) / 4
    assert record["loss"] == pytest.approx(expected)
    assert record["accuracy"] == 1
    assert (record["stage"], record["epoch"], record["learning_rate"]) == ("network", 1, 0.1)
    assert 0 < record["seconds"] < 60
    assert not network.training


def test_gradients_are_forgotten_between_steps_clipped_and_followed_by_the_schedule():
    # Every gradient is longer than 0.5, and the rate halves after every batch.
    network, history = stage(Watcher(), gradient_clip=0.5, halve=True, max_epochs=2)
    assert network.w.item() == pytest.approx(2 - 0.5 * (0.1 + 0.05 + 0.025 + 0.0125), rel=1e-5)
    assert [each["learning_rate"] for each in history] == pytest.approx([0.025, 0.00625])


def test_validation_is_in_eval_mode_without_gradients_on_other_examples():
    watcher = Watcher()
    network, history = stage(watcher, validate=True, max_epochs=2)
    trained = [each for each in watcher.batches if each[0]]
    looked = [each for each in watcher.batches if not each[0]]
    assert (len(trained), len(looked)) == (4, 2)
    assert all(grad for _, grad, _ in trained)
    assert not any(grad for _, grad, _ in looked)
    assert all(batch.indices is not None for *_, batch in trained)
    assert all(batch.indices is None for *_, batch in looked)
    assert [batch.progress for *_, batch in trained] == [0.5, 0.5, 1, 1]
    assert history[1]["validation_loss"] == pytest.approx(network.w.item() * 1)
    assert history[1]["validation_accuracy"] == 0.5
    assert [training for training, *_ in watcher.seen] == [False, False]


@pytest.mark.parametrize("stop_at", [1, 2, None])
def test_a_stage_ends_after_its_epochs_or_where_one_callback_says_so_and_all_are_asked(stop_at):
    watcher, other = Watcher(stop_at=stop_at), Watcher()
    _, history = stage(watcher, callbacks=[watcher, other], max_epochs=3)
    assert len(history) == len(other.seen) == (3 if stop_at is None else stop_at)


def test_the_averaged_weights_are_what_callbacks_see_and_what_is_left():
    watcher = Watcher()
    network, _ = stage(watcher, weight_averaging=0.9, max_epochs=2)
    # The steps are -0.1 times the mean input of a batch; the decays 1/10, 2/11, 3/12, 4/13.
    live = average = 2.0
    averages = []
    for number, (_, _, batch) in enumerate(watcher.batches):
        live -= 0.1 * batch.inputs.mean().item()
        decay = (1 + number) / (10 + number)
        average = decay * average + (1 - decay) * live
        averages.append(average)
    assert [w for _, w, _ in watcher.seen] == pytest.approx([averages[1], averages[3]])
    assert network.w.item() == pytest.approx(averages[3])


def test_early_stopping_leaves_the_weights_of_the_best_epoch():
    # The held-out loss is w times the mean of -5 and 7: it falls with w, and rises against it.
    watcher = Watcher(-1.0)
    network, history = stage(watcher, validate=True, stopping=Stopping(3), max_epochs=9)
    losses = [each["validation_loss"] for each in history]
    assert losses == sorted(losses, reverse=True)
    assert len(history) == 9
    watcher = Watcher()
    network, history = stage(
        watcher, validate=True, stopping=Stopping(2, "accuracy"), max_epochs=9, callbacks=[watcher]
    )
    assert len(history) == 3
    assert network.w.item() == pytest.approx(watcher.seen[0][1])


def test_a_stage_that_diverges_puts_the_last_good_weights_back_and_tells_of_all_epochs():
    class Breaks(Watcher):
        def __call__(self, network, batch):
            scored = super().__call__(network, batch)
            return scored if len(self.batches) <= 2 else scored._replace(losses=scored.losses / 0)

    watcher = Breaks()
    with pytest.raises(DivergenceError, match="diverged in epoch 2") as caught:
        stage(watcher, max_epochs=3)
    assert len(caught.value.history) == 2
    assert [w for _, w, _ in watcher.seen] == [watcher.network.w.item()]
    assert not watcher.network.training


def test_a_network_is_tried_with_the_inputs_that_are_given():
    tried = []

    class Noting(Runtime):
        def set_up(self, network, optimizer, inputs, name="module"):
            tried.append((inputs.tolist(), name))
            return super().set_up(network, optimizer, inputs, name)

    network = One()
    source = TensorSource(torch.tensor(INPUTS)[:, None], torch.zeros(4).long(), 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for inputs in (None, torch.tensor([[9.0], [8.0], [7.0]])):
        plan = Plan("network", source, Watcher(), 1, "student", inputs)
        train(network, optimizer, None, plan, Noting("cpu", "32-true"))
    assert tried == [([[1.0], [2.0]], "student"), ([[9.0], [8.0]], "student")]


@pytest.mark.parametrize(
    ("n", "said", "told"),
    [
        (1, "Expected more than 1 value per channel when training", True),
        (2, "Expected more than 1 value per channel when training", False),
        (1, "something else", False),
    ],
)
def test_a_batch_of_one_before_batchnorm_gets_a_remedy_and_other_errors_are_the_callers(
    n, said, told
):
    batch = Batch(torch.zeros(n, 2), torch.zeros(n).long())
    message = "batch_size must be at least 2 for a network with BatchNorm" if told else said
    with pytest.raises(ValueError, match=message), _told_of_single_examples(batch):
        raise ValueError(said)


@pytest.mark.parametrize("capabilities", [{"avx2": True}, {"avx2": True, "avx512_bf16": False}])
def test_a_processor_that_is_not_known_to_lack_bfloat16_is_taken_to_have_it(
    monkeypatch, capabilities
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert native_bfloat16() is ("avx512_bf16" not in capabilities)


def test_of_a_stream_whose_range_nobody_knows_the_bounds_are_0_and_1():
    class Stream:
        def within(self, name, bounds):
            self.held = name, bounds
            return self

    stream, held = Stream(), TensorSource(torch.tensor([[0.25], [0.5]]), torch.zeros(2).long(), 2)
    run = SimpleNamespace(source=stream, validation=held, input_shape=(1,), runtime=None)
    assert attack_settings().adversary(run).ascent.bounds == (0.0, 1.0)
    assert stream.held == ("X", (0.0, 1.0))
    assert run.source is stream


def test_bounds_that_are_given_hold_the_data_and_the_radius():
    with pytest.raises(ValueError, match="epsilon must be"):
        adversary(0.25, 0.75, bounds=(0.0, 1.0), epsilon=1.5)
    with pytest.raises(ValueError, match="X must"):
        adversary(0.25, 0.75, bounds=(0.5, 1.0))
    with pytest.raises(ValueError, match="validation must"):
        adversary(0.5, 0.75, (0.25,), bounds=(0.5, 1.0))


def test_an_attack_of_the_callers_is_asked_in_the_mode_of_attacks_and_its_points_are_constants():
    with pytest.raises(TypeError, match="attack must be None or callable, got int"):
        attack_settings(attack=3)
    network, asked = One().train(), []

    def attack(given, inputs, labels):
        asked.append((given, given.training, labels.tolist()))
        return inputs + given.w

    batch = Batch(torch.ones(2, 1), torch.tensor([1, 0]))
    runtime = SimpleNamespace(unwrapped=network)
    found = Adversary(None, attack, False, runtime)(batch, None)
    assert asked == [(network, False, [1, 0])]
    assert network.training
    assert found.tolist() == [[3.0], [3.0]]
    assert not found.requires_grad
    ascent = Ascent("linf", 0.5, 9, 0.25, (-9.0, 9.0))
    found = Adversary(ascent, None, False, runtime)(batch, lambda net: lambda x: net(x)[:, 0])
    assert found.tolist() == [[1.5], [1.5]]


def test_early_stopping_on_a_stream_wants_examples_to_validate_with():
    with pytest.raises(ValueError, match="early_stopping must be False with a DataLoader"):
        _held_out(object(), SimpleNamespace(early_stopping=True, validation_fraction=0.1))
