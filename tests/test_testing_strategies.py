"""The Hypothesis strategies: what they draw is valid, and shrinks to what a person can read."""

import subprocess
import sys

import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st
from torch import nn

from distillguard.functional import softmax
from distillguard.testing import check_model, strategies


@given(strategies.logits(), strategies.temperatures())
def test_logits_and_temperatures_are_what_a_softmax_takes(logits, temperature):
    assert logits.dtype == torch.float32
    assert logits.shape[1] >= 2
    assert softmax(logits, temperature).isfinite().all()


@given(strategies.soft_labels())
def test_soft_labels_sum_to_one(rows):
    assert (rows >= 0).all()
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(len(rows)))


@given(strategies.inputs((2, 3)), strategies.labels(5, 3), strategies.masks((2, 3)))
def test_inputs_labels_and_masks_have_their_shapes_and_ranges(inputs, labels, mask):
    assert inputs.shape[1:] == mask.shape == (2, 3)
    assert ((inputs >= 0) & (inputs <= 1)).all()
    assert mask.any()
    assert labels.shape == (5,)
    assert ((labels >= 0) & (labels < 3)).all()


@given(strategies.bounds(), strategies.norm_balls())
def test_bounds_are_in_order_and_radii_above_zero(bounds, ball):
    assert bounds[0] < bounds[1]
    assert 0 < ball.epsilon <= 1
    assert ball.norm in ("linf", "l2", "l1")


@pytest.mark.parametrize(
    ("strategy", "wanted", "expected"),
    [
        (strategies.logits(), lambda z: z.max() > 5, [[6.0, 0.0]]),
        (strategies.soft_labels(), lambda p: p.max() == 1, [[1.0, 0.0]]),
        (strategies.inputs((2,)), lambda x: x.max() == 1, [[1.0, 0.0]]),
        (strategies.labels(2, 9), lambda y: y.max() > 3, [4, 0]),
        (strategies.masks((3,)), torch.any, [True, False, False]),
    ],
)
def test_examples_shrink_to_whole_numbers_on_few_rows(strategy, wanted, expected):
    found = find(strategy, lambda value: bool(wanted(value))).tolist()
    assert [sorted(map(abs, row)) if isinstance(row, list) else row for row in found] == [
        sorted(row) if isinstance(row, list) else row for row in expected
    ] or sorted(found) == sorted(expected)


def test_simple_values_come_first():
    assert find(strategies.temperatures(), lambda t: True) == 1.0
    assert find(strategies.bounds(), lambda pair: True) == (0.0, 1.0)
    assert find(strategies.norm_balls(), lambda ball: True) == ("linf", 1.0)
    assert isinstance(strategies.logits(), st.SearchStrategy)


def test_without_hypothesis_the_checks_work_and_strategies_name_the_extra():
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from distillguard.testing import check_model\n"
        "from distillguard.exceptions import MissingPackageError\n"
        "try:\n    import distillguard.testing.strategies\n"
        "except MissingPackageError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == (
        "strategies need hypothesis; install it with: pip install 'distillguard[testing]'\n"
    )


@given(strategies.networks(), strategies.inputs())
def test_networks_return_logits_and_lead_back_to_their_inputs(network, inputs):
    asked = inputs.requires_grad_()
    logits = network.eval()(asked)
    assert logits.shape == (len(inputs), 3)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert asked.grad.isfinite().all()


@given(strategies.networks((5,), n_classes=2, max_layers=3))
def test_networks_of_rows_of_numbers_have_no_layers_for_images(network):
    assert network.eval()(torch.zeros(2, 5)).shape == (2, 2)


def test_the_simplest_network_is_one_layer():
    assert str(find(strategies.networks(), lambda network: True)) == str(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    )


@pytest.mark.parametrize("table", [strategies._image_layers, strategies._flat_layers])
def test_each_kind_of_layer_keeps_the_number_of_channels(table):
    shape = (2, 3, 5, 5) if table is strategies._image_layers else (2, 3)
    for name, make in table(3).items():
        layer = make().eval()
        assert type(layer).__name__ == name
        assert layer(torch.rand(shape)).shape[:2] == shape[:2]


def test_the_weights_of_a_network_come_from_its_own_seed():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, other = (find(strategies.networks(), lambda network: True) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one[1].weight, other[1].weight)


@settings(max_examples=10)
@given(strategies.networks(max_layers=2))
def test_networks_keep_the_promises_of_models_that_do_not_depend_on_chance(network):
    # Units of a network of two may all be dead.
    skip = {"live-coordinates", "no-stairs", "true-gradient", "gradient-at-bounds"}
    check_model(network, torch.rand(2, 1, 4, 4), skip=skip)
