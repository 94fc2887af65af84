"""The forms in which a model is attacked again."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import attacks
from .._boxes import boxes, tensor_of
from .._data import Chunk, Examples
from .._geometry import COUNTS, lp
from .._modes import device_of, dtype_of
from .._processes import Processes
from .._typing import Attack, Model
from ..adaptive._averaged import averaged
from ..adaptive._gradient_from import gradient_from
from ..adaptive._surrogate import distil_surrogate
from ..networks._wrappers import Logits
from ._hidden import hidden_boundary_l2
from ._query import QueryCounter, logarithm, logits_of
from ._readout import ReadOut
from ._run import Run
from ._stand_ins import before_head, is_live, live_features, over_front, over_parts
from ._towards import NEAREST, towards

PART = "adaptation"
"""What its costs go by."""

DRAWS = 20
"""Draws that an answer of a randomised model is the mean of."""

FEW = 8
"""Examples on which forms of the model are tried."""

QUESTIONS = 4000
"""Points that a surrogate learns from, about: the fewer the examples, the more around each."""

QUERIES = 1000
"""Steps of the random search, which follows no gradient."""

SMOOTHING = 0.25
"""Radius of the noise that a shattered gradient is averaged over, as a share of epsilon."""


@dataclass
class Subject:
    """A model to be adapted, with all that its forms are made from."""

    run: Run
    data: Examples
    chunk_size: int
    surrogate: Model | None
    processes: Processes
    random: bool
    """Whether the model draws random numbers, and is asked for its mean."""

    remembers: bool = False
    """Whether its answers depend on earlier questions, and each is to be the first."""

    @cached_property
    def base(self) -> Model:
        """The model, with logits."""
        kept = self.run.unasked if self.remembers else None
        model = self.run.model.model if kept is None else kept
        return Logits(model, pick=logarithm) if self.run.model.takes_logarithm else model

    @cached_property
    def few(self) -> Tensor:
        """Some examples to try forms on, the same in every process."""
        inputs = self.run.records.sample["inputs"][:FEW]
        device = device_of(self.run.model, torch.device("cpu"))
        return inputs.to(device, dtype_of(self.run.model, inputs.dtype))

    def counted(self, model: Model) -> QueryCounter:
        """Another form of the model, on the same account."""
        other = self.run.model.around(model)
        other.takes_logarithm = False
        return other

    def budget(self) -> dict[str, Any]:
        """Arguments that all attacks here take."""
        run = self.run
        return {
            "epsilon": run.threat.epsilon,
            "norm": run.threat.norm,
            "bounds": run.threat.bounds,
            "batch_size": run.batch_size,
            "random_state": run.seed,
        }

    def steady(self, model: Model) -> Model:
        """Return the mean over draws of a model that is random, and any other as it is."""
        return averaged(model, DRAWS) if self.random else model


def whole(subject: Subject) -> Model | None:
    """The model itself: what matters is what attacks ask of it."""
    return subject.base


def climbed(subject: Subject) -> Model | None:
    """The model itself, if it has a gradient."""
    with subject.run.accounted(PART):
        return subject.base if is_live(subject.counted(subject.base), subject.few) else None


def past_parts(subject: Subject) -> Model | None:
    """Its modules that hide the gradient, taken for the identity (BPDA)."""
    with subject.run.accounted(PART):
        return over_parts(subject.base, subject.counted(subject.base), subject.few)


def past_front(subject: Subject) -> Model | None:
    """All that it does to its inputs before a network takes them, taken for the identity."""
    with subject.run.accounted(PART):
        return over_front(subject.base, subject.counted(subject.base), subject.few)


def within_head(subject: Subject) -> Model | None:
    """The logits inside a model that makes something else of them, such as probabilities."""
    with subject.run.accounted(PART):
        return before_head(subject.base, subject.counted(subject.base), subject.few)


def along_readout(subject: Subject) -> Model | None:
    """The gradient of what is inside, where what is made of it has none."""
    with subject.run.accounted(PART):
        asked = subject.counted(subject.base)
        features = live_features(subject.base, asked, subject.few)
        if features is None:
            return None
        return ReadOut(subject.base, asked, features, points_around(subject))


def smoothed(subject: Subject) -> Model | None:
    """The mean gradient of points around each."""
    if climbed(subject) is None:
        return None
    around = nn.Sequential(Jitter(SMOOTHING * spread(subject)), Asked(subject.base))
    return gradient_from(subject.base, averaged(around, DRAWS))


def logarithmic(subject: Subject) -> Model | None:
    """The logarithms of answers that are never negative, if they have a gradient.

    Of sums of exponentials the largest hides all others' gradients; their logarithms hide none.
    """
    told = answers_around(subject)
    if subject.run.model.takes_logarithm or bool((told < 0).any()):
        return None
    model = Logits(subject.base, pick=logarithm)
    with subject.run.accounted(PART):
        return model if is_live(subject.counted(model), subject.few) else None


def labelled(subject: Subject) -> Model | None:
    """The model itself, where its answers tell the class and nothing else."""
    if subject.random or subject.run.threat.norm != "linf":
        return None
    ranked = answers_around(subject).sort(dim=1).values
    return subject.base if bool((ranked == ranked[:1]).all()) else None


def answers_around(subject: Subject) -> Tensor:
    """Answers about some examples, between them, and on the way to the bounds.

    A model that has margins tells others there.
    """
    model, few = subject.counted(subject.base), subject.few
    low, high = boxes(few, subject.run.threat.bounds, None)
    ways = [few, (few + few.flip(0)) / 2, (few + low) / 2, (few + high) / 2]
    with subject.run.accounted(PART):
        return logits_of(model, torch.cat(ways), few.dtype, subject.run.batch_size)


def along_surrogate(subject: Subject) -> Model | None:
    """The gradient of the surrogate that the caller gave."""
    return subject.surrogate and gradient_from(subject.base, subject.surrogate)


def along_student(subject: Subject) -> Model | None:
    """The gradient of a student distilled from the model's own answers on the examples."""
    bounds = subject.run.threat.bounds
    inputs = examples_at_hand(subject)
    reach = spread(subject) / tensor_of(bounds[1] - bounds[0]).max().item()
    with warnings.catch_warnings():
        # The report tells how well it agrees; around each of few there are the more points.
        warnings.filterwarnings("ignore", "X holds .* examples", UserWarning)
        student = distil_surrogate(
            subject.steady(subject.base),
            inputs,
            rounds=max(4, QUESTIONS // len(inputs)),
            reach=min(reach, 1.0),
            bounds=bounds,  # type: ignore[arg-type]
            random_state=subject.run.seed,
        )
    subject.run.records.cost(PART).add(student.forwards, 0, student.seconds)
    return gradient_from(subject.base, student)


def climbs(subject: Subject) -> dict[str, Attack]:
    """Strong attacks that follow a gradient; no softmax saturates in their losses."""
    threat, budget = subject.run.threat, subject.budget()
    rescaled = {"loss": "rescaled_cross_entropy", "steps": 50, **budget}
    if threat.norm in COUNTS:
        counted: Attack = partial(attacks.pgd, loss="margin", steps=100, **budget)
        return {
            "PGD margin": counted,
            "PGD rescaled cross-entropy": partial(attacks.pgd, **rescaled),
        }
    if threat.norm == "l1":
        margin: Attack = partial(attacks.apgd, loss="margin", steps=100, **budget)
        return {
            "APGD margin": margin,
            "APGD rescaled cross-entropy": partial(attacks.apgd, **rescaled),
        }
    # A point that fools one mean may not fool the next: of a random model the best one counts.
    runs: dict[str, Any] = {"restarts": 3, "steps": 40}
    if subject.random:
        runs = {"early_stop": False, "steps": 20}
        rescaled |= runs
    pgd = partial(
        attacks.pgd,
        loss="margin",
        step_size=2 * threat.epsilon,
        step_decay=True,
        random_start="blocks",
        **runs,
        **budget,
    )
    return {"PGD margin": pgd, "APGD rescaled cross-entropy": partial(attacks.apgd, **rescaled)}


def searches(subject: Subject) -> dict[str, Attack]:
    """What follows no gradient at all."""
    return {"Square": partial(attacks.square, queries=QUERIES, **subject.budget())}


def to_neighbours(subject: Subject) -> dict[str, Attack]:
    """What goes towards examples of other classes."""
    told = {name: value for name, value in subject.budget().items() if name != "random_state"}
    goals, classes = answered_at_hand(subject)
    return {"Other examples": partial(towards, goals=goals, classes=classes, **told)}


def by_labels(subject: Subject) -> dict[str, Attack]:
    """What needs no more than to know whether a point fools."""
    told = {name: value for name, value in subject.budget().items() if name != "norm"}
    return {"RayS": partial(attacks.rays, queries=QUERIES, **told)}


def from_the_boundary(subject: Subject) -> dict[str, Attack]:
    """The search behind a rise of the margin, in l2; none elsewhere."""
    if subject.run.threat.norm != "l2":
        return {}
    told = {name: subject.budget()[name] for name in ("bounds", "batch_size", "random_state")}
    told["stop_within"] = subject.run.threat.epsilon
    return {"Carlini-Wagner L2": partial(hidden_boundary_l2, **told)}


class Form(NamedTuple):
    """A form in which a model is attacked again."""

    label: str
    """What the names of attacks say of it."""
    made: Callable[[Subject], Model | None]
    """None where the model has no such form."""
    attacks: Callable[[Subject], dict[str, Attack]] = climbs
    least: int = 1
    """Examples left that it pays for."""
    own: str = "its own gradient, of the margin and of a rescaled cross-entropy"
    """What is said of it where the model is asked as it is."""


PLAIN = Form("again", climbed)
PARTS = Form("past its parts", past_parts)
FRONT = Form("past its front", past_front)
LOGARITHM = Form(
    "on logarithms",
    logarithmic,
    own="the gradient of the logarithms of its answers, which are never negative",
)
HEAD = Form("within its head", within_head)
SMOOTH = Form("smoothed", smoothed)
READOUT = Form("along a readout", along_readout, least=5)
SURROGATE = Form("along the surrogate", along_surrogate)
STUDENT = Form("along a student", along_student, least=5)
SEARCH = Form("again", whole, searches, own=f"a random search of {QUERIES} queries")
TOWARDS = Form(
    "cut to the ball",
    whole,
    to_neighbours,
    own=f"the way to each of the {NEAREST} nearest examples of other classes",
)
LABELS = Form(
    "by labels",
    labelled,
    by_labels,
    own=f"a search of {QUERIES} queries that uses nothing but the class",
)
BOUNDARY = Form(
    "again",
    climbed,
    from_the_boundary,
    own="a search for the least distance, from the decision boundary",
)

FORMS = (
    *(PLAIN, BOUNDARY, LOGARITHM, HEAD, PARTS, FRONT, SMOOTH),
    *(READOUT, LABELS, SURROGATE, STUDENT, TOWARDS, SEARCH),
)
"""All forms, in the order in which they are tried."""


def all_at_hand(subject: Subject) -> Iterator[Chunk]:
    """All examples that can be read again."""
    if subject.data.memory is None:
        kept = subject.run.records.sample
        return iter([Chunk(kept["index"], kept["inputs"], kept["labels"])])
    dtype = dtype_of(subject.run.model, torch.get_default_dtype())
    return subject.data.chunks(subject.chunk_size, dtype)


def examples_at_hand(subject: Subject) -> Tensor:
    """Inputs to distil a student from: as many as questions are asked about, at most."""
    return answered_at_hand(subject)[0]


def answered_at_hand(subject: Subject) -> tuple[Tensor, Tensor]:
    """The same inputs, and the column that the model answers with about each."""
    inputs: list[Tensor] = []
    places: list[Tensor] = []
    for chunk in all_at_hand(subject):
        inputs.append(chunk.inputs.cpu())
        places.append(chunk.places.cpu())
        if sum(map(len, inputs)) >= QUESTIONS:
            break
    answers = subject.run.records.columns["predicted"][torch.cat(places)]
    return torch.cat(inputs)[:QUESTIONS], answers[:QUESTIONS]


def spread(subject: Subject) -> float:
    """Largest change of a coordinate by uniform noise that is about epsilon long."""
    threat, size = subject.run.threat, subject.few[0].numel()
    if threat.norm in COUNTS:
        return threat.epsilon / size
    return threat.epsilon * {"linf": 1.0, "l2": sqrt(3 / size), "l1": 2 / size}[lp(threat.norm)]


def points_around(subject: Subject) -> Tensor:
    """The examples, and points of the ball around them: as many as questions are asked, about."""
    inputs = examples_at_hand(subject)
    points = inputs.repeat(max(1, QUESTIONS // len(inputs)), *[1] * (inputs.ndim - 1))
    generator = torch.Generator().manual_seed(subject.run.seed)
    noise = 2 * torch.rand(points.shape, generator=generator, dtype=points.dtype, device="cpu") - 1
    noise[: len(inputs)] = 0
    low, high = boxes(points, subject.run.threat.bounds, None)
    return (points + spread(subject) * noise).clamp(low, high)


class Jitter(nn.Module):
    """Uniform noise."""

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = radius

    def forward(self, inputs: Tensor) -> Tensor:
        """Return other inputs nearby."""
        return inputs + self.radius * (2 * torch.rand_like(inputs) - 1)


class Asked(nn.Module):
    """Any model as a module."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Return its logits."""
        return self.model(inputs)
