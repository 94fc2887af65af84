"""Hinton's networks: a large teacher, small students, and what they know of unseen classes."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import quick_precision
from benchmarks.papers._claim import Row
from benchmarks.papers._lab import CLASSES, Examples, Lab, logits_of
from distillguard import DefensiveDistiller, UndefendedClassifier
from distillguard.networks import mlp

BIASES = torch.arange(-30, 30.01, 0.1)
"""Shifts to choose from."""


class Jitter(nn.Module):
    """Shift images by up to a number of pixels each way, in training only."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, inputs: Tensor) -> Tensor:
        """Return each image shifted by itself, black where nothing comes in."""
        if not self.training:
            return inputs
        n, _, height, width = inputs.shape
        reach = 2 * self.pixels + 1
        down, right = torch.randint(reach, (2, n, 1), device=inputs.device)
        rows = (down + torch.arange(height, device=inputs.device))[:, None, :, None]
        columns = (right + torch.arange(width, device=inputs.device))[:, None, None, :]
        image = torch.arange(n, device=inputs.device)[:, None, None, None]
        channel = torch.arange(inputs.shape[1], device=inputs.device)[None, :, None, None]
        padded = nn.functional.pad(inputs, [self.pixels] * 4)
        return padded[image, channel, rows, columns]


def large(input_shape: tuple[int, ...], n_classes: int, width: int = 1200) -> nn.Module:
    """Build Hinton's teacher: two layers of 1,200, dropout and jittered inputs."""
    flat = torch.Size(input_shape).numel()
    first = [Jitter(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(flat, width), nn.ReLU()]
    second = [nn.Dropout(0.5), nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*first, *second, nn.Linear(width, n_classes))


def training(lab: Lab, seed: int) -> dict[str, Any]:
    """Settings of a student's training."""
    epochs = max(2 * lab.epochs // 5, 1)
    return {"max_epochs": epochs, "precision": quick_precision(), "random_state": seed}


def teacher_state(lab: Lab, seed: int) -> dict[str, Tensor]:
    """Weights of the teacher, trained for longer."""
    settings = training(lab, seed) | {"max_epochs": lab.epochs}
    return UndefendedClassifier(large, **settings).fit(*lab.train).model_.cpu().state_dict()


def trained_student(
    lab: Lab,
    seed: int,
    width: int,
    teacher: nn.Module,
    temperature: float,
    weight: float,
    omitted: tuple[int, ...],
) -> nn.Module:
    """Train a small network, on hard labels alone if their weight is 1."""
    X, y = lab.train
    network, settings = partial(mlp, hidden=(width, width)), training(lab, seed)
    if weight == 1:
        return UndefendedClassifier(network, **settings).fit(X, y).model_.requires_grad_(False)
    distiller = DefensiveDistiller(
        network,
        temperature=temperature,
        teacher=teacher,
        prefit_teacher=True,
        hard_label_weight=weight,
        **settings,
    )
    kept = ~torch.isin(y, torch.tensor(omitted, dtype=y.dtype))
    distiller.fit(X, y, transfer=X[kept] if omitted else None)
    return distiller.student_.requires_grad_(False)


def percent_wrong(model: nn.Module, examples: Examples) -> float:
    """Errors in percent of the examples."""
    X, y = examples
    return 100 * (logits_of(model, X).argmax(dim=1) != y).double().mean().item()


def corrected(model: nn.Module, lab: Lab, omitted: tuple[int, ...]) -> Row:
    """Shift the biases of whichever classes are fewer, as suits the training images best.

    What suits the test images best, as the paper has it, stands beside it.
    """
    shifted = torch.zeros(CLASSES)
    seen = [label for label in range(CLASSES) if label not in omitted]
    shifted[list(omitted) if len(omitted) < len(seen) else seen] = 1
    X, labels = lab.test
    logits, labels = logits_of(model, X).cpu(), labels.cpu()
    unseen = torch.isin(labels, torch.tensor(omitted))

    def percent(bias: float, among: Tensor) -> float:
        wrong = (logits + bias * shifted).argmax(dim=1) != labels
        return 100 * wrong[among].double().mean().item()

    everything = torch.ones_like(unseen)
    row: Row = {"errors_of_unseen": percent(0.0, unseen)}
    known = logits_of(model, lab.train[0].to(lab.device)).cpu()
    for key, chosen in (
        ("", _best_bias(known, lab.train[1], shifted)),
        ("_by_test", _best_bias(logits, labels, shifted)),
    ):
        row[f"bias{key}"] = chosen
        row[f"corrected_errors{key}"] = percent(chosen, everything)
        row[f"corrected_errors_of_unseen{key}"] = percent(chosen, unseen)
    return row


def _best_bias(logits: Tensor, labels: Tensor, shifted: Tensor) -> float:
    """Of all shifts with the fewest errors, the middle one."""
    wrong = [((logits + bias * shifted).argmax(dim=1) != labels).sum() for bias in BIASES]
    best = BIASES[torch.stack(wrong) == min(wrong)]
    return best[len(best) // 2].item()
