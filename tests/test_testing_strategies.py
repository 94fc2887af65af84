"""The Hypothesis strategies: what they draw is valid, and shrinks to what a person can read."""

import subprocess
import sys

import pytest
import torch
from hypothesis import find, given
from hypothesis import strategies as st

from distillguard.functional import softmax
from distillguard.testing import strategies


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
