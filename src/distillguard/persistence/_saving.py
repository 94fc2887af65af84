"""``save`` and ``load``: an estimator to a folder and back."""

import math
import os
from typing import Any

import torch
from torch import nn

from .._typing import NetworkFactory
from . import _folder
from ._answers import LARGEST, Answers, answers_of, check_answers
from ._manifest import described, expect, restored
from ._networks import built, check_width, fill, networks_of, state_of, width


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to a folder, in the place of a save that is there."""
    held = {name.rstrip("_"): getattr(estimator, name) for name in networks_of(type(estimator))}
    states = {name: state_of(network) for name, network in held.items()}
    content = described(estimator, held)
    shape = estimator.input_shape_
    answers = {
        name: answers_of(network, shape, width(network, estimator))
        for name, network in held.items()
    }
    content["answers"] = {name: each for name, each in answers.items() if each}
    _folder.write(path, content, states)


def load(
    path: str | os.PathLike[str],
    module: nn.Module | NetworkFactory | None = None,
    teacher: Any = None,
    *,
    device: str = "cpu",
) -> Any:
    """Read a fitted estimator that its ``save`` wrote.

    It predicts what the saved one predicted, bit for bit on the same machine. Nothing is
    unpickled and no code comes from the folder, so that a save from a stranger is safe to try:
    it loads or raises :class:`~distillguard.exceptions.SaveError`.

    Parameters
    ----------
    path : str or path
        The folder.
    module : nn.Module or callable, optional
        The network, as the estimator was given it: a module, whose weights are not used, or a
        callable ``(input_shape, n_classes) -> nn.Module``. It may be left out where the
        estimator had None, a function of :mod:`distillguard.networks`, or a partial of one
        with keywords that JSON can carry.
    teacher : nn.Module, callable or fitted estimator, optional
        The same for the teacher, where the estimator was given another network for it.
    device : str, default="cpu"
        Where the networks are put: a torch device, or ``"auto"`` for CUDA if there is any.

    Returns
    -------
    estimator
        Of the class that was saved. ``fit`` trains it anew with the saved parameters.

    Raises
    ------
    SaveError
        If the save is damaged, truncated, of another program or of a newer version; or if a
        network does not fit it, in which case the message names the first tensor that differs;
        or if a network answers a few inputs otherwise than the saved one did, as one with
        another constant in its constructor does.
    TypeError
        If ``module`` or ``teacher`` is neither a module nor a callable that makes one.

    Warns
    -----
    UserWarning
        If parameters such as callbacks or an optimiser's function could not be saved. They are
        at their defaults, which matters to the next ``fit`` only.

    Examples
    --------
    >>> import tempfile
    >>> from distillguard import DefensiveDistiller, datasets, load
    >>> X, y = datasets.load_digits("train")
    >>> distiller = DefensiveDistiller(max_epochs=1, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     distiller.save(folder)
    ...     loaded = load(folder)
    >>> bool((loaded.decision_function(X) == distiller.decision_function(X)).all())
    True
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    manifest, states = _folder.read(path)
    estimator = restored(manifest, {"module": module, "teacher": teacher})
    attributes = networks_of(type(estimator))
    names = [attribute.rstrip("_") for attribute in attributes]
    expect(states.keys() == {*names}, "networks", ", ".join(names), [*states])
    expect(manifest["answers"].keys() <= {*names}, "answers", "networks", [*manifest["answers"]])
    for (attribute, parameter), name in zip(attributes.items(), names, strict=True):
        chosen = parameter if getattr(estimator, parameter) is not None else "module"
        network = built(chosen, getattr(estimator, chosen), estimator, states[name], attribute)
        network = estimator._assembled(attribute, network, states[name])
        fill(network, chosen, name, states[name])
        if name in manifest["channels_last"]:
            network.to(memory_format=torch.channels_last)
        network.eval()
        check_width(network, chosen, estimator)
        if answers := manifest["answers"].get(name):
            _check_form(answers, estimator, width(network, estimator))
            check_answers(network, chosen, name, estimator.input_shape_, answers)
        setattr(estimator, attribute, network.to(torch.device(device)))
    return estimator


def _check_form(answers: Answers, estimator: Any, n_columns: int) -> None:
    """Refuse answers that no save of this estimator has."""
    small = math.prod(estimator.input_shape_) <= LARGEST
    rows = [row for rows in answers["logits"].values() for row in rows]
    right = all(len(row) == n_columns and all(abs(z) < 1e300 for z in row) for row in rows)
    whole = all(answers["logits"].values())
    expect(small and right and whole, "answers", f"rows of {n_columns} logits", rows)
