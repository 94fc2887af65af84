"""One test for each promise, in pytest."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from .._words import described
from ..exceptions import BrokenPromiseError, MissingPackageError
from . import _attacks, _classifiers, _defenses, _functions, _models

TABLES: dict[Any, Any] = {
    _attacks.check_attack: _attacks.CHECKS,
    _classifiers.check_classifier: _classifiers.CHECKS,
    _defenses.check_defense: _defenses.CHECKS,
    _functions.check_loss: _functions.LOSS,
    _functions.check_softmax: _functions.SOFTMAX,
    _models.check_model: _models.CHECKS,
}


def promises(check: Callable[..., None]) -> tuple[str, ...]:
    """Return the names of the promises that a check tests, in order; ``skip`` takes them.

    Parameters
    ----------
    check : callable
        One of the functions ``check_*`` of this module.

    Returns
    -------
    tuple of str
        The names.

    Raises
    ------
    ValueError
        If ``check`` is none of them.

    Examples
    --------
    >>> from distillguard.testing import check_softmax, promises
    >>> promises(check_softmax)
    ('sums-to-one', 'shift', 'temperature', 'limits', 'order', 'overflow', 'gradient')
    """
    if check not in TABLES:
        raise ValueError(
            "check must be one of the functions check_* of distillguard.testing, got "
            f"{described(check)}"
        )
    return tuple(each.promise for each in TABLES[check])


def parametrize_with_promises(check: Callable[..., None], *subject: Any, **settings: Any) -> Any:
    """Make one pytest test for each promise, with the promise's name.

    It decorates a test function that has the argument ``promise`` and calls it. All promises are
    tested when the first of these tests runs; one that cannot be judged because another is broken
    is skipped.

    Parameters
    ----------
    check : callable
        One of the functions ``check_*`` of this module.
    *subject : Any
        The first arguments of ``check``: what is tested.
    **settings : Any
        Keyword arguments of ``check``. Promises in ``skip`` get no test.

    Returns
    -------
    MarkDecorator
        The result of ``pytest.mark.parametrize``.

    Raises
    ------
    MissingPackageError
        If pytest is not installed.
    ValueError
        If ``check`` is none of those functions.

    Examples
    --------
    >>> from distillguard.functional import softmax
    >>> from distillguard.testing import check_softmax, parametrize_with_promises
    >>> @parametrize_with_promises(check_softmax, softmax)
    ... def test_my_softmax(promise):
    ...     promise()
    """
    try:
        import pytest
    except ImportError as error:
        raise MissingPackageError(
            "parametrize_with_promises needs pytest; install it with: pip install pytest"
        ) from error

    @cache
    def verdict() -> BrokenPromiseError | None:
        try:
            check(*subject, **settings)
        except BrokenPromiseError as error:
            return error
        return None

    def judge(promise: str) -> None:
        error = verdict()
        broken = [] if error is None else [one for one in error.broken if one.promise == promise]
        if broken:
            raise BrokenPromiseError("\n".join(map(str, broken)), broken)
        if error is not None and promise in error.unjudged:
            pytest.skip(f"{promise} cannot be judged while another promise is broken")

    skip = settings.get("skip", ())
    left_out = {skip} if isinstance(skip, str) else set(skip)
    names = [name for name in promises(check) if name not in left_out]
    return pytest.mark.parametrize("promise", [partial(judge, name) for name in names], ids=names)
