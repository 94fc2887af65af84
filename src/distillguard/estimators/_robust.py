"""Robust distillation: ARD (Goldblum 2020), RSLAD (Zi 2021), IAD (Zhu 2022), AdaAD (Huang 2023)."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from .._copies import copied
from .._data._mixed import MixedSource
from .._typing import NetworkFactory, Norm, Range
from .._validation import check_choice, check_in_unit_interval, check_not_negative, check_positive
from ..training import Callback, OptimizerFactory, SchedulerFactory
from ._adversary import AttackSettings
from ._classifier import NetworkClassifier
from ._robust_objectives import ADVERSARIAL, DISTILLATION, robust_objective
from ._run import TrainingRun
from ._teacher import TeacherLogits, transfer_source


class RobustDistiller(NetworkClassifier):
    r"""Classifier that learns a teacher's robustness from its soft labels.

    It pursues the aim of defensive distillation with the attack inside the training: the student is
    attacked on every batch, and learns the outputs of a robust teacher on the attacked or on the
    clean inputs.

    Parameters
    ----------
    module : nn.Module, callable or None, default=None
        The student, as for :class:`DefensiveDistiller`.
    teacher : nn.Module, estimator, callable or None, default=None
        A robustly trained network, or a fitted estimator whose network is the teacher. A callable
        ``(input_shape, n_classes) -> nn.Module``, or None for the student's architecture, is first
        trained by TRADES [1]_ under the same attack. For ``GridSearchCV`` and ``clone`` pass the
        network: scikit-learn unfits an estimator inside another.
    objective : {"rslad", "ard", "iad", "adaad", "igdm_rslad", "igdm_adaad"}, default="rslad"
        :func:`~distillguard.functional.rslad_loss` [2]_,
        :func:`~distillguard.functional.ard_loss` [3]_,
        :func:`~distillguard.functional.iad_loss` [4]_ or
        :func:`~distillguard.functional.adaad_loss` [5]_; the last two add
        :func:`~distillguard.functional.igdm_loss` [6]_ to those of their names, with a weight
        that grows in proportion to the epochs.
    epsilon : float, default=8/255
        Radius of the ball in which the student is attacked, in the units of the inputs.
    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the ball.
    alpha : float, optional
        Weight of the adversarial term in [0, 1], of the teacher's in ARD; the papers' 5/6, 1
        and 1 for RSLAD, ARD and AdaAD if not given.
    beta : float, optional
        Exponent of IAD, 0.1 if not given; in IGDM the weight of its term at the last epoch, 1
        if not given.
    temperature : float, optional
        ARD's temperature, 30 if not given.
    steps : int, default=10
        Steps of the inner attack.
    step_size : float, optional
        Their length, ``epsilon / 4`` if not given.
    bounds : tuple of float, optional
        Lowest and highest value an input may take, as for :class:`AdversarialTrainer`.
    attack : callable, optional
        ``(network, inputs, labels) -> Tensor`` in place of the inner ascent.
    batch_statistics : bool, default=False
        Attack in training mode with frozen BatchNorm statistics rather than in eval mode.
    weight_perturbation : float, default=0.0
        Relative size of an adversarial perturbation of the student's weights.
    label_smoothing : float, default=0.0
        Label smoothing of a teacher that is trained here, in [0, 1].
    extra_fraction : float, default=0.7
        Share of each of the student's batches drawn from the ``extra`` examples, in (0, 1).
    max_epochs : int, default=20
        Epochs of the student, and of a teacher that is trained here.
    batch_size : int, default=128
        Examples in a step, for arrays and data sets; a DataLoader keeps its own.
    optimizer : {"adam", "adamw", "nadam", "rmsprop", "sgd"} or callable, default="adam"
        A name, or a callable ``(parameters, lr=...) -> torch.optim.Optimizer``.
    learning_rate : float, default=0.001
        The optimiser's step size.
    lr_scheduler : {"cosine", "one_cycle", "warmup_cosine"}, callable or None, default=None
        Schedule of the learning rate, as for :class:`DefensiveDistiller`.
    early_stopping : bool, "loss" or "accuracy", default=False
        Stop a stage when the loss (True or "loss") or the accuracy of the validation examples
        has not improved for ``patience`` epochs, and keep the best weights.
    validation_fraction : float, default=0.1
        Share of the examples held out for early stopping, in (0, 1), where ``fit`` is given no
        ``validation``.
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
        Continue training the networks of the last ``fit`` instead of new ones.
    random_state : int, RandomState or None, default=None
        Seed of initial weights, dropout, attacks and the order of examples.
    verbose : bool, default=False
        Show a progress bar with loss and accuracies for each epoch.

    Attributes
    ----------
    teacher_ : nn.Module
        The teacher, in eval mode.
    student_ : nn.Module
        The trained student, in eval mode: the network behind every prediction.
    classes_ : ndarray of shape (n_classes,)
        The classes, in the order of the logits.
    history_ : list of dict
        One record per epoch, as for :class:`DefensiveDistiller`, with ``robust_accuracy`` on the
        inner attack's inputs.
    n_features_in_ : int
        Numbers in one example.
    input_shape_ : tuple of int
        Shape of one example.
    n_iter_ : int
        Epochs that the student was trained.

    See Also
    --------
    AdversarialTrainer : Trains a robust teacher.
    DefensiveDistiller : The earlier defence, which does not make networks robust.
    distillguard.evaluate : Measure the robustness of the classifier.

    References
    ----------
    .. [1] H. Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy",
       ICML 2019. https://arxiv.org/abs/1901.08573
    .. [2] B. Zi et al., "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make
       Student Better", ICCV 2021. https://arxiv.org/abs/2108.07969
    .. [3] M. Goldblum et al., "Adversarially Robust Distillation", AAAI 2020.
       https://arxiv.org/abs/1905.09747
    .. [4] J. Zhu et al., "Reliable Adversarial Distillation with Unreliable Teachers", ICLR 2022.
       https://arxiv.org/abs/2106.04928
    .. [5] B. Huang et al., "Boosting Accuracy and Robustness of Student Models via Adaptive
       Adversarial Distillation", CVPR 2023.
    .. [6] H. Lee, S. Cho and C. Kim, "Indirect Gradient Matching for Adversarial Robust
       Distillation", ICLR 2025. https://arxiv.org/abs/2312.03286

    Examples
    --------
    >>> from distillguard import AdversarialTrainer, RobustDistiller, datasets
    >>> X, y = datasets.load_digits("train")
    >>> attack = {"epsilon": 0.1, "steps": 5, "max_epochs": 5, "random_state": 0}
    >>> teacher = AdversarialTrainer(**attack).fit(X, y)
    >>> student = RobustDistiller(teacher=teacher, **attack).fit(X, y)
    >>> student.history_[-1]["robust_accuracy"] > 0.5
    True
    """

    teacher_: nn.Module
    student_: nn.Module
    n_iter_: int
    teacher: nn.Module | NetworkClassifier | NetworkFactory | None
    objective: str
    alpha: float | None
    beta: float | None
    temperature: float | None
    extra_fraction: float

    def __init__(
        self,
        module: nn.Module | NetworkFactory | None = None,
        *,
        teacher: nn.Module | NetworkClassifier | NetworkFactory | None = None,
        objective: str = "rslad",
        epsilon: float = 8 / 255,
        norm: Norm = "linf",
        alpha: float | None = None,
        beta: float | None = None,
        temperature: float | None = None,
        steps: int = 10,
        step_size: float | None = None,
        bounds: Range | None = None,
        attack: Callable[..., Tensor] | None = None,
        batch_statistics: bool = False,
        weight_perturbation: float = 0.0,
        label_smoothing: float = 0.0,
        extra_fraction: float = 0.7,
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
        extra: Any = None,
    ) -> Self:
        """Train the student against its own adversarial examples, on the teacher's soft labels.

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
            Examples to measure loss and accuracies on, under attack, after every epoch.
        extra : array or Tensor of shape (n, ...), DataLoader or Dataset, optional
            More examples, such as synthetic ones, that make up ``extra_fraction`` of every batch
            of the student's. They need no labels: the teacher's predictions are taken.

        Returns
        -------
        RobustDistiller
            The estimator itself.

        Raises
        ------
        TypeError
            If a parameter, the data or what a loader yields has the wrong type.
        ValueError
            If a parameter is out of its range, the data is empty, not finite, outside
            ``bounds`` or of one class only, or a network does not return one logit per class.
        SaveError
            If ``checkpoint_dir`` holds another run, or one whose beginning is damaged.
        DivergenceError
            If the loss or a weight becomes NaN or infinite; the networks keep their last good
            weights.
        """
        attack = AttackSettings.of(self.get_params(deep=False))
        with self._run(X, y, validation, sample_weight) as run:
            prefit = self._prefit_teacher(run.classes)
            teacher, student = self._networks(run, prefit)
            run.begin(prefit, teacher=teacher, student=student)
            adversary = attack.adversary(run)
            if prefit is None:
                row = ADVERSARIAL["trades"]
                numbers = {**row.defaults, "label_smoothing": attack.label_smoothing}
                objective = robust_objective(row, numbers, adversary, attack.weight_perturbation)
                run.train("teacher", teacher, objective)
            teacher.to(run.runtime.device).eval()
            source, more = run.source, None
            if extra is not None:
                more = transfer_source("extra", extra, teacher, run)
                more = more.within("extra", adversary.ascent.bounds)
                source = MixedSource(source, more, attack.extra_fraction)
            run.also("extra data", more, labels=False)
            teacher_logits = TeacherLogits(teacher, source, run.runtime)
            objective = robust_objective(
                DISTILLATION[self.objective],
                self._numbers(),
                adversary,
                attack.weight_perturbation,
                teacher_logits,
            )
            run.train("student", student, objective, source=source)
        return self

    @property
    def model_(self) -> nn.Module:
        """The network that predicts: ``student_``."""
        return self.student_

    def _check_parameters(self) -> None:
        check_choice("objective", self.objective, DISTILLATION)
        if self.alpha is not None:
            check_in_unit_interval("alpha", self.alpha)
        if self.beta is not None:
            check_not_negative("beta", self.beta)
        if self.temperature is not None:
            check_positive("temperature", self.temperature)

    def _prefit_teacher(self, classes: NDArray[Any]) -> nn.Module | None:
        """The network that teaches, if it is trained already."""
        if isinstance(self.teacher, NetworkClassifier):
            network: nn.Module | None = getattr(self.teacher, "model_", None)
            if network is None:
                raise ValueError("teacher must be fitted, got an estimator that is not")
            known = self.teacher.classes_
            if not np.array_equal(known, classes):
                raise ValueError(
                    f"teacher must know the classes of y, {classes.tolist()}, got {known.tolist()}"
                )
            return network
        return self.teacher if isinstance(self.teacher, nn.Module) else None

    def _networks(self, run: TrainingRun, prefit: nn.Module | None) -> tuple[nn.Module, nn.Module]:
        """Teacher and student; a teacher of the student's architecture starts as it does."""
        student = self._network(run, "student_", self.module)
        if prefit is None and self.teacher is None and not self._goes_on():
            run.networks["teacher_"] = teacher = copied(student)
            return teacher, student
        given = self.teacher if prefit is None else prefit
        teacher = self._network(run, "teacher_", given, parameter="teacher")
        return teacher, student

    def _numbers(self) -> dict[str, float]:
        """The objective's numbers: the caller's, or the paper's."""
        return {
            name: value if getattr(self, name) is None else float(getattr(self, name))
            for name, value in DISTILLATION[self.objective].defaults.items()
        }
