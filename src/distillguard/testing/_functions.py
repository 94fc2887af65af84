"""Promises of a softmax and of a loss."""

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor

from ._promises import BrokenPromise, Check, first, run
from ._subject import shares

Softmax = Callable[[Tensor, float], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Found = Iterator[BrokenPromise]

TEMPERATURES = (0.1, 1.0, 20.0, 100.0)
LARGE = 1e4
"""A size of logits that must not overflow in float32."""


def logits(dtype: torch.dtype = torch.float64) -> Tensor:
    """Six rows of five logits, all different."""
    return (12 * shares(6, torch.zeros(1, 5, dtype=torch.float64, device="cpu")) - 6).to(dtype)


def large() -> Tensor:
    """Rows up to 1e4 in size, in float32."""
    rows = [[LARGE, -LARGE, 0.0], [-LARGE, -LARGE, -LARGE], [LARGE, LARGE, -LARGE]]
    return torch.tensor(rows, device="cpu")


def near(one: Tensor, other: Tensor) -> Tensor:
    """Which rows are equal up to rounding."""
    return torch.isclose(one, other, rtol=1e-6, atol=1e-9).reshape(len(one), -1).all(dim=1)


def differing(promise: str, rule: str, rows: Tensor, good: Tensor) -> Found:
    """The first row that is not as it should be."""
    if not bool(good.all()):
        yield BrokenPromise(promise, f"function must {rule}", rows[first(~good)][None])


def sums(softmax: Softmax) -> Found:
    """Rows sum to one and are not negative."""
    for t in TEMPERATURES:
        found = softmax(logits(), t)
        total = found.sum(dim=1)
        good = near(total, torch.ones_like(total)) & (found >= 0).all(dim=1)
        yield from differing("sums-to-one", f"return rows that sum to 1 at T = {t}", logits(), good)


def shifts(softmax: Softmax) -> Found:
    """A number added to all logits of a row changes nothing."""
    good = near(softmax(logits() + 7, 3.0), softmax(logits(), 3.0))
    yield from differing("shift", "not change when a number is added to all logits", logits(), good)


def temperature(softmax: Softmax) -> Found:
    """T divides the logits."""
    for t in TEMPERATURES:
        good = near(softmax(logits(), t), softmax(logits() / t, 1.0))
        rule = f"return at T = {t} what it returns for logits / T at T = 1"
        yield from differing("temperature", rule, logits(), good)


def limits(softmax: Softmax) -> Found:
    """Uniform for a large T, one-hot for a small one."""
    rows = logits()
    flat = (softmax(rows, 1e6) - 1 / rows.shape[1]).abs().amax(dim=1) < 1e-4
    yield from differing("limits", "tend to uniform as T grows", rows, flat)
    hot = softmax(rows, 1e-3).gather(1, rows.argmax(dim=1, keepdim=True))[:, 0] > 0.99
    yield from differing("limits", "tend to one-hot as T falls", rows, hot)


def orders(softmax: Softmax) -> Found:
    """Larger logits have larger probabilities."""
    good = (softmax(logits(), 2.0).argsort(dim=1) == logits().argsort(dim=1)).all(dim=1)
    yield from differing("order", "keep the order of the logits", logits(), good)


def overflows(softmax: Softmax) -> Found:
    """Logits up to 1e4 in float32 do not overflow."""
    good = softmax(large(), 1.0).isfinite().all(dim=1)
    yield from differing("overflow", "be finite for logits up to 1e4 in float32", large(), good)


def slopes(softmax: Softmax) -> Found:
    """The gradient is that of finite differences."""
    yield from by_differences(lambda z: softmax(z, 3.0))


def by_differences(function: Callable[[Tensor], Tensor]) -> Found:
    """Compare gradients with finite differences."""
    rows = logits()
    try:
        torch.autograd.gradcheck(function, rows.requires_grad_())
    except Exception as error:
        found = str(error).strip().splitlines()[0]
        rule = f"function must have the gradient of finite differences, got {found}"
        yield BrokenPromise("gradient", rule, rows.detach()[:1])


def labels() -> Tensor:
    """Classes of the six rows."""
    return torch.tensor([0, 1, 2, 3, 4, 0], device="cpu")


def one_each(loss: Loss) -> Found:
    """One value for each example, independent of the other examples."""
    rows, y = logits(), labels()
    found = loss(rows, y)
    if found.shape != y.shape:
        rule = f"function must return one value per example, (6,), got {tuple(found.shape)}"
        yield BrokenPromise("one-value-each", rule, rows)
        return
    alone = torch.cat([loss(rows[i : i + 1], y[i : i + 1]) for i in range(len(y))])
    rule = "return the same value for an example alone and in a batch"
    yield from differing("one-value-each", rule, rows, near(alone, found))


def loss_shifts(loss: Loss) -> Found:
    """A number added to all logits of a row changes nothing."""
    good = near(loss(logits() + 7, labels()), loss(logits(), labels()))
    yield from differing("shift", "not change when a number is added to all logits", logits(), good)


def loss_overflows(loss: Loss) -> Found:
    """Logits up to 1e4 in float32 do not overflow."""
    good = loss(large(), torch.tensor([1, 0, 2], device="cpu")).isfinite()
    yield from differing("overflow", "be finite for logits up to 1e4 in float32", large(), good)


def depends(loss: Loss) -> Found:
    """The loss depends on the labels and on the logits."""
    rows, y = logits(), labels()
    found = loss(rows, y)
    for what, other in (
        ("labels", loss(rows, (y + 1) % 5)),
        ("logits", loss(rows.roll(1, 1), y)),
    ):
        if bool(near(found, other).all()):
            rule = f"function must depend on its {what}, got the same values for other {what}"
            yield BrokenPromise("depends", rule, rows[:1])


def loss_slopes(loss: Loss) -> Found:
    """The gradient is that of finite differences."""
    yield from by_differences(lambda z: loss(z, labels()))


SOFTMAX: list[Check[Softmax]] = [
    Check("sums-to-one", sums),
    Check("shift", shifts),
    Check("temperature", temperature),
    Check("limits", limits),
    Check("order", orders),
    Check("overflow", overflows),
    Check("gradient", slopes),
]
LOSS: list[Check[Loss]] = [
    Check("one-value-each", one_each),
    Check("shift", loss_shifts, ("one-value-each",)),
    Check("overflow", loss_overflows, ("one-value-each",)),
    Check("depends", depends, ("one-value-each",)),
    Check("gradient", loss_slopes, ("one-value-each",)),
]


def check_softmax(function: Softmax, *, skip: str | Collection[str] = ()) -> None:
    """Test a softmax with a temperature.

    Its promises are ``sums-to-one``, ``shift`` (a number added to all logits changes nothing),
    ``temperature`` (T divides the logits), ``limits`` (uniform for a large T, one-hot for a small
    one), ``order``, ``overflow`` (finite for logits up to 1e4 in float32) and ``gradient`` (that
    of finite differences).

    Parameters
    ----------
    function : callable
        Takes logits of shape (n, n_classes) and a temperature, and returns rows of probabilities.
    skip : str or collection of str, default=()
        Names of promises to leave out.

    Raises
    ------
    BrokenPromiseError
        If it breaks a promise; the message names each, with a row that shows it.
    ValueError
        If ``skip`` has a name that is not a promise.

    Examples
    --------
    >>> import torch
    >>> from distillguard.functional import softmax
    >>> from distillguard.testing import check_softmax
    >>> check_softmax(softmax)
    >>> naive = lambda z, t: (z / t).exp() / (z / t).exp().sum(dim=1, keepdim=True)
    >>> check_softmax(naive, skip="limits")
    Traceback (most recent call last):
    distillguard.exceptions.BrokenPromiseError: function must keep its promises, got 1 of 7 broken
      overflow: function must be finite for logits up to 1e4 in float32...
    """
    run(SOFTMAX, function, "function", skip)


def check_loss(function: Loss, *, skip: str | Collection[str] = ()) -> None:
    """Test a loss of logits and labels.

    Its promises are ``one-value-each`` (independent of the other examples), ``shift`` (a number
    added to all logits changes nothing), ``overflow`` (finite for logits up to 1e4 in float32),
    ``depends`` (on the labels and on the logits) and ``gradient`` (that of finite differences).

    Parameters
    ----------
    function : callable
        Takes logits of shape (n, n_classes) and labels of shape (n,), and returns one value per
        example.
    skip : str or collection of str, default=()
        Names of promises to leave out.

    Raises
    ------
    BrokenPromiseError
        If it breaks a promise; the message names each, with a row that shows it.
    ValueError
        If ``skip`` has a name that is not a promise.

    Examples
    --------
    >>> from distillguard.functional import margin_loss
    >>> from distillguard.testing import check_loss
    >>> check_loss(margin_loss)
    """
    run(LOSS, function, "function", skip)
