"""The evaluation that a caller asks for."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .._boxes import check_bounds, checked_mask, tensor_of
from .._data import Chunk
from .._data import examples as open_examples
from .._modes import dtype_of
from .._processes import Processes, joined
from .._random import draw_seed
from .._rejection import rejects
from .._typing import Bounds, Distance, Mask, Model
from .._validation import (
    DISTANCES,
    check_at_least,
    check_choice,
    check_epsilon,
    check_norm,
    check_random_state,
)
from .._version import __version__
from ..adaptive._averaged import averaged
from ._captions import Captions, ClassNames
from ._entries import resolve_attacks
from ._errors import no_attack_ran
from ._judge import ThreatModel
from ._model import EvaluatedModel, resolve_model, resolve_surrogate
from ._progress import Progress
from ._query import QueryCounter, with_gradients
from ._records import KEPT, Records
from ._run import Run
from ._search import Precision, check_search, searched
from ._shards import gathered
from ._state import StateFile
from ._statistics import wilson
from ._unasked import unasked
from .diagnosis._diagnose import PROBES, diagnose, few_stand, sample_size
from .diagnosis._observations import Observations
from .diagnosis._rules import findings
from .report._adaptation import Adaptation
from .report._per_example import per_example
from .report._rejection import rejection
from .report._report import Example, RobustnessReport
from .report._rows import class_rows, rows, survivors


@with_gradients
def evaluate(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    norm: Distance = "linf",
    epsilon: float,
    attacks: Any = "standard",
    survivors_only: bool = True,
    diagnosis: str | None = "auto",
    adapt: bool | Literal["auto"] = "auto",
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    chunk_size: int = 1024,
    surrogate: Any = None,
    draws: int = 1,
    state_file: str | PathLike[str] | None = None,
    random_state: int | None = None,
    precision: Precision | None = None,
    compile: bool = False,
    progress: bool = False,
    keep_examples: Literal["few", "fooled", "all"] = "few",
    title: str | None = None,
    class_names: Sequence[str] | Mapping[Any, str] | None = None,
    dataset: str | None = None,
) -> RobustnessReport:
    """Attack a model, check the attacks, and report what can be believed.

    Every point that an attack returns is checked against the threat model and classified again by
    the model; an attack's own claim of success does not count. A diagnosis then tells whether the
    attacks failed because the model is robust or because they were blind [1]_ [2]_.

    Parameters
    ----------
    model : nn.Module, callable or estimator
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). If it is a fitted
        estimator, its ``model_`` is evaluated and labels are looked up in its ``classes_``; if it
        is a pipeline, its last step is evaluated, provided that the others change nothing. Wrap a
        model that returns something else in :class:`~distillguard.networks.Logits`, and one that
        takes normalised inputs in :class:`~distillguard.networks.Normalized`.
    X : Tensor, array, Dataset, DataLoader or iterable
        Clean examples of shape (n, ...) within ``bounds``; or, without ``y``, a pair (X, y), or
        anything that yields batches or examples as pairs (inputs, labels), which is read once, in
        bounded memory. Tensors keep their dtype; other numbers are converted to the model's.
    y : Tensor or array of shape (n,), optional
        True classes: whole numbers from 0, or the labels that the estimator was fitted with. Omit
        it if ``X`` contains labels.
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}, default="linf"
        Norm of the threat model. ``"l0"`` counts the values that change, the three colours of a
        pixel as three, ``"l0_pixels"`` the pixels with all their channels.
    epsilon : float
        Radius of the threat model, in the units of ``X``; in l0 a whole number.
    attacks : str, callable, list or mapping, default="standard"
        ``"standard"``, ``"quick"``, or ``"autoattack"``, the four attacks of AutoAttack [3]_ at
        their published budgets; a list of names of attacks of this package, callables ``(model,
        inputs, labels) -> Tensor`` and presets, or one of them; or a mapping from names to
        callables. An attack of this package, bare or a :func:`functools.partial`, gets ``epsilon``,
        ``norm``, ``bounds``, ``mask``, ``batch_size`` and ``random_state`` if it accepts them and
        does not set them. A pair ``(callable, norm)`` gives the norm in which the distances of an
        attack are reported.
    survivors_only : bool, default=True
        Run each attack only on the examples that the earlier ones did not fool. The worst case is
        the same and the cost much lower; ``False`` runs each attack on all examples, so that their
        figures can be compared.
    diagnosis : {"auto", "full", "brief"} or None, default="auto"
        How thoroughly to examine why the attacks failed. A brief diagnosis costs no more than the
        attacks of ``"quick"`` and can raise fewer findings. ``"auto"`` is full, except that it is
        brief for ``"quick"`` and if the attacks left at most a quarter of the correctly classified
        examples and it fools none of those. None examines only what the attacks themselves showed.
    adapt : bool or "auto", default="auto"
        Whether to apply the remedies of findings and attack again: if the diagnosis finds that the
        gradient is hidden, misleading or random, attacks bypass the modules that hide it (BPDA), or
        follow the features inside the model, the logarithms of its outputs, its mean over draws
        (EOT), its mean over nearby points, its labels alone, a student distilled from its outputs
        on ``X``, or the way to other examples of ``X``. Verdicts remain the model's own, or those
        of a fresh copy if it remembers queries. These attacks have rows and costs of their own,
        ``report.adaptation``, and lower ``quoted_accuracy``; without such a finding none runs.
        ``"auto"`` adapts only the attacks of ``"standard"``.
    bounds : tuple of float or Tensor, default=(0.0, 1.0)
        Lowest and highest value an input may take: two numbers, or tensors broadcastable to one
        input, such as one bound for each feature or channel. Inputs that exceed them only by
        rounding, at most four units in the last place of the larger bound, are clipped to them.
    mask : Tensor of bool, optional
        Which coordinates may change, in the shape of one input or, for inputs in memory, of all. If
        an attack does not accept a mask, its points that change anything else do not count. All
        coordinates may change if not given.
    batch_size : int, default=256
        Examples on the device at once.
    chunk_size : int, default=1024
        Examples passed to an attack at once. Memory grows with it; results of the attacks of this
        package do not depend on it.
    surrogate : nn.Module, callable or fitted estimator, optional
        Another model for the same task, preferably undefended. Its adversarial examples are tried
        on ``model``; if they succeed where attacks on ``model`` itself fail, those were blind.
    draws : int, default=1
        How many draws of a randomised model are averaged: attacks and verdicts use the mean of its
        softmax over so many draws, as in :func:`distillguard.adaptive.averaged`. Verdicts use draws
        that no attack has seen, so that a lucky draw does not count as a success. The number of
        passes grows by the same factor.
    state_file : path-like, optional
        File to which the results are written after each chunk. If it exists, the evaluation resumes
        where it was interrupted, with the same result as without interruption; only the diagnosis
        and ``adapt``, which come after all chunks, begin anew. Of attacks added after those in the
        file, only these run, on the examples that the others left. The file must be for the same
        model, data, attacks and settings, which are compared by what they do rather than by name;
        another device or version of PyTorch or Python causes a warning. With several processes each
        has its own file, with its rank appended to the name.
    random_state : int, optional
        Seed of everything random; a fresh one if not given. The report names it either way. For
        attacks from elsewhere, PyTorch's global generators are seeded with it before each chunk and
        restored afterwards; an attack that uses another generator, such as NumPy's, must seed it
        itself.
    precision : {"bf16-mixed"}, optional
        Precision in which attacks search: matrix products and convolutions in bfloat16, faster
        where the processor has it. Every verdict is made in the model's own precision, and a
        success that exists only in bfloat16 does not count, so that the figure stays a valid upper
        bound. The points along the way of an attack are then not examined (``silent-success``).
    compile : bool, default=False
        Whether attacks search on a version of the model compiled by ``torch.compile``. It needs a
        compiler and time, and pays off for large networks and many examples.
    progress : bool, default=False
        Show a progress bar: each example counts once for the clean pass, once for each attack
        and, if it is in the sample, once for each measurement of the diagnosis.
    keep_examples : {"few", "fooled", "all"}, default="few"
        Which points ``report.examples`` and ``report.adversarial`` hold: ten fooled examples,
        sampled at random; every fooled example, with the point of the first attack that fooled it;
        or all examples, those not fooled with the last valid point of an attack, or unchanged. Only
        "few" is bounded in memory: the others keep input and point of each example in CPU memory,
        and write them to ``state_file`` after each chunk.
    title : str, optional
        Title of the report. ``"Robustness of"`` and the model's name if not given.
    class_names : sequence of str or mapping, optional
        Names of the classes: at least one for each logit, in the order of the logits, or a mapping
        from labels to names. The labels themselves if not given.
    dataset : str, optional
        Name of the data set, such as ``"Fashion-MNIST, test set"``.

    Returns
    -------
    RobustnessReport
        Accuracies with intervals, one row per attack, and findings.

    Raises
    ------
    TypeError
        If ``model``, ``X``, ``y`` or an attack is of the wrong kind.
    ValueError
        If a parameter is out of range, ``X`` is empty or outside ``bounds``, labels do not fit, the
        model returns something other than logits, or an attack has an unknown name or does not
        support the norm.
    AttackError
        If every attack raised an error or returned something other than one point per input. If
        some attacks ran, the rows of the others show the errors.
    SaveError
        If ``state_file`` is damaged, foreign, or from another version of distillguard or another
        evaluation; the message names the difference.
    OSError
        If ``state_file`` cannot be read or written; the error names it.

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
    .. [3] F. Croce and M. Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble
       of Diverse Parameter-free Attacks", ICML 2020. https://arxiv.org/abs/2003.01690; in l1 "Mind
       the Box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers", ICML 2021.
       https://arxiv.org/abs/2103.01208

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
    check_norm(norm, DISTANCES)
    check_epsilon(epsilon, norm)
    check_bounds(bounds)
    check_at_least("batch_size", batch_size, 1)
    check_at_least("chunk_size", chunk_size, 1)
    check_at_least("draws", draws, 1)
    check_choice("diagnosis", diagnosis, ("auto", "full", "brief", None))
    if diagnosis == "auto" and attacks == "quick":
        diagnosis = "brief"
    adapt = checked_adapt(adapt, attacks, diagnosis)
    check_random_state(random_state)
    check_search(precision, compile)
    check_choice("keep_examples", keep_examples, KEPT)
    subject = resolve_model(model)
    if draws > 1:
        subject = subject._replace(model=averaged(subject.model, draws))
    captions = Captions.of(title, dataset, class_names, subject.classes, rejects(subject.model))
    if surrogate is not None:
        surrogate = resolve_surrogate(surrogate, subject)
    processes = joined()
    state = StateFile.open(state_file, processes)
    seed = processes.broadcast(draw_seed(state.seed if random_state is None else random_state))
    box = as_bounds(bounds)
    data = open_examples(X, y, spec=subject.spec(box))
    threat = ThreatModel(norm, float(epsilon), box, as_mask(mask, data.shape))
    chosen = resolve_attacks(attacks, threat, batch_size=batch_size, random_state=seed)
    settings = {"threat model": threat._asdict(), "chunk_size": chunk_size}
    settings |= {"survivors_only": survivors_only, "search": [precision, compile]}
    settings |= {"keep_examples": keep_examples, "draws": draws}
    records = state.resume(subject.model, chosen, seed, settings)
    counted = QueryCounter(subject.model)
    search = None
    if precision is not None or compile:
        search = searched(subject.model, precision, compile)
    told = (threat, survivors_only, batch_size, seed, records, data.spec, captions)
    run = Run(counted, chosen, *told, search, keep_examples)
    run.unasked = None if diagnosis is None else unasked(subject.model)
    stream = data.chunks(chunk_size, dtype_of(counted, torch.get_default_dtype()))
    bar = Progress(
        progress and processes.first,
        data.n_examples,
        stages=1 + len(chosen),
        sampled=sample_size(diagnosis),
        probes=PROBES[diagnosis],  # at most
        processes=processes.count,
    )
    with closing(bar):
        run.progress = bar
        measure(run, stream, processes, state)
        n_here = len(run.records)
        run.records = gathered(run.records, processes)
        check_some_attack_ran(run, processes)
        kinds = [diagnosis]
        if diagnosis == "auto":
            kinds = ["brief", "full"] if few_stand(run) else ["full"]
        for kind in kinds:
            bar.diagnose(n_here, sample_size(kind), PROBES[kind])
            observations = diagnosed(run, surrogate, processes, kind)
            # A full one follows where a brief one found what the attacks had missed.
            if not len(run.fooled_by_diagnosis):
                break
        adaptation = None
        if adapt:
            from ._adaptation import adapt as adapted  # loads what trains a surrogate

            found = findings(observations)
            adaptation = adapted(run, found, data, chunk_size, surrogate, processes)
        return summary(run, subject, processes, observations, adaptation)


def checked_adapt(adapt: Any, attacks: Any, diagnosis: str | None) -> bool:
    """Whether attacks are adapted to what the diagnosis finds."""
    check_choice("adapt", adapt, ("auto", True, False))
    if adapt is True and diagnosis is None:
        raise ValueError(
            "adapt must be False or 'auto' where diagnosis is None, which finds nothing to adapt "
            "to, got True; leave diagnosis out"
        )
    asked = isinstance(attacks, str) and attacks == "standard" if adapt == "auto" else adapt
    return bool(asked) and diagnosis is not None


def as_bounds(bounds: Bounds) -> Bounds:
    """Two numbers or two tensors."""
    low, high = bounds
    if isinstance(low, Tensor | np.ndarray) or isinstance(high, Tensor | np.ndarray):
        return tensor_of(low).detach(), tensor_of(high).detach()
    return float(low), float(high)


def as_mask(mask: Any, shape: tuple[int, ...] | None) -> Mask | None:
    """Return the mask with a first axis of 1 or, of inputs in memory, n."""
    if mask is None:
        return None
    # What a loader yields is not known yet: a mask for one of its inputs is checked with them.
    return tensor_of(mask)[None] if shape is None else checked_mask(mask, shape)


def measure(run: Run, stream: Iterator[Chunk], processes: Processes, state: StateFile) -> None:
    """Measure what is not known yet of this process's part of every chunk."""
    records = run.records
    for number, chunk in enumerate(stream):
        state.compare_data(number, chunk, records)
        if number == 0:
            state.compare_model(run.model.model, chunk.inputs, records)
        known = dict(records.known)
        run.add(Chunk(*(part[processes.rank :: processes.count] for part in chunk)), number)
        if run.futile and processes.count == 1:
            return
        if records.known != known and not run.futile:
            state.write(records)
    state.finish(number + 1, records)


def check_some_attack_ran(run: Run, processes: Processes) -> None:
    """Raise what the attacks raised if that is all that they did, in all processes."""
    raised = set().union(*processes.all_gather(set(run.raised)))
    attacked = any(bool(run.records.of(name, "attacked").any()) for name in run.attacks)
    if raised == set(run.attacks) and not attacked:
        first = next((run.raised[name] for name in run.attacks if name in run.raised), None)
        raise no_attack_ran(run.records.errors) from first


def diagnosed(
    run: Run, surrogate: Model | None, processes: Processes, diagnosis: str | None
) -> Observations:
    """What the diagnosis measured, and what could not be."""
    observations = diagnose(run, diagnosis, surrogate, processes)
    return replace(observations, failed={**observations.failed, **run.records.notes})


def summary(
    run: Run,
    subject: EvaluatedModel,
    processes: Processes,
    observations: Observations,
    adaptation: Adaptation | None,
) -> RobustnessReport:
    """Sum up, apply the rules."""
    records, names = run.records, list(run.attacks)
    n = len(records)
    clean, robust = observations.correct, int(survivors(records, names).sum())
    captions = run.captions
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
        attacks=rows(records, run.attacks, run.survivors_only),
        survivors_only=run.survivors_only,
        findings=findings(observations),
        observations=observations,
        per_example=per_example(records, names, subject.classes),
        costs={part: cost for part, cost in records.costs.items() if part not in names},
        random_state=run.seed,
        versions={
            "distillguard": __version__,
            "Python": platform.python_version(),
            "PyTorch": torch.__version__,
        },
        title=captions.title,
        dataset=captions.dataset,
        class_names=captions.classes.given,
        classes=class_rows(records, names, captions.classes),
        date=processes.broadcast(datetime.now(UTC).isoformat(timespec="seconds")),
        examples=examples(records, names, captions.classes),
        adaptation=adaptation,
        rejection=rejection(records, names) if rejects(run.model) else None,
    )


def examples(records: Records, names: list[str], called: ClassNames) -> tuple[Example, ...]:
    """The kept examples, with the caller's names for the classes."""
    shown = records.shown
    if not len(shown):
        return ()

    return tuple(
        Example(
            original=shown["inputs"][i],
            adversarial=shown["adversarial"][i],
            label=called[int(shown["labels"][i])],
            predicted=called[int(shown["predicted"][i])],
            attack=["", *names][int(shown["attack"][i])],
            distance=float(shown["distance"][i]),
            index=int(shown["index"][i]),
        )
        for i in range(len(shown))
    )
