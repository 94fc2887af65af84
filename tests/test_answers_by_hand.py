"""What a save keeps of a network's answers, how many they are, and how far others may differ."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn

from distillguard.exceptions import SaveError
from distillguard.persistence._answers import answers_of, check_answers
from distillguard.persistence._saving import _check_form


class Means(nn.Module):
    """As many logits as wanted of an input of any size."""

    def __init__(self, n_classes, scale=1.0, row=None):
        super().__init__()
        self.n_classes, self.scale, self.row = n_classes, scale, row
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x):
        assert not torch.is_grad_enabled()
        logits = self.one * x.flatten(1).mean(1, keepdim=True) + torch.arange(self.n_classes)
        if self.row is None:
            return logits * self.scale
        return torch.where(torch.arange(len(x))[:, None] == self.row, self.scale * logits, logits)


@pytest.mark.parametrize(
    ("shape", "n_classes", "rows"),
    [
        ((4,), 3, 4),
        ((1024,), 3, 4),
        ((1025,), 3, 3),
        ((32, 64), 3, 2),
        ((2049,), 3, 1),
        ((2**19,), 3, 1),
        ((2**19 + 1,), 3, None),
        ((2, 2**18 + 1), 3, None),
        ((4,), 1024, 4),
        ((4,), 1400, 2),
        ((4,), 5000, 1),
    ],
)
def test_no_more_than_four_thousand_numbers_are_asked_or_kept_unless_one_input_has_more(
    shape, n_classes, rows
):
    answers = answers_of(Means(n_classes), shape, n_classes)
    if rows is None:
        assert answers is None
        return
    assert {kind: len(logits) for kind, logits in answers["logits"].items()} == {
        "uniform": rows,
        "normal": rows,
    }
    assert all(len(row) == n_classes for row in answers["logits"]["normal"])


@pytest.mark.parametrize(
    ("dtype", "precision", "allowed"),
    [
        (torch.float64, "highest", 1e-4),
        (torch.float64, "medium", 1e-4),
        (torch.float32, "highest", 1e-4),
        (torch.float32, "high", 16 * 2**-7),
        (torch.bfloat16, "highest", 16 * 2**-7),
        (torch.float16, "highest", 16 * 2**-10),
    ],
)
@pytest.mark.parametrize("row", [None, 0, 2])
def test_answers_may_be_apart_by_a_share_of_the_largest_that_rounding_explains(
    dtype, precision, allowed, row
):
    def kept(network):
        logits = network.eval()(torch.zeros(4, 1)).detach()
        logits[:, 1:] -= logits[:, :1]
        return {"dtype": str(dtype)[6:], "logits": {"uniform": logits.double().tolist()}}

    class Still(Means):
        def forward(self, x):
            return super().forward(0 * x)

    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.no_grad():
            answers = kept(Still(3))
        for share in (0.8, 1.3):
            network = Still(3)
            network.forward = partial(_off, share * allowed, row)
            if share < 1:
                check_answers(network, "module", "model", (1,), answers)
            else:
                with pytest.raises(SaveError, match="where the largest is 2;"):
                    check_answers(network, "module", "model", (1,), answers)
    finally:
        torch.set_float32_matmul_precision(before)


def _off(share, row, x):
    logits = torch.arange(3.0, dtype=torch.float64).repeat(len(x), 1)
    logits[slice(None) if row is None else row, 1] += 2 * share
    return logits


def test_a_network_that_warns_or_makes_its_own_tensors_is_asked_all_the_same():
    class Warns(nn.Linear):
        def forward(self, x):
            warnings.warn("slow", UserWarning, stacklevel=1)
            return super().forward(x) + torch.zeros(2)

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = answers_of(Warns(4, 2, device="cpu"), (4,), 2)
    assert {*answers["logits"]} == {"uniform", "normal"}
    assert answers_of(nn.Linear(4, 2), (4,), 3) is None
    edge = nn.Linear(4, 2)
    with torch.no_grad():
        edge.bias[1] = torch.inf
    assert answers_of(edge, (4,), 2) is None
    assert answers_of(nn.Linear(4, 2), (5,), 2) is None


@pytest.mark.parametrize(
    ("shape", "rows", "right"),
    [
        ((2**19,), [[0.0, 1.0]], True),
        ((2**19 + 1,), [[0.0, 1.0]], False),
        ((2,), [[0.0, 1.0], [0.0]], False),
        ((2,), [[0.0, 1e300]], False),
        ((2,), [[-1e300, 0.0]], False),
        ((2,), [[0.0, 9e299]], True),
        ((2,), [], False),
    ],
)
def test_answers_that_no_save_has_are_refused(shape, rows, right):
    estimator = type("Estimator", (), {"input_shape_": shape})()
    answers = {"dtype": "float64", "logits": {"uniform": [[0.0, 0.0]], "normal": rows}}
    if right:
        _check_form(answers, estimator, 2)
    else:
        with pytest.raises(SaveError, match="must have rows of 2 logits at answers"):
            _check_form(answers, estimator, 2)
