"""parametrize_with_promises: one test for each promise, by its name."""

import re

import pytest
import torch

from distillguard import testing
from distillguard.functional import softmax
from distillguard.testing import (
    check_model,
    check_softmax,
    parametrize_with_promises,
    promises,
)

pytest_plugins = ["pytester"]

CHECKS = [getattr(testing, name) for name in testing.__all__ if name.startswith("check_")]
WITH_TABLE = [each for each in CHECKS if "=====" in each.__doc__]


@pytest.mark.parametrize("check", WITH_TABLE)
def test_the_docstring_has_a_row_for_each_promise_in_order(check):
    names = promises(check)
    assert len(set(names)) == len(names)
    told = re.findall(r"^    ``([a-z-]+)`` +[a-z]", check.__doc__, flags=re.MULTILINE)
    assert tuple(told) == names


@parametrize_with_promises(check_softmax, softmax)
def test_a_sound_softmax(promise):
    promise()


def test_each_promise_is_a_test_that_fails_skips_or_passes_by_itself(pytester):
    pytester.makepyfile(
        """
        import torch
        from distillguard.testing import check_model, parametrize_with_promises

        calls = []

        def network(inputs):
            calls.append(1)
            return torch.nn.functional.dropout(inputs, 0.5)

        @parametrize_with_promises(check_model, network, torch.rand(2, 4), skip="logits")
        def test_mine(promise):
            before = len(calls)
            promise()
            assert (len(calls) > before) == (before == 0)
        """
    )
    run = pytester.runpytest_inprocess("-v", "-p", "no:randomly", "-p", "no:cacheprovider")
    names = promises(check_model)
    told = "\n".join(run.outlines)
    assert "test_mine[repeatable] FAILED" in told
    assert "test_mine[answers] PASSED" in told
    assert "test_mine[order-independence] SKIPPED" in told
    assert "test_mine[logits]" not in told
    outcomes = run.parseoutcomes()
    assert sum(outcomes.get(each, 0) for each in ("passed", "failed", "skipped")) == len(names) - 1
    assert outcomes["failed"] == 1


def test_a_failure_says_only_what_its_own_promise_is_about():
    mark = parametrize_with_promises(check_model, torch.sqrt, torch.rand(2, 4))
    bounds = mark.args[1][mark.kwargs["ids"].index("gradient-at-bounds")]
    with pytest.raises(AssertionError, match=r"^gradient-at-bounds: model must have a gradient"):
        bounds()


def test_what_is_no_check_is_refused():
    with pytest.raises(ValueError, match=r"^check must be one of the functions check_"):
        promises(print)
