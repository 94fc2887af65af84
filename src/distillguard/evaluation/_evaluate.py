"""The evaluation that a caller asks for."""

import platform
from collections.abc import Iterator
from contextlib import closing
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._boxes import check_bounds, checked_mask
from .._modes import dtype_of
from .._processes import Processes, joined
from .._random import draw_seed, example_keys
from .._typing import Bounds, Mask, Model, Norm
from .._validation import (
    check_at_least,
    check_choice,
    check_norm,
    check_positive,
    check_random_state,
)
from ._judge import ThreatModel
from ._model import EvaluatedModel, resolve_model
from ._presets import named, preset
from ._progress import Progress, examples_in
from ._query import QueryCounter, with_gradients
from ._records import Records
from ._run import Run
from ._shards import gathered
from ._state import StateFile, digest
from ._statistics import wilson
from ._stream import Chunk, LabelEncoder, chunks
from .diagnosis._diagnose import PROBES, diagnose, sample_size
from .diagnosis._rules import findings
from .report._report import Example, RobustnessReport
from .report._rows import count_survivors, row


@with_gradients
def evaluate(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    norm: Norm = "linf",
    epsilon: float,
    attacks: Any = "standard",
    survivors_only: bool = True,
    diagnosis: str | None = "auto",
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    chunk_size: int = 1024,
    surrogate: Any = None,
    state_file: str | PathLike[str] | None = None,
    random_state: int | None = None,
    progress: bool = False,
) -> RobustnessReport:
    """Attack a model, judge the attacks too, and report what may be believed.

    Every point that an attack returns is checked against the threat model and shown to the
    model again; nobody's own claim of success counts. A diagnosis then tells whether the
    attacks failed because the model is robust or because they could not see [1]_ [2]_.

    Parameters
    ----------
    model : nn.Module, callable or estimator
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). Of a fitted estimator
        its ``student_`` is evaluated, and labels are looked up in its ``classes_``.
    X : Tensor or array of shape (n, ...), Dataset or DataLoader
        Clean examples, floating point, within ``bounds``; a Dataset or DataLoader of pairs
        (inputs, labels) is read once, in bounded memory.
    y : Tensor or array of shape (n,), optional
        True classes: integers, or whatever the estimator was fitted with. Not with a Dataset
        or DataLoader.
    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the threat model.
    epsilon : float
        Radius of the threat model, in the units of ``X``.
    attacks : {"standard", "quick"} or mapping, default="standard"
        A preset, or names with callables ``(model, inputs, labels) -> Tensor``. An entry may
        be a pair ``(callable, norm)`` that tells the norm in which its distances are worth
        reading.
    survivors_only : bool, default=True
        Run each attack only on the examples that the earlier ones did not fool. The worst case
        is the same and the cost much smaller; ``False`` gives each attack its own figures, to
        be put side by side.
    diagnosis : {"auto", "full", "brief"} or None, default="auto"
        How closely to look at why the attacks failed. A brief one costs no more than the attacks
        of ``"quick"`` and has fewer findings to show; ``"auto"`` is brief for ``"quick"`` and full
        for all other attacks. None looks at nothing but what the attacks left behind.
    bounds : tuple of float or Tensor, default=(0.0, 1.0)
        Lowest and highest value an input may take: two numbers, or tensors broadcastable to
        one input, such as one bound for each feature or channel.
    mask : Tensor of bool, optional
        Which coordinates may change, in the shape of one input or, of inputs in memory, of all.
        Attacks of this package that are given none get it; of others, points that change
        anything else do not count. All may if not given.
    batch_size : int, default=256
        Examples on the device at once.
    chunk_size : int, default=1024
        Examples handed to an attack at once. Memory grows with it; results of the attacks of
        this package do not change.
    surrogate : nn.Module, callable or fitted estimator, optional
        Another model for the same task, undefended at best. Its adversarial examples are tried
        on ``model``; where they beat attacks on ``model`` itself, those were blind.
    state_file : path-like, optional
        Where to write what is known after each chunk. If the file is there already, the
        evaluation goes on where it was interrupted, with the same result as if it had not been.
        With several processes each has its own file, with its rank appended to the name.
    random_state : int, optional
        Seed of everything random; a fresh one if not given. The report names it either way.
        Attacks of this package take it where they have none of their own. For anybody else's,
        PyTorch's global generators are seeded with it before each chunk and put back
        afterwards; one that draws elsewhere, from NumPy say, must seed itself.
    progress : bool, default=False
        Show a progress bar: each example counts once for the clean pass, once for each attack
        and, if it is in the sample, once for each measurement of the diagnosis.

    Returns
    -------
    RobustnessReport
        Accuracies with intervals, one row per attack, and findings.

    Raises
    ------
    TypeError
        If ``model``, ``X``, ``y`` or an attack is of the wrong kind, or an attack returns
        something else than a tensor.
    ValueError
        If a parameter is out of its range, ``X`` is empty or leaves ``bounds``, labels do not
        fit, the model returns something else than logits, an attack returns points of
        another shape, or ``state_file`` belongs to another evaluation.
    SaveError
        If ``state_file`` is damaged.

    See Also
    --------
    RobustnessReport : What is returned.

    References
    ----------
    .. [1] N. Carlini, A. Athalye, N. Papernot, W. Brendel, J. Rauber, D. Tsipras,
       I. Goodfellow, A. Madry and A. Kurakin, "On Evaluating Adversarial Robustness", 2019.
       https://arxiv.org/abs/1902.06705
    .. [2] A. Athalye, N. Carlini and D. Wagner, "Obfuscated Gradients Give a False Sense of
       Security", ICML 2018, section 3. https://arxiv.org/abs/1802.00420

    Examples
    --------
    >>> import torch
    >>> from distillguard import evaluate
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[9.0, 0.0], [0.0, 9.0]]))
    >>> X, y = torch.tensor([[0.9, 0.2], [0.6, 0.5]]), torch.tensor([0, 0])
    >>> report = evaluate(model, X, y, epsilon=0.2, attacks="quick", random_state=0)
    >>> report.clean_accuracy, report.robust_accuracy
    (1.0, 0.5)
    """
    check_norm(norm)
    check_positive("epsilon", epsilon)
    check_bounds(bounds)
    check_at_least("batch_size", batch_size, 1)
    check_at_least("chunk_size", chunk_size, 1)
    check_choice("diagnosis", diagnosis, ("auto", "full", "brief", None))
    if diagnosis == "auto":
        diagnosis = "brief" if attacks == "quick" else "full"
    check_random_state(random_state)
    subject = resolve_model(model)
    if surrogate is not None:
        surrogate = resolve_model(surrogate, "surrogate").model
    state = None if state_file is None else StateFile(state_file)
    processes = joined()
    if state is not None and processes.count > 1:
        state.path = state.path.with_name(f"{state.path.name}.{processes.rank}")
    if state is not None:
        state.prepare()
    if random_state is None and state is not None:
        random_state = state.random_state()
    seed = processes.broadcast(draw_seed(random_state))
    threat = ThreatModel(norm, float(epsilon), as_bounds(bounds), as_mask(mask, X))
    chosen = (
        preset(attacks, threat, batch_size=batch_size, random_state=seed)
        if isinstance(attacks, str)
        else named(attacks, threat, seed)
    )
    records = Records()
    if state is not None:
        records = state.resume(
            {
                "threat model": threat.brief(),
                "attacks": attacks if isinstance(attacks, str) else list(chosen),
                "survivors_only": survivors_only,
                "chunk_size": chunk_size,
                "seed": seed,
                "processes": processes.count,
                "weights": digest(subject.model),
            }
        )
    counted = QueryCounter(subject.model)
    run = Run(counted, chosen, threat, survivors_only, batch_size, seed, records)
    stream = chunks(
        X,
        y,
        encode=LabelEncoder(subject.classes),
        dtype=dtype_of(counted, torch.get_default_dtype()),
        bounds=threat.bounds,
        size=chunk_size,
    )
    bar = Progress(
        progress and processes.first,
        examples_in(X),
        stages=1 + len(chosen),
        sampled=sample_size(diagnosis),
        probes=PROBES[diagnosis],
        processes=processes.count,
    )
    with closing(bar):
        run.progress = bar
        measure(run, stream, processes, state)
        bar.diagnose(len(run.records))
        run.records = gathered(run.records, processes)
        return summary(run, subject, surrogate, processes, diagnosis)


def as_bounds(bounds: Bounds) -> Bounds:
    """Two numbers or two tensors."""
    low, high = bounds
    if isinstance(low, Tensor | np.ndarray) or isinstance(high, Tensor | np.ndarray):
        return torch.as_tensor(low).detach(), torch.as_tensor(high).detach()
    return float(low), float(high)


def as_mask(mask: Any, X: Any) -> Mask | None:
    """Return the mask with a first axis of 1 or, of inputs in memory, n."""
    if mask is None:
        return None
    shape = getattr(X, "shape", None)
    # What a loader yields is not known yet: a mask for one of its inputs is checked with them.
    return torch.as_tensor(mask)[None] if shape is None else checked_mask(mask, tuple(shape))


def measure(
    run: Run, stream: Iterator[Chunk], processes: Processes, state: StateFile | None
) -> None:
    """Measure this process's part of every chunk that is not known yet."""
    known = list(run.records.digests)
    for number, chunk in enumerate(stream):
        # Odd weights, so that the order counts.
        keys = example_keys(chunk.inputs, run.seed).cpu() + chunk.labels.cpu()
        mark = int((keys * (2 * chunk.places + 1)).sum())
        mine = Chunk(*(part[processes.rank :: processes.count] for part in chunk))
        if number >= len(known):
            run.add(mine)
            run.records.digests.append(mark)
            if state is not None:
                state.write(run.records)
        elif known[number] != mark:
            raise ValueError(
                "X must yield the examples that state_file was written for, in the same "
                f"order, got others in chunk {number}"
            )
        else:
            run.progress.skip(len(mine.inputs))


def summary(
    run: Run,
    subject: EvaluatedModel,
    surrogate: Model | None,
    processes: Processes,
    diagnosis: str | None,
) -> RobustnessReport:
    """Diagnose, sum up, apply the rules."""
    from .. import __version__

    records, names = run.records, list(run.attacks)
    observations = diagnose(run, diagnosis, surrogate, processes)
    n = len(records)
    clean, robust = observations.correct, count_survivors(records, names)
    return RobustnessReport(
        model=subject.name,
        norm=run.threat.norm,
        epsilon=run.threat.epsilon,
        bounds=run.threat.described()["bounds"],
        mask=run.threat.described()["mask"],
        n_examples=n,
        clean_accuracy=clean / n,
        clean_interval=wilson(clean, n),
        robust_accuracy=robust / n,
        robust_interval=wilson(robust, n),
        attacks=tuple(
            row(records, name, run.attacks[name].norm, run.survivors_only) for name in names
        ),
        survivors_only=run.survivors_only,
        findings=findings(observations),
        observations=observations,
        costs={part: cost for part, cost in records.costs.items() if part not in names},
        random_state=run.seed,
        versions={
            "distillguard": __version__,
            "Python": platform.python_version(),
            "PyTorch": torch.__version__,
        },
        examples=examples(records, names, subject.classes),
    )


def examples(records: Records, names: list[str], classes: Any | None) -> tuple[Example, ...]:
    """The kept fooled examples, with the caller's names for the classes."""
    shown = records.shown
    if not len(shown):
        return ()

    def called(label: int) -> str:
        return str(label if classes is None else classes[label])

    return tuple(
        Example(
            original=shown["inputs"][i],
            adversarial=shown["adversarial"][i],
            label=called(int(shown["labels"][i])),
            predicted=called(int(shown["predicted"][i])),
            attack=names[int(shown["attack"][i])],
            distance=float(shown["distance"][i]),
        )
        for i in range(len(shown))
    )
