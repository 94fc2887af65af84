"""Extended defensive distillation: what the teacher is unsure of becomes a class of outliers."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, ClassVar, Self, cast

import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from .. import functional
from .._copies import copied
from .._data import Spec, examples
from .._data._batch import PREDICTION_BATCH, Batch, Source
from .._modes import borrowed, fitted_to
from .._processes import joined as processes
from .._typing import NetworkFactory
from .._validation import check_at_least, check_in_unit_interval, check_share
from ..networks import Rejecting, mlp
from ..networks._wrappers import scaled_as_saved
from ..training import (
    BatchLosses,
    Callback,
    Objective,
    OptimizerFactory,
    Runtime,
    SchedulerFactory,
)
from ._calibration import calibrate_offset
from ._classifier import joined
from ._rejecting import RejectingClassifier
from ._run import TrainingRun, hard_label_objective
from ._settings import TrainingSettings, check_prefit

MANY = 0.1
"""Share of clean examples above which the paper's rule rejects so many that users should know."""


class ExtendedDistiller(RejectingClassifier):
    r"""Classifier distilled with an extra class for outliers, which it rejects.

    A teacher with dropout is trained on hard labels. The variation of its logits :math:`z_k` over
    :math:`K` passes with dropout measures how unsure it is of an example,

    .. math:: \sigma(x) = \frac{1}{K} \sum_{k=1}^K \lVert z_k(x) - \bar z(x) \rVert_2^2,

    and the student, which has one more output than there are classes, is trained on labels that
    move part of their mass to that output: :math:`1 - \alpha u` for the true class and
    :math:`\alpha u` for the outliers, where :math:`u` is :math:`\sigma(x)` over the largest of the
    training examples [1]_. An input whose largest output is that of the outliers is rejected.

    Parameters
    ----------
    module : callable or nn.Module, default=None
        A function ``(input_shape, n_classes) -> nn.Module``, called for the teacher with the number
        of classes and for the student with one more; None is :func:`~distillguard.networks.mlp`
        with ``dropout=0.5``. A network that is built already is the student's, with one logit more
        than there are classes, and needs a ``teacher``.
    teacher : callable or nn.Module, default=None
        Another network for the teacher. It needs dropout layers of torch.
    prefit_teacher : bool, default=False
        Whether ``teacher`` is trained already, and is used as it is.
    outlier_weight : float, default=0.9
        :math:`\alpha`: the mass that moves for the example that the teacher is least sure of, in
        [0, 1].
    dropout_passes : int, default=20
        :math:`K`, at least 2.
    false_positive_rate : float or None, default=0.05
        Largest share of clean examples to be rejected, in (0, 1). The logit of the outliers is
        lowered until no more are, of examples kept from training: those of ``validation``, or
        ``validation_fraction`` of all. None is the paper's own rule, the largest logit, whatever it
        rejects.
    rejected_label : int or str, default=-1
        What ``predict`` returns for an outlier: a number that is not one of the classes; if classes
        are strings, a string.
    max_epochs : int, default=20
        Epochs of the teacher and again of the student.
    batch_size : int, default=128
        Examples in a step, for arrays and data sets; a DataLoader keeps its own.
    optimizer : {"adam", "adamw", "nadam", "rmsprop", "sgd"} or callable, default="adam"
        A name, or a callable ``(parameters, lr=...) -> torch.optim.Optimizer``.
    learning_rate : float, default=0.001
        The optimiser's step size.
    lr_scheduler : {"cosine", "one_cycle", "warmup_cosine"}, callable or None, default=None
        Schedule of the learning rate, stepped after each batch.
    early_stopping : bool, "loss" or "accuracy", default=False
        Stop a stage when the loss (True or "loss") or the accuracy of the validation examples
        has not improved for ``patience`` epochs, and keep the best weights.
    validation_fraction : float, default=0.1
        Share of the examples held out for early stopping and for ``false_positive_rate``, in
        (0, 1), where ``fit`` is given no ``validation``.
    patience : int, default=10
        Epochs without a better validation figure before a stage stops.
    gradient_clip : float, optional
        Largest l2 norm of the gradient of all weights together; larger ones are scaled down.
    weight_averaging : float or None, default=0.995
        Decay in [0, 1] of an exponential moving average of the weights, with a warm-up; None
        is no averaging.
    class_weight : mapping, "balanced" or None, default=None
        What the examples of each class count in the loss: by class, or in inverse proportion to
        the number of examples. Only for examples in memory.
    callbacks : sequence of Callback, default=()
        Called after each epoch; see :class:`distillguard.callbacks.Callback`.
    checkpoint_dir : str or path-like, optional
        Folder that receives the state after every epoch, and from which a killed run resumes.
    device : str, default="auto"
        Where to train: a torch device, or ``"auto"`` for CUDA if there is any.
    precision : str, default="32-true"
        A precision of Lightning Fabric, such as ``"bf16-mixed"``.
    compile : bool, default=False
        Train through :func:`torch.compile`.
    warm_start : bool, default=False
        Continue training the network of the last ``fit`` instead of a new one.
    random_state : int, RandomState or None, default=None
        Seed of initial weights, dropout and the order of examples.
    verbose : bool, default=False
        Show a progress bar with loss and accuracy for each epoch.

    Attributes
    ----------
    teacher_ : nn.Module
        The trained teacher, in eval mode.
    student_ : Rejecting
        The trained student, in eval mode: the network behind every prediction, which returns a
        last column for rejection and says so by ``rejects``; its ``offset`` is what that column is
        lowered by.
    false_alarms_ : (int, int)
        How many of the held-out clean examples that did not set the offset are rejected, and how
        many there are.
    false_positive_rate_ : float
        The one over the other; NaN if there were none.
    false_positive_interval_ : tuple of float
        The 95 % Clopper-Pearson interval of ``false_positive_rate_``.
    classes_ : ndarray of shape (n_classes,)
        The classes, in the order of the logits.
    history_ : list of dict
        One record per epoch, as for :class:`DefensiveDistiller`. A rejected example counts as
        wrong.
    n_features_in_ : int
        Numbers in one example.
    input_shape_ : tuple of int
        Shape of one example.
    n_iter_ : int
        Epochs that the student was trained.

    See Also
    --------
    DefensiveDistiller : What this extends.
    LayeredDefense : Rejects by detectors beside a classifier.
    distillguard.evaluate : Measure the robustness of the classifier.

    Notes
    -----
    This was written without access to the text of the paper, and accounts of it differ: in one the
    label is mixed with the teacher's mean prediction; in the only public implementation [2]_ it is
    the hard label, as here. That code also applies dropout to inputs, and adds
    :math:`\gamma \max(\max_j z_j - z_y, \kappa)` with :math:`\kappa = 40` to the loss, which has no
    gradient before a wrong logit leads by 40; neither is done here. There is no temperature.

    The paper's rule does not limit how many clean inputs are rejected: after short training, or if
    the teacher's dropout makes it unsure of many examples, that can be most of them. A random half
    of the held-out examples sets the offset, which is never above 0, and the other half estimates
    the rate, so that its interval comes from examples that set nothing. With ``early_stopping`` the
    same examples have chosen the epoch; :meth:`calibrate` takes others.

    The outlier class is one logit more. An attack that maximises a wrong class over both the true
    class and that logit goes around it, and every attack of this package does.

    References
    ----------
    .. [1] N. Papernot and P. McDaniel, "Extending Defensive Distillation", 2017.
       https://arxiv.org/abs/1705.05264
    .. [2] https://github.com/SergioYF/defensive-distillation-papernot

    Examples
    --------
    >>> from distillguard import ExtendedDistiller, datasets
    >>> X, y = datasets.load_digits("train")
    >>> distiller = ExtendedDistiller(max_epochs=20, random_state=0).fit(X, y)
    >>> X_test, y_test = datasets.load_digits("test")
    >>> distiller.decision_function(X_test).shape
    (355, 11)
    >>> bool((distiller.predict(X_test) == -1).mean() < 0.15)
    True
    """

    teacher_: nn.Module
    student_: nn.Module
    n_iter_: int
    teacher: nn.Module | NetworkFactory | None
    prefit_teacher: bool
    outlier_weight: float
    dropout_passes: int
    false_positive_rate: float | None

    _default_module: ClassVar[NetworkFactory] = partial(mlp, dropout=0.5)
    _EXTRA_COLUMNS: ClassVar[Mapping[str, int]] = {"student_": 1}

    def __init__(
        self,
        module: nn.Module | NetworkFactory | None = None,
        *,
        teacher: nn.Module | NetworkFactory | None = None,
        prefit_teacher: bool = False,
        outlier_weight: float = 0.9,
        dropout_passes: int = 20,
        false_positive_rate: float | None = 0.05,
        rejected_label: Any = -1,
        max_epochs: int = 20,
        batch_size: int = 128,
        optimizer: str | OptimizerFactory = "adam",
        learning_rate: float = 1e-3,
        lr_scheduler: str | SchedulerFactory | None = None,
        early_stopping: bool | str = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        gradient_clip: float | None = None,
        weight_averaging: float | None = 0.995,
        class_weight: Mapping[Any, float] | str | None = None,
        callbacks: Sequence[Callback] = (),
        checkpoint_dir: str | PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "32-true",
        compile: bool = False,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self._keep(locals())

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, validation: Any = None
    ) -> Self:
        """Train the teacher, then the student on labels with a class of outliers.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), DataLoader, Dataset or pair (X, y)
            Training examples, or something that yields pairs (inputs, labels).
        y : array or Tensor of shape (n,), optional
            Classes; None when ``X`` yields pairs.
        sample_weight : array of shape (n,), optional
            What each example counts in the loss, 0 or more; one of 0 is left out. Only for
            examples in memory.
        validation : DataLoader, Dataset or pair (X, y), optional
            Examples to measure loss and accuracy on after every epoch.

        Returns
        -------
        ExtendedDistiller
            The estimator itself.

        Raises
        ------
        TypeError
            If a parameter, the data or what a loader yields has the wrong type.
        ValueError
            If a parameter is out of its range, the data is empty, not finite or of one class
            only, a network does not return as many logits as it should, or the teacher has no
            dropout or is equally sure of all examples.
        SaveError
            If ``checkpoint_dir`` holds another run, or one whose beginning is damaged.
        DivergenceError
            If the loss or a weight becomes NaN or infinite; the networks keep their last good
            weights.

        Warns
        -----
        UserWarning
            If ``false_positive_rate`` is None and more than a tenth of the held-out clean examples
            is rejected, or is a number and no example was held out: of a stream without
            ``validation`` the training examples have to do, on which the rate may be another.
        """
        with self._run(X, y, validation, sample_weight) as run:
            run.learned["false_alarms_"] = 0, 0
            self._check_rejected_label(run.classes)
            teacher, student = self._networks(run)
            run.begin(teacher if self.prefit_teacher else None, teacher=teacher, student=student)
            if not self.prefit_teacher:
                run.train("teacher", teacher, hard_label_objective(1.0))
            teacher.to(run.runtime.device).eval()
            doubts = Doubts(teacher, run.source, run.runtime, self.dropout_passes)
            student.offset.zero_()
            run.train("student", student, self._student_objective(doubts))
            doubtful = self._calibrated(run, student)
        if doubtful:
            warnings.warn(doubtful, UserWarning, stacklevel=2)
        return self

    def calibrate(self, X: Any) -> Self:
        """Bound what is rejected by other clean examples, and train nothing.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset, DataLoader or batches
            Clean examples that nothing was trained on. Labels are not looked at. One half sets the
            offset of ``student_`` for ``false_positive_rate``, the other tells the rate of false
            alarms; with None the offset is 0, and all of them tell it.

        Returns
        -------
        ExtendedDistiller
            The estimator itself.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If ``false_positive_rate`` is out of its range, or the data is empty or not finite.
        """
        check_is_fitted(self)
        self._check_parameters()
        opened = examples(X, labelled=False, spec=Spec(shape=self.input_shape_))
        student = cast(Rejecting, copied(self.student_))
        settings = TrainingSettings.of(self.get_params(deep=False))
        seed = processes().broadcast(settings.seed())
        chunks = (chunk.inputs for chunk in opened.chunks(PREDICTION_BATCH))
        self.false_alarms_ = calibrate_offset(student, chunks, self.false_positive_rate, seed)
        self.student_ = student
        return self

    @property
    def model_(self) -> nn.Module:
        """The network that predicts: ``student_``."""
        return self.student_

    def uncertainty(self, X: Any) -> NDArray[Any]:
        """Return how much the teacher's logits vary with dropout.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset, DataLoader or batches
            Examples like those of ``fit``.

        Returns
        -------
        ndarray of shape (n,)
            Mean squared l2 distance of the logits of ``dropout_passes`` passes from their mean.
            The masks are drawn from a seed of their own: the same call, the same numbers.
        """
        check_is_fitted(self)
        opened = examples(X, labelled=False, spec=Spec(shape=self.input_shape_))
        chunks = opened.chunks(PREDICTION_BATCH)
        return joined(
            logit_variance(self.teacher_, chunk.inputs, self.dropout_passes).cpu()
            for chunk in chunks
        )

    def _check_parameters(self) -> None:
        check_in_unit_interval("outlier_weight", self.outlier_weight)
        check_at_least("dropout_passes", self.dropout_passes, 2)
        if self.false_positive_rate is not None:
            check_share("false_positive_rate", self.false_positive_rate)
        if self.prefit_teacher:
            check_prefit(self.teacher)
        if self.teacher is None and isinstance(self.module, nn.Module):
            raise TypeError(
                "module must be a callable (input_shape, n_classes) -> nn.Module, as teacher and "
                f"student differ in width, got {type(self.module).__name__}; pass a teacher too"
            )

    def _keeps_aside(self) -> bool:
        return self.false_positive_rate is not None

    def _calibrated(self, run: TrainingRun, student: Rejecting) -> str:
        """Bound what the student rejects; return what a user should know of it, if anything."""
        rate, held = self.false_positive_rate, run.validation
        batches = (batch.inputs for batch in (held or run.source).in_order())
        counts = calibrate_offset(student, batches, rate, run.seed)
        # Of examples that are divided among processes each has seen its own.
        counts, offset = run.runtime.processes.broadcast((counts, student.offset.item()))
        student.offset.fill_(offset)
        if held is not None:
            run.learned["false_alarms_"] = counts
        elif rate is not None:
            return (
                "false_positive_rate needs clean examples that are kept from training, got none: "
                "the training examples have set what is rejected, and of others it may be more; "
                "pass validation, or call calibrate"
            )
        alarms, shown = counts
        if rate is not None or alarms <= MANY * shown:
            return ""
        return (
            f"the student rejects {100 * alarms / shown:.0f} % of the "
            f"{'training' if held is None else 'held-out'} examples, which are clean; set "
            "false_positive_rate, train longer or lower outlier_weight"
        )

    def _networks(self, run: TrainingRun) -> tuple[nn.Module, Rejecting]:
        """The teacher, which has dropout, and the student, which says that it rejects."""
        given = self.teacher is not None
        name = "teacher" if given else "module"
        teacher = self._network(run, "teacher_", self.teacher if given else self.module, 1.0, name)
        if not dropout_layers(teacher):
            raise ValueError(
                f"{name} must have dropout, by which the teacher tells how unsure it is, got none "
                "in it; networks.mlp and networks.papernot_mnist have a parameter dropout"
            )
        student = self._network(run, "student_", self.module)
        if not isinstance(student, Rejecting):
            student = run.networks["student_"] = Rejecting(student)
        return teacher, student

    def _student_objective(self, doubts: "Doubts") -> Objective:
        """Cross-entropy with labels whose mass has moved, as far as there is doubt."""

        def objective(network: nn.Module, batch: Batch) -> BatchLosses:
            logits = network(batch.inputs)
            moved = float(self.outlier_weight) * doubts(batch).to(logits)
            targets = moved_to_outliers(batch.labels, moved, logits.shape[1])
            return BatchLosses(functional.soft_cross_entropy(logits, targets), logits)

        return objective

    def _assembled(
        self, attribute: str, network: nn.Module, saved: Mapping[str, Tensor]
    ) -> nn.Module:
        if attribute != "student_":
            return scaled_as_saved(network, saved)
        return network if isinstance(network, Rejecting) else Rejecting(network)


class Doubts:
    """How unsure a teacher is of training examples, in units of the least sure of them."""

    def __init__(self, teacher: nn.Module, source: Source, runtime: Runtime, passes: int) -> None:
        self.teacher, self.runtime, self.passes = teacher, runtime, passes
        variances = torch.cat([self.variance(batch.inputs) for batch in source.in_order()])
        self.largest = float(variances.max())
        if not self.largest > 0:
            raise ValueError(
                "the teacher must have dropout that moves its logits, got none that does: "
                f"{passes} passes agree on every training example"
            )
        # Once for every example, where they can be told apart.
        self.known = variances if source.identified else None

    def __call__(self, batch: Batch) -> Tensor:
        """A number in [0, 1] for each example."""
        if self.known is not None and batch.indices is not None:
            variances = self.known[batch.indices.to(self.known.device)]
        else:
            variances = self.variance(batch.inputs)
        return (variances / self.largest).clamp(max=1)

    def variance(self, inputs: Tensor) -> Tensor:
        """The variance of the teacher's logits, in the precision of the training."""
        with self.runtime.fabric.autocast():
            return logit_variance(self.teacher, inputs, self.passes)


def moved_to_outliers(labels: Tensor, moved: Tensor, width: int) -> Tensor:
    """Labels as probabilities, (n, width), of which so much is in the last column."""
    targets = nn.functional.one_hot(labels, width).to(moved) * (1 - moved[:, None])
    targets[:, -1] = moved
    return targets


def dropout_layers(network: nn.Module) -> list[nn.Module]:
    """The layers that drop something out in training."""
    layers = [each for each in network.modules() if isinstance(each, nn.modules.dropout._DropoutNd)]
    return [each for each in layers if each.p > 0]


def logit_variance(network: nn.Module, inputs: Tensor, passes: int) -> Tensor:
    """Mean squared distance of the logits from their mean, over passes with dropout: (n,)."""
    with borrowed(network, seed=0, gradients=False):
        for layer in dropout_layers(network):
            layer.train()
        placed = fitted_to(network, inputs)
        logits = torch.stack([network(placed.clone()) for _ in range(passes)])
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (logits - logits.mean(dim=0)).square().sum(dim=2).mean(dim=0)
