"""Chapter 9: the Swiss cheese."""

import math

import torch
from torch import Tensor

from ..estimators._calibration import joint_thresholds
from ._properties import agrees, depends, differ, points
from ._task import Function, Property, Task


def detector_threshold(scores: Tensor, rate: float) -> float:
    """Return the clean score that at most a share rate of further clean examples exceeds."""
    ordered = scores.sort().values
    place = math.ceil((1 - rate) * (len(scores) + 1))
    return ordered[min(place, len(scores)) - 1].item()


def answer_or_reject(logits: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Return each row's class, or -1 where its score is above the threshold."""
    return logits.argmax(dim=1).masked_fill(scores > threshold, -1)


def stopped_first(stops: Tensor) -> Tensor:
    """Return, for each layer, how many attacks it stops that no layer before it has stopped."""
    passed = torch.ones_like(stops[0])
    counts = []
    for layer in stops:
        counts.append((layer & passed).sum())
        passed = passed & ~layer
    return torch.stack(counts)


def _scores() -> list[tuple[Tensor, float]]:
    shuffled = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 7.0, 8.0, 6.0])
    uniform = points(19, 10, seed=9).flatten()[:99]
    return [(shuffled, 0.2), (shuffled, 0.5), (uniform, 0.05), (uniform, 0.1), (-uniform, 0.05)]


def _by_library(scores: Tensor, rate: float) -> float:
    return joint_thresholds(scores[:, None], rate).item()


def _few_alarms(function: Function, scores: Tensor, rate: float) -> str:
    share = (scores > function(scores, rate)).double().mean().item()
    return "" if share <= rate + 1e-9 else f"got {share:.3g} of the clean examples above it"


def _not_idle(function: Function, scores: Tensor, rate: float) -> str:
    share = (scores > function(scores, rate)).double().mean().item()
    return "" if share > 0 else "got a threshold that no clean score exceeds: it was too careful"


def _any_order(function: Function, scores: Tensor, rate: float) -> str:
    return differ(function(scores.flip(0), rate), function(scores, rate))


def _other_unit(function: Function, scores: Tensor, rate: float) -> str:
    return differ(function(3 * scores + 1, rate), 3 * function(scores, rate) + 1)


def _next_one(function: Function, rate: float, n: int) -> str:
    """Of n + 1 exchangeable scores the left-out one exceeds in at most a share ``rate``."""
    scores = torch.arange(1.0, n + 2)
    alarms = 0
    for place in range(n + 1):
        others = torch.cat([scores[:place], scores[place + 1 :]])
        alarms += bool(scores[place] > function(others, rate))
    share = alarms / (n + 1)
    return "" if share <= rate + 1e-9 else f"got {share:.3g} of left-out clean examples above it"


def _answers() -> list[tuple[Tensor, Tensor, float]]:
    rows = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 3.0, 2.0]])
    suspicion = torch.tensor([0.75, 0.25, 0.5])
    return [(rows[:1], suspicion[:1], 0.5), (rows, suspicion, 0.5), (rows, suspicion, 0.125)]


def _one_by_one(logits: Tensor, scores: Tensor, threshold: float) -> Tensor:
    pairs = zip(logits.tolist(), scores.tolist(), strict=True)
    return torch.tensor([-1 if s > threshold else row.index(max(row)) for row, s in pairs])


def _answers_all(function: Function, logits: Tensor, scores: Tensor, threshold: float) -> str:
    return differ(function(logits, scores, math.inf), logits.argmax(dim=1))


def _rejects_all(function: Function, logits: Tensor, scores: Tensor, threshold: float) -> str:
    return differ(function(logits, scores, -1.0), torch.full((len(logits),), -1))


def _equal_score(function: Function, threshold: float) -> str:
    return differ(function(torch.tensor([[0.0, 1.0]]), torch.tensor([threshold]), threshold), [1])


def _whole_numbers(function: Function, logits: Tensor, scores: Tensor, threshold: float) -> str:
    found = function(logits, scores, threshold)
    return "" if found.dtype == torch.int64 else f"got {found.dtype}"


def _cheese() -> list[tuple[Tensor]]:
    rows = [[1, 0, 0, 1, 0], [1, 1, 0, 0, 0], [0, 1, 1, 1, 0]]
    whole = torch.tensor(rows, dtype=torch.bool)
    return [(whole[:1],), (whole[:2],), (whole,), (whole.flip(0),)]


def _attack_by_attack(stops: Tensor) -> Tensor:
    counts = [0] * len(stops)
    for column in stops.T.tolist():
        if any(column):
            counts[column.index(True)] += 1
    return torch.tensor(counts)


def _adds_up(function: Function, stops: Tensor) -> str:
    return differ(function(stops).sum(), stops.any(dim=0).sum())


def _useless_twin(function: Function, stops: Tensor) -> str:
    found = function(torch.cat([stops, stops[-1:]]))
    return differ(found, torch.cat([function(stops), torch.zeros(1, dtype=torch.int64)]))


def _first_counts_all(function: Function, stops: Tensor) -> str:
    return differ(function(stops)[0], stops[0].sum())


TASKS = [
    Task(
        answer=detector_threshold,
        chapter=9,
        difficulty="medium",
        minutes=15,
        statement="""A detector's score is larger for more suspicious inputs, and an alarm is a
        score above the threshold. From the scores of n clean examples, return the threshold as a
        float: of the sorted scores, the one in place ceil((1 - rate) (n + 1)), counted from 1, at
        most the last. Then a further clean example alarms with a probability of at most rate.""",
        hints=(
            "Sort in ascending order: the threshold is one of the clean scores.",
            "n + 1 rather than n counts the example that is still to come.",
            "Places are counted from 1, and Python's from 0; more than n is n.",
        ),
        properties=[
            agrees(_by_library, _scores, "LayeredDefense sets its threshold in the same way."),
            Property(
                "false-positives",
                "be exceeded by at most a share rate of the clean scores",
                "every false alarm is a clean example lost.",
                _few_alarms,
                _scores,
            ),
            Property(
                "further-example",
                "hold for an example that was left out",
                "the threshold is for inputs that are still to come.",
                _next_one,
                lambda: [(0.2, 9), (0.1, 29), (0.5, 4)],
            ),
            Property(
                "not-idle",
                "be exceeded by some clean scores where the rate allows it",
                "a threshold above everything never alarms.",
                _not_idle,
                lambda: [_scores()[0], _scores()[3]],
            ),
            Property(
                "order",
                "not see the order of the scores",
                "the examples come in any order.",
                _any_order,
                _scores,
            ),
            Property(
                "units",
                "follow a change of the scores' unit",
                "a quantile knows ranks only; a mean and a deviation assume a bell curve.",
                _other_unit,
                _scores,
            ),
            depends(
                lambda: _scores()[0],
                "the rate is the user's choice.",
                scores=_scores()[0][0] + 1,
                rate=0.5,
            ),
        ],
    ),
    Task(
        answer=answer_or_reject,
        chapter=9,
        difficulty="easy",
        minutes=5,
        statement="""Let a classifier refuse: return, as int64, the class with the largest logit of
        each row, or -1 where the row's score is above the threshold. A score equal to the threshold
        is no alarm.""",
        hints=(
            "First the classes, then the refusals.",
            "A comparison of tensors gives a bool tensor, which selects rows.",
            "torch.where(scores > threshold, -1, logits.argmax(dim=1))",
        ),
        properties=[
            agrees(_one_by_one, _answers, "a refusal depends on its own row's score."),
            Property(
                "infinite-threshold",
                "answer everything if the threshold is infinite",
                "then it is the classifier without a detector.",
                _answers_all,
                _answers,
            ),
            Property(
                "low-threshold",
                "refuse everything if the threshold is below all scores",
                "then it is a classifier that is never wrong, and useless.",
                _rejects_all,
                _answers,
            ),
            Property(
                "equal",
                "answer where the score is the threshold",
                "the threshold is one of the clean scores.",
                _equal_score,
                lambda: [(0.5,)],
            ),
            Property(
                "whole-numbers",
                "return int64",
                "classes are compared with labels and used as places.",
                _whole_numbers,
                _answers,
            ),
        ],
    ),
    Task(
        answer=stopped_first,
        chapter=9,
        difficulty="medium",
        minutes=15,
        statement="""Slices of cheese in a row. `stops` is a bool tensor of shape (n_layers, n):
        whether a layer would stop an attack. Return, as int64 of shape (n_layers,), how many
        attacks each layer stops that the layers before it let through.""",
        hints=(
            "What a layer sees is what all layers before it have passed.",
            "Keep a bool tensor of the attacks that are still on their way.",
            "count (layer & passed), then passed = passed & ~layer.",
        ),
        properties=[
            agrees(
                _attack_by_attack,
                _cheese,
                "layers that stop the same attacks do not add up.",
            ),
            Property(
                "adds-up",
                "add up to the attacks that any layer stops",
                "each attack is stopped once, however many layers would have stopped it.",
                _adds_up,
                _cheese,
            ),
            Property(
                "twin",
                "give a second copy of the last layer nothing",
                "holes in the same place: the cheese is as thick as one slice.",
                _useless_twin,
                _cheese,
            ),
            Property(
                "first-layer",
                "give the first layer all that it stops",
                "nothing stands before it.",
                _first_counts_all,
                _cheese,
            ),
        ],
    ),
]
