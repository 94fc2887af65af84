"""What is spent on questions to a model, also where wrappers of it ask more often than they are.

Whoever counts opens an account. A module that asks the model inside it several times, or another
one beside it, tells the account so; each example of a question is one pass, however the modules
are nested. What asks nobody's model inside an open account is a stand-in for it, and is noted too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor

Watch = Callable[[Tensor], Tensor]
"""Takes logits, counts whatever goes back through them, and returns them."""


@dataclass
class Account:
    """Examples sent through a model."""

    forwards: int = 0
    backwards: int = 0
    stand_ins: dict[str, None] = field(default_factory=dict)
    """What adaptive modules that are no part of the model said of themselves, in order."""

    def settled(self) -> "Account":
        """Return what was spent, and start again from nothing."""
        spent = Account(self.forwards, self.backwards, self.stand_ins)
        self.forwards, self.backwards, self.stand_ins = 0, 0, {}
        return spent


_open: ContextVar[tuple[Account, bool] | None] = ContextVar("account", default=None)
"""The account that is open, and whether a question that it has counted is under way."""


@contextmanager
def charged(account: Account, *, counted: bool = False) -> Iterator[None]:
    """Open an account; with ``counted`` for the inside of a question that is on it already."""
    token = _open.set((account, counted))
    try:
        yield
    finally:
        _open.reset(token)


@contextmanager
def question(n: int, told: str, forwards: int, backwards: int) -> Iterator[Watch]:
    """Ask the model inside about ``n`` examples, so many times each.

    ``told`` says what asks, for the case that nobody has counted the question yet.
    """
    state = _open.get()
    if state is None:
        yield lambda logits: logits
        return
    account, known = state
    if not known:
        account.stand_ins[told] = None
    account.forwards += n * (forwards - known)

    def went_back(gradient: Tensor) -> None:
        account.backwards += n * (backwards - known)

    def watch(logits: Tensor) -> Tensor:
        if logits.requires_grad and backwards > known:
            logits.register_hook(went_back)
        return logits

    with charged(account, counted=True):
        yield watch
