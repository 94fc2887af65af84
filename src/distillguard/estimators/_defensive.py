"""Defensive distillation (Papernot et al. 2016), with Hinton's hard-label term as an option."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Self

from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .. import functional
from .._copies import copied
from .._data._batch import Batch
from .._typing import NetworkFactory
from .._validation import check_in_unit_interval, check_positive
from ..training import (
    BatchLosses,
    Callback,
    Objective,
    OptimizerFactory,
    SchedulerFactory,
)
from ._classifier import NetworkClassifier
from ._run import TrainingRun, hard_label_objective
from ._settings import check_prefit
from ._teacher import TeacherLogits, transfer_source


class DefensiveDistiller(NetworkClassifier):
    r"""Classifier trained by defensive distillation [1]_.

    A teacher is trained with the softmax at temperature :math:`T`; its softmax outputs at
    :math:`T`, the soft labels, train a student of the same architecture and the same initial
    weights, again at :math:`T`; predictions are the student's at temperature 1.

    The defence hides gradients rather than moving decision boundaries: at temperature 1 the
    logits are about :math:`T` times larger, the softmax saturates and the gradient of the
    cross-entropy underflows to exactly zero [2]_. Evaluate the result with
    :func:`distillguard.evaluate`, which reports this.

    Parameters
    ----------
    module : nn.Module, callable or None, default=None
        The network to train, returning logits of shape (n, n_classes). A module is copied and never
        changed; a callable ``(input_shape, n_classes) -> nn.Module``, or one that only takes
        ``num_classes`` as torchvision's do, is called, and ``random_state`` seeds its initial
        weights; None is a small multilayer perceptron sized from the data.
    temperature : float, default=20.0
        :math:`T`, above 0, in the softmax of both networks while they train. Their logits grow
        in proportion to it, so that accuracy and decision boundaries hardly depend on it while
        the softmax at prediction time saturates.
    teacher : nn.Module, callable or None, default=None
        Another network for the teacher (Hinton's use: a large teacher, a small student [3]_).
        None is the student's architecture with the student's initial weights.
    prefit_teacher : bool, default=False
        Use ``teacher`` as it is, already trained, and train only the student.
    hard_label_weight : float, default=0.0
        Weight :math:`w` in [0, 1] of the cross-entropy with the true labels at temperature 1
        in the student's loss; the soft term then has weight :math:`(1 - w) T^2` [3]_. 0 is
        Papernot's pure soft-label training.
    label_smoothing : float, default=0.0
        Share of the label spread over all classes in the teacher's loss, in [0, 1].
    max_epochs : int, default=20
        Epochs of the teacher and again of the student.
    batch_size : int, default=128
        Examples in a step, for arrays and data sets; a DataLoader keeps its own.
    optimizer : {"adam", "adamw", "nadam", "rmsprop", "sgd"} or callable, default="adam"
        A name, or a callable ``(parameters, lr=...) -> torch.optim.Optimizer``. ``"sgd"`` has
        momentum 0.9.
    learning_rate : float, default=0.001
        The optimiser's step size.
    lr_scheduler : {"cosine", "one_cycle", "warmup_cosine"}, callable or None, default=None
        Schedule of the learning rate, stepped after each batch: a name, or a callable
        ``(optimizer, total_steps) -> LRScheduler``.
    early_stopping : bool, "loss" or "accuracy", default=False
        Stop a stage when the loss (True or "loss") or the accuracy of the validation examples
        has not improved for ``patience`` epochs, and keep the best weights. Without a
        ``validation`` argument to ``fit`` they are ``validation_fraction`` of the examples,
        which needs arrays or tensors.
    validation_fraction : float, default=0.1
        Share of the examples held out for early stopping, in (0, 1), where ``fit`` is given no
        ``validation``.
    patience : int, default=10
        Epochs without a better validation figure before a stage stops.
    gradient_clip : float, optional
        Largest l2 norm of the gradient of all weights together; larger ones are scaled down.
    weight_averaging : float or None, default=0.995
        Decay in [0, 1] of an exponential moving average of the weights, with a warm-up; validation,
        callbacks and the final network use the average. None turns averaging off.
    class_weight : mapping, "balanced" or None, default=None
        What the examples of each class count in the loss: by class, or in inverse proportion to
        the number of examples. Only for examples in memory.
    callbacks : sequence of Callback, default=()
        Called after each epoch with its entry of ``history_``; see
        :class:`distillguard.callbacks.Callback`.
    checkpoint_dir : str or path-like, optional
        Folder that receives the state after every epoch. A run that was killed at any moment
        resumes from there when the same script is started again, with bit-equal results;
        a finished run is loaded. One folder belongs to one run.
    device : str, default="auto"
        Where to train: a torch device, or ``"auto"`` for CUDA if there is any.
    precision : str, default="32-true"
        A precision of Lightning Fabric: ``"32-true"``, ``"64-true"``, ``"bf16-mixed"``,
        ``"16-mixed"``, ``"bf16-true"`` or ``"16-true"``.
    compile : bool, default=False
        Train through :func:`torch.compile`.
    warm_start : bool, default=False
        Continue training the networks of the last ``fit`` instead of new ones.
    random_state : int, RandomState or None, default=None
        Seed of initial weights, dropout and the order of examples. Same seed, same result on
        the same machine. The global generators are left as they were.
    verbose : bool, default=False
        Show a progress bar with loss and accuracy for each epoch.

    Attributes
    ----------
    teacher_ : nn.Module
        The trained teacher, in eval mode.
    student_ : nn.Module
        The trained student, in eval mode: the network behind every prediction.
    classes_ : ndarray of shape (n_classes,)
        The classes, in the order of the logits.
    history_ : list of dict
        One record per epoch: ``stage`` ("teacher" or "student"), ``epoch``, ``loss`` (mean,
        in nats), ``accuracy`` (on the training batches), ``learning_rate``, ``seconds``, and
        ``validation_loss`` and ``validation_accuracy`` where there are validation examples.
    n_features_in_ : int
        Numbers in one example.
    input_shape_ : tuple of int
        Shape of one example.
    n_iter_ : int
        Epochs that the student was trained.

    See Also
    --------
    distillguard.evaluate : Measure the robustness of the classifier.

    References
    ----------
    .. [1] N. Papernot, P. McDaniel, X. Wu, S. Jha and A. Swami, "Distillation as a Defense to
       Adversarial Perturbations against Deep Neural Networks", IEEE S&P 2016, section III-B.
       https://arxiv.org/abs/1511.04508
    .. [2] N. Carlini and D. Wagner, "Towards Evaluating the Robustness of Neural Networks",
       IEEE S&P 2017, section VIII. https://arxiv.org/abs/1608.04644
    .. [3] G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network",
       2015, section 2. https://arxiv.org/abs/1503.02531

    Examples
    --------
    >>> from distillguard import DefensiveDistiller, datasets
    >>> X, y = datasets.load_digits("train")
    >>> distiller = DefensiveDistiller(temperature=20.0, max_epochs=10, random_state=0).fit(X, y)
    >>> bool(distiller.score(*datasets.load_digits("test")) > 0.9)
    True
    """

    teacher_: nn.Module
    student_: nn.Module
    n_iter_: int
    temperature: float
    teacher: nn.Module | NetworkFactory | None
    prefit_teacher: bool
    hard_label_weight: float
    label_smoothing: float

    def __init__(
        self,
        module: nn.Module | NetworkFactory | None = None,
        *,
        temperature: float = 20.0,
        teacher: nn.Module | NetworkFactory | None = None,
        prefit_teacher: bool = False,
        hard_label_weight: float = 0.0,
        label_smoothing: float = 0.0,
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
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        validation: Any = None,
        transfer: Any = None,
    ) -> Self:
        """Train the teacher, then the student on its soft labels.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), DataLoader, Dataset or pair (X, y)
            Training examples, or something that yields pairs (inputs, labels). Inputs of
            integer type become float32, except images stored as bytes, which are refused.
        y : array or Tensor of shape (n,), optional
            Classes of any type that scikit-learn takes; None when ``X`` yields pairs, whose
            labels are integers from 0, or is itself the pair.
        sample_weight : array of shape (n,), optional
            What each example counts in the loss, 0 or more; one of 0 is left out. Only for
            examples in memory.
        validation : DataLoader, Dataset or pair (X, y), optional
            Examples to measure loss and accuracy on after every epoch, and to stop early by.
        transfer : array or Tensor of shape (n, ...), Dataset or DataLoader, optional
            Examples for the student to learn the teacher's soft labels on instead of ``X``, as
            Hinton's transfer set; labels that come with them are not looked at. The teacher's
            predictions are taken for them in a hard-label term and in the recorded accuracy.

        Returns
        -------
        DefensiveDistiller
            The estimator itself.

        Raises
        ------
        TypeError
            If a parameter, the data or what a loader yields has the wrong type.
        ValueError
            If a parameter is out of its range, the data is empty, not finite or of one class
            only, or ``module`` does not return one logit per class.
        SaveError
            If ``checkpoint_dir`` holds another run, or one whose beginning is damaged.
        DivergenceError
            If the loss or a weight becomes NaN or infinite; the networks keep their last good
            weights.
        """
        with self._run(X, y, validation, sample_weight) as run:
            teacher, student = self._networks(run)
            run.begin(teacher if self.prefit_teacher else None, teacher=teacher, student=student)

            unit = self._logit_scale()
            if not self.prefit_teacher:
                objective = hard_label_objective(self.temperature, self.label_smoothing)
                run.train("teacher", teacher, objective, unit)
            teacher.to(run.runtime.device).eval()
            source = run.source
            if transfer is not None:
                source = transfer_source("transfer", transfer, teacher, run)
            run.also("transfer set", None if transfer is None else source, labels=False)
            teacher_logits = TeacherLogits(teacher, source, run.runtime)
            run.train("student", student, self._student_objective(teacher_logits), unit, source)
        return self

    @property
    def model_(self) -> nn.Module:
        """The network that predicts: ``student_``."""
        return self.student_

    def soft_labels(self, X: Any, temperature: float | None = None) -> NDArray[Any]:
        """Return the teacher's softmax at the training temperature.

        Parameters
        ----------
        X : array or Tensor of shape (n, ...), Dataset or DataLoader
            Examples like those of ``fit``.
        temperature : float, optional
            Another temperature, above 0.

        Returns
        -------
        ndarray of shape (n, n_classes), float64
            Rows that sum to 1, in the order of ``classes_``.

        Raises
        ------
        ValueError
            If ``temperature`` is not a finite number above 0.
        """
        chosen = self.temperature if temperature is None else temperature
        check_positive("temperature", chosen)
        check_is_fitted(self)
        return self._gathered(
            X, lambda logits: functional.softmax(logits.double(), chosen), self.teacher_
        )

    def _check_parameters(self) -> None:
        check_positive("temperature", self.temperature)
        check_in_unit_interval("hard_label_weight", self.hard_label_weight)
        check_in_unit_interval("label_smoothing", self.label_smoothing)
        if self.prefit_teacher:
            check_prefit(self.teacher)

    def _networks(self, run: TrainingRun) -> tuple[nn.Module, nn.Module]:
        """Teacher and student; where they are of one kind they share initial weights."""
        unit = self._logit_scale()
        student = self._network(run, "student_", self.module, unit)
        if self.teacher is None and not self._goes_on():
            run.networks["teacher_"] = teacher = copied(student)
            return teacher, student
        return self._network(run, "teacher_", self.teacher, unit, "teacher"), student

    def _logit_scale(self) -> float:
        """How much larger than usual the logits will be: T-fold if the teacher trains at T."""
        return 1.0 if self.prefit_teacher else float(self.temperature)

    def _student_objective(self, teacher_logits: TeacherLogits) -> Objective:
        """The student's loss on a batch: Papernot's, or Hinton's where hard labels count."""
        temperature, weight = float(self.temperature), float(self.hard_label_weight)

        def objective(network: nn.Module, batch: Batch) -> BatchLosses:
            logits, taught = network(batch.inputs), teacher_logits(batch)
            if weight == 0:
                targets = functional.softmax(taught, temperature)
                soft = functional.soft_cross_entropy(logits, targets, temperature)
                return BatchLosses(soft, logits)
            losses = functional.distillation_loss(logits, taught, batch.labels, temperature, weight)
            return BatchLosses(losses, logits)

        return objective
