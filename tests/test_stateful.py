"""Estimators and state files in any order of use: what must hold after each step.

More and longer runs: HYPOTHESIS_PROFILE=many.
"""

import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    RobustDistiller,
    UndefendedClassifier,
    attacks,
    evaluate,
    load,
)
from distillguard.evaluation import _state_format
from distillguard.exceptions import SaveError

MANY = settings().max_examples >= 1000
LENGTHS = settings(
    max_examples=settings().max_examples // 10 if MANY else 8,
    stateful_step_count=50 if MANY else 15,
    derandomize=not MANY,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)

# --- estimators ------------------------------------------------------------------------------

KINDS = {
    "undefended": partial(UndefendedClassifier, batch_size=8),
    "distiller": partial(DefensiveDistiller, batch_size=8, temperature=5.0),
    "adversarial": partial(AdversarialTrainer, batch_size=8, epsilon=0.1, steps=1),
    "robust": partial(RobustDistiller, batch_size=8, epsilon=0.1, steps=1),
}
CHANCE = np.random.default_rng(0)
ROWS = CHANCE.random((16, 3), dtype=np.float32)
PROBE = CHANCE.random((5, 3), dtype=np.float32)
DATA = {
    "one": (ROWS, np.arange(16) % 2),
    "other": (1 - ROWS, np.arange(16) // 8),
    "words": (ROWS, np.array(["no", "perhaps", "yes", "yes"] * 4)),
    "wide": (np.hstack([ROWS, ROWS]), np.arange(16) % 2),
}
REFUSED = {
    "no number": (ROWS * np.nan, np.arange(16) % 2),
    "out of step": (ROWS, np.arange(15) % 2),
    "one class": (ROWS, np.zeros(16, dtype=int)),
    "nothing": (ROWS[:0], np.arange(0)),
}
CHANGES = [
    ("max_epochs", 1),
    ("max_epochs", 3),
    ("learning_rate", 0.1),
    ("learning_rate", 0.001),
    ("warm_start", True),
    ("warm_start", False),
    ("random_state", 7),
    ("weight_averaging", 0.5),
]


class Fit(NamedTuple):
    """A fit that came to its end."""

    kind: str
    params: tuple[tuple[str, Any], ...]
    data: str


class StopsAt:
    """Interrupts at the n-th epoch."""

    def __init__(self, n: int) -> None:
        self.left = n

    def on_epoch(self, record: dict, network: nn.Module) -> bool:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return False


def learned(estimator: Any) -> Any:
    """All that an estimator has learned, to be compared by value."""
    if not hasattr(estimator, "model_"):
        assert not [name for name in vars(estimator) if name.endswith("_")]
        return None
    networks = [name for name in ("teacher_", "student_", "model_") if hasattr(estimator, name)]
    weights = {
        f"{name}{key}": value.numpy().tobytes()
        for name in networks
        for key, value in getattr(estimator, name).state_dict().items()
    }
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in estimator.history_]
    return weights, repr(history), estimator.classes_.tolist(), estimator.input_shape_


KNOWN: dict[tuple[Fit, ...], Any] = {}


def replayed(fits: tuple[Fit, ...]) -> Any:
    """What an estimator learns that is only ever fitted so: nothing lies between its fits."""
    if fits not in KNOWN:
        estimator = KINDS[fits[0].kind]()
        for fit in fits:
            estimator.set_params(**dict(fit.params)).fit(*DATA[fit.data])
        KNOWN[fits] = learned(estimator)
    return KNOWN[fits]


class Estimators(RuleBasedStateMachine):
    """One estimator; the model is its parameters and the fits that made what it knows."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.generator = torch.get_rng_state()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(kind=st.sampled_from(sorted(KINDS)))
    def begin(self, kind: str) -> None:
        self.kind = kind
        self.params: dict[str, Any] = {"max_epochs": 2, "random_state": 0, "warm_start": False}
        self.estimator = KINDS[kind](**self.params)
        self.fits: tuple[Fit, ...] = ()
        self.broken: tuple[Fit, ...] = ()
        """What a fit with checkpoints that was interrupted would have been."""

    def after(self, data: str) -> tuple[Fit, ...] | None:
        """The fits behind what another one learns, or None if it must be refused."""
        now = Fit(self.kind, tuple(sorted(self.params.items())), data)
        if not (self.params["warm_start"] and self.fits):
            return (now,)
        last = self.fits[-1].data
        alike = ROWS.shape == DATA[last][0].shape == DATA[data][0].shape
        same = DATA[last][0].shape == DATA[data][0].shape and alike
        classes = np.array_equal(*(np.unique(DATA[name][1]) for name in (last, data)))
        return (*self.fits, now) if (same or last == data) and classes else None

    @rule(data=st.sampled_from(sorted(DATA)))
    def fit(self, data: str) -> None:
        after = self.after(data)
        if after is None:
            alike = self.estimator.input_shape_ == DATA[data][0].shape[1:]
            said = "y must hold the classes of" if alike else "X must hold .* as in"
            with pytest.raises(ValueError, match=f"^{said} the last fit"):
                self.estimator.fit(*DATA[data])
        else:
            assert self.estimator.fit(*DATA[data]) is self.estimator
            self.fits = after

    @precondition(lambda self: self.fits)
    @rule(data=st.sampled_from(["the same", *DATA]))
    def warm_fit(self, data: str) -> None:
        self.set_params(("warm_start", True))
        self.fit(self.fits[-1].data if data == "the same" else data)

    @rule(what=st.sampled_from(sorted(REFUSED)))
    def refused_fit(self, what: str) -> None:
        with pytest.raises((ValueError, TypeError), match=r" must | minimum|inconsistent"):
            self.estimator.fit(*REFUSED[what])

    @rule(name=st.sampled_from(["max_epochs", "learning_rate", "batch_size"]))
    def refused_parameter(self, name: str) -> None:
        kept = getattr(self.estimator, name)
        with pytest.raises(ValueError, match=f"{name} must"):
            self.estimator.set_params(**{name: -1}).fit(*DATA["one"])
        self.estimator.set_params(**{name: kept})

    @rule(data=st.sampled_from(["one", "words"]), epoch=st.integers(1, 2))
    def interrupted_fit(self, data: str, epoch: int) -> None:
        if epoch > self.params["max_epochs"] or self.after(data) is None:
            return
        self.estimator.set_params(callbacks=[StopsAt(epoch)])
        with pytest.raises(KeyboardInterrupt):
            self.estimator.fit(*DATA[data])
        self.estimator.set_params(callbacks=())

    @precondition(lambda self: not self.params["warm_start"])
    @rule(data=st.sampled_from(["one", "other"]), epoch=st.integers(1, 3))
    def interrupted_fit_with_checkpoints(self, data: str, epoch: int) -> None:
        if epoch > self.params["max_epochs"]:
            return
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        self.estimator.set_params(callbacks=[StopsAt(epoch)], checkpoint_dir=self.folder / "run")
        with pytest.raises(KeyboardInterrupt):
            self.estimator.fit(*DATA[data])
        self.estimator.set_params(callbacks=(), checkpoint_dir=None)
        self.broken = self.after(data)

    @precondition(lambda self: self.broken)
    @rule(data=st.sampled_from(["one", "other"]))
    def resumed_fit(self, data: str) -> None:
        self.estimator.set_params(checkpoint_dir=self.folder / "run")
        if self.params["warm_start"]:
            with pytest.raises(ValueError, match="warm_start must be False"):
                self.estimator.fit(*DATA[data])
        elif self.after(data) != self.broken:
            with pytest.raises(SaveError, match="checkpoint_dir must"):
                self.estimator.fit(*DATA[data])
        else:
            self.estimator.fit(*DATA[data])
            self.fits = self.broken
        self.estimator.set_params(checkpoint_dir=None)

    @rule()
    def predict(self) -> None:
        if not self.fits:
            with pytest.raises(NotFittedError):
                self.estimator.predict(PROBE)
            return
        probe = np.hstack([PROBE, PROBE])[:, : self.estimator.n_features_in_]
        given = probe.copy()
        labels, shares = self.estimator.predict(probe), self.estimator.predict_proba(probe)
        np.testing.assert_array_equal(labels, self.estimator.classes_[shares.argmax(1)])
        np.testing.assert_allclose(shares.sum(1), 1)
        assert self.estimator.score(probe, labels) == 1
        np.testing.assert_array_equal(probe, given)

    @rule(change=st.sampled_from(CHANGES))
    def set_params(self, change: tuple[str, Any]) -> None:
        self.params |= [change]
        assert self.estimator.set_params(**dict([change])) is self.estimator

    @rule()
    def set_what_is_no_parameter(self) -> None:
        with pytest.raises(ValueError, match="Invalid parameter"):
            self.estimator.set_params(temprature=1.0)

    @rule(stays=st.booleans())
    def clone(self, stays: bool) -> None:
        other = clone(self.estimator)
        assert other.get_params() == self.estimator.get_params()
        assert learned(other) is None
        if not stays:
            self.estimator, self.fits = other, ()

    @rule()
    def pickle(self) -> None:
        self.estimator = pickle.loads(pickle.dumps(self.estimator))

    @rule()
    def save_and_load(self) -> None:
        folder = self.folder / "save"
        if not self.fits:
            with pytest.raises(NotFittedError):
                self.estimator.save(folder)
            return
        self.estimator.save(folder)
        self.estimator = load(folder)

    @invariant()
    def parameters_are_those_that_were_set(self) -> None:
        found = self.estimator.get_params()
        assert found == KINDS[self.kind]().get_params() | self.params

    @invariant()
    def what_is_known_is_what_the_fits_alone_teach(self) -> None:
        assert learned(self.estimator) == (replayed(self.fits) if self.fits else None)

    @invariant()
    def the_generator_of_everybody_stays(self) -> None:
        assert torch.equal(torch.get_rng_state(), self.generator)


def test_whatever_is_done_between_them_fits_teach_what_they_teach_alone():
    run_state_machine_as_test(Estimators, settings=LENGTHS)


# --- evaluation ------------------------------------------------------------------------------

torch.manual_seed(0)
NET = nn.Linear(4, 3)
INPUTS = torch.rand(20, 4)
LABELS = NET(INPUTS).argmax(1)
LABELS[9] = (LABELS[9] + 1) % 3
EXAMPLES = {
    "whole": (INPUTS, LABELS),
    "begun": (INPUTS[:12], LABELS[:12]),
    "flipped": (INPUTS.flip(0), LABELS.flip(0)),
    "changed later": (torch.cat([INPUTS[:15], INPUTS[15:] / 2]), LABELS),
}
CHUNK = 4
ORDER = {
    "fgsm": partial(attacks.fgsm, epsilon=0.1),
    "pgd": partial(attacks.pgd, steps=3, loss="margin"),
    "square": partial(attacks.square, queries=5),
    "ddn": partial(attacks.ddn, steps=4),
}
THREATS = {"near": {"epsilon": 0.05}, "far": {"epsilon": 0.2}}


class Plug(nn.Module):
    """A network that pulls the plug after so many questions."""

    def __init__(self, left: int = 10**9) -> None:
        super().__init__()
        self.network, self.left = NET, left

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.network(inputs)


class Asked(NamedTuple):
    """One evaluation that may be asked for."""

    attacks: int
    threat: str
    seed: int
    examples: str

    def report(self, model: nn.Module, **more: Any) -> Any:
        chosen = dict(list(ORDER.items())[: self.attacks])
        report = evaluate(
            model, *EXAMPLES[self.examples], attacks=chosen, diagnosis=None, chunk_size=CHUNK,
            random_state=self.seed, **THREATS[self.threat], **more,
        )  # fmt: skip
        return told(report.to_dict())


def told(part: Any) -> Any:
    """All that a report says, but the seconds and the date."""
    if isinstance(part, dict):
        return {k: told(v) for k, v in part.items() if k not in ("seconds", "date")}
    return [told(value) for value in part] if isinstance(part, list | tuple) else part


REPORTS: dict[Asked, Any] = {}


def unbroken(asked: Asked) -> Any:
    """The report of an evaluation without a state file."""
    if asked not in REPORTS:
        REPORTS[asked] = asked.report(Plug())
    return REPORTS[asked]


asked_for = st.builds(
    Asked,
    st.integers(1, len(ORDER)),
    st.sampled_from(sorted(THREATS)),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from(["whole", *EXAMPLES]),
)


class Evaluations(RuleBasedStateMachine):
    """One state file; the model is what was asked for by whoever wrote to it last."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.path = self.folder / "state"
        self.owner: Asked | None = None
        self.complete = False
        self.known = 0
        """Examples that the file knows."""

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def fits(self, asked: Asked) -> bool:
        """Whether an evaluation may go on with what the file holds."""
        if self.owner is None:
            return True
        same = asked.threat == self.owner.threat and asked.seed == self.owner.seed
        theirs, ours = (EXAMPLES[name] for name in (self.owner.examples, asked.examples))
        known = slice(self.known)
        alike = len(ours[0]) >= self.known and all(
            torch.equal(one[known], other[known]) for one, other in zip(theirs, ours, strict=True)
        )
        ends = len(ours[0]) == len(theirs[0]) if self.complete else True
        return same and asked.attacks >= self.owner.attacks and alike and ends

    def note(self, asked: Asked) -> None:
        """Look at what the file says after an evaluation that was let in."""
        held, _ = _state_format.read(self.path)
        known = sum(size for size, _ in held["chunks"])
        assert known >= self.known
        assert self.owner is None or len(held["attacks"]) >= self.owner.attacks
        assert len(held["attacks"]) <= asked.attacks
        self.owner = asked._replace(attacks=len(held["attacks"]))
        self.known, self.complete = known, held["complete"]

    @rule(asked=asked_for)
    def evaluate(self, asked: Asked) -> None:
        self.ask(asked)

    @precondition(lambda self: self.owner)
    @rule(more=st.integers(0, 3))
    def go_on_with_further_attacks(self, more: int) -> None:
        attacks = min(self.owner.attacks + more, len(ORDER))
        self.ask(self.owner._replace(attacks=attacks))

    @precondition(lambda self: self.owner)
    @rule(examples=st.sampled_from(sorted(EXAMPLES)))
    def evaluate_other_data(self, examples: str) -> None:
        self.ask(self.owner._replace(examples=examples))

    def ask(self, asked: Asked) -> None:
        if not self.fits(asked):
            self.is_refused(lambda: asked.report(Plug(), state_file=self.path), asked.attacks)
            return
        assert asked.report(Plug(), state_file=self.path) == unbroken(asked)
        self.note(asked)
        assert self.complete
        assert self.owner == asked

    @rule(asked=asked_for, questions=st.integers(0, 60))
    def kill(self, asked: Asked, questions: int) -> None:
        if self.owner is not None and questions % 2:
            asked = self.owner._replace(attacks=asked.attacks)
        if not self.fits(asked):
            return
        try:
            report = asked.report(Plug(questions), state_file=self.path)
        except KeyboardInterrupt:
            if self.path.exists():
                self.note(asked)
        else:
            assert report == unbroken(asked)
            self.note(asked)

    @precondition(lambda self: self.owner)
    @rule(at=st.integers(0, 10**6), bit=st.integers(0, 7))
    def damage(self, at: int, bit: int) -> None:
        content = self.path.read_bytes()
        changed = bytearray(content)
        changed[at % len(content)] ^= 1 << bit
        self.path.write_bytes(changed)
        self.is_refused(lambda: self.owner.report(Plug(), state_file=self.path))
        self.path.write_bytes(content)

    @precondition(lambda self: self.owner)
    @rule()
    def evaluate_another_model(self) -> None:
        other = Plug()
        other.network = nn.Linear(4, 3)
        self.is_refused(lambda: self.owner.report(other, state_file=self.path))

    @precondition(lambda self: self.owner)
    @rule()
    def remove(self) -> None:
        self.path.unlink()
        self.owner, self.known, self.complete = None, 0, False

    def is_refused(self, evaluation: Callable[[], Any], attacks: int = 0) -> None:
        before = self.path.read_bytes()
        with pytest.raises(SaveError, match="state_file"):
            evaluation()
        if attacks > self.owner.attacks:
            # Until the data differ, a further attack is run and kept: it was on the same examples.
            self.note(self.owner._replace(attacks=attacks))
        else:
            assert self.path.read_bytes() == before

    @invariant()
    def nothing_else_lies_in_the_folder(self) -> None:
        there = {path.name for path in self.folder.iterdir()}
        assert there == ({"state"} if self.owner else set())


def test_whatever_became_of_its_state_file_a_report_is_that_of_an_unbroken_evaluation():
    run_state_machine_as_test(Evaluations, settings=LENGTHS)
