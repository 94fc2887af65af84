"""Adversarial training: PGD (Madry et al. 2018), TRADES (Zhang et al. 2019), MART (Wang 2020)."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Self

from torch import Tensor, nn

from .._data._mixed import MixedSource
from .._typing import NetworkFactory, Norm, Range
from .._validation import check_choice, check_not_negative
from ..training import Callback, Objective, OptimizerFactory, SchedulerFactory
from ._adversary import Adversary, AttackSettings
from ._classifier import NetworkClassifier
from ._recipes import RECIPES
from ._robust_objectives import ADVERSARIAL, robust_objective


class AdversarialTrainer(NetworkClassifier):
    r"""Classifier trained on adversarial examples of itself.

    It pursues the aim of defensive distillation, a smooth loss around the data, by attacking every
    batch with a few steps of projected gradient ascent and training the network to be right there
    too. Unlike distillation this moves decision boundaries, as attacks on logits confirm: see
    :func:`distillguard.evaluate`.

    Parameters
    ----------
    module : nn.Module, callable or None, default=None
        The network to train, as for :class:`DefensiveDistiller`.
    objective : {"trades", "pgd", "mart"}, default="trades"
        The loss: :func:`~distillguard.functional.trades_loss` [1]_, the cross-entropy on
        adversarial inputs alone [2]_, or :func:`~distillguard.functional.mart_loss` [3]_.
    epsilon : float, default=8/255
        Radius of the ball in which the network is attacked, in the units of the inputs.
    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the ball.
    beta : float, optional
        Weight of the robust term in TRADES and MART; the papers' 6 and 5 if not given.
    steps : int, default=10
        Steps of the inner attack.
    step_size : float, optional
        Their length, ``epsilon / 4`` if not given.
    bounds : tuple of float, optional
        Lowest and highest value an input may take. If not given, the extremes of ``X`` and of the
        validation data if these are in memory, and (0, 1) for loaders and data sets. All data must
        lie within them, including ``extra``.
    attack : callable, optional
        ``(network, inputs, labels) -> Tensor`` in place of the inner ascent, such as a
        ``functools.partial`` of a function of :mod:`distillguard.attacks`.
    batch_statistics : bool, default=False
        Attack the network in training mode, with BatchNorm's running statistics frozen, rather
        than in eval mode [4]_.
    weight_perturbation : float, default=0.0
        Relative size of an adversarial perturbation of the weights before each step [5]_;
        0.005 in the paper.
    label_smoothing : float, default=0.0
        Share of the label spread over all classes in the loss's first term, in [0, 1].
    extra_fraction : float, default=0.7
        Share of each batch drawn from the ``extra`` examples of ``fit``, in (0, 1).
    max_epochs : int, default=20
        Epochs of training.
    batch_size : int, default=128
        Examples in a step, for arrays and data sets; a DataLoader keeps its own.
    optimizer : {"adam", "adamw", "nadam", "rmsprop", "sgd"} or callable, default="adam"
        A name, or a callable ``(parameters, lr=...) -> torch.optim.Optimizer``.
    learning_rate : float, default=0.001
        The optimiser's step size.
    lr_scheduler : {"cosine", "one_cycle", "warmup_cosine"}, callable or None, default=None
        Schedule of the learning rate, as for :class:`DefensiveDistiller`.
    early_stopping : bool, "loss" or "accuracy", default=False
        Stop when the loss (True or "loss") or the accuracy of the validation examples has not
        improved for ``patience`` epochs, and keep the best weights.
    validation_fraction : float, default=0.1
        Share of the examples held out for early stopping, in (0, 1), where ``fit`` is given no
        ``validation``.
    patience : int, default=10
        Epochs without a better validation figure before training stops.
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
        Lightning Fabric's word for it, such as ``"bf16-mixed"``.
    compile : bool, default=False
        Train through :func:`torch.compile`.
    warm_start : bool, default=False
        Continue training the network of the last ``fit`` instead of a new one.
    random_state : int, RandomState or None, default=None
        Seed of initial weights, dropout, attacks and the order of examples.
    verbose : bool, default=False
        Show a progress bar with loss and accuracies for each epoch.

    Attributes
    ----------
    model_ : nn.Module
        The trained network, in eval mode.
    classes_ : ndarray of shape (n_classes,)
        The classes, in the order of the logits.
    history_ : list of dict
        One record per epoch, as for :class:`DefensiveDistiller`, with ``robust_accuracy`` on the
        inner attack's inputs. The "pgd" objective sees no clean inputs: its records have an
        ``accuracy`` only on validation examples.
    n_features_in_ : int
        Numbers in one example.
    input_shape_ : tuple of int
        Shape of one example.
    n_iter_ : int
        Epochs trained.

    See Also
    --------
    RobustDistiller : Learns the robustness of a teacher.
    distillguard.evaluate : Measure the robustness of the classifier under stronger attacks.

    References
    ----------
    .. [1] H. Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy",
       ICML 2019. https://arxiv.org/abs/1901.08573
    .. [2] A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR
       2018. https://arxiv.org/abs/1706.06083
    .. [3] Y. Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified
       Examples", ICLR 2020.
    .. [4] S. Gowal et al., "Improving Robustness using Generated Data", NeurIPS 2021.
       https://arxiv.org/abs/2110.09468
    .. [5] D. Wu, S.-T. Xia and Y. Wang, "Adversarial Weight Perturbation Helps Robust
       Generalization", NeurIPS 2020. https://arxiv.org/abs/2004.05884

    Examples
    --------
    >>> from distillguard import AdversarialTrainer, datasets
    >>> X, y = datasets.load_digits("train")
    >>> trainer = AdversarialTrainer(epsilon=0.1, steps=5, max_epochs=5, random_state=0).fit(X, y)
    >>> trainer.history_[-1]["robust_accuracy"] > 0.5
    True
    """

    model_: nn.Module
    n_iter_: int
    objective: str
    beta: float | None
    label_smoothing: float

    def __init__(
        self,
        module: nn.Module | NetworkFactory | None = None,
        *,
        objective: str = "trades",
        epsilon: float = 8 / 255,
        norm: Norm = "linf",
        beta: float | None = None,
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

    @classmethod
    def from_recipe(
        cls, recipe: str, module: nn.Module | NetworkFactory | None = None, **parameters: Any
    ) -> Self:
        """Make an estimator with the published settings of a paper.

        Parameters
        ----------
        recipe : {"bartoldson2024"}
            Which settings: those of the largest run of Bartoldson et al. 2024 [1]_, which reached
            73.7 % under AutoAttack on CIFAR-10 with a WideResNet-94-16 of SiLU units
            (``functools.partial(networks.wide_resnet, depth=94, width=16)``), 500 million
            synthetic images and 10,000 epochs of 25 batches.
        module : nn.Module, callable or None, default=None
            The network to train.
        **parameters
            Parameters of the estimator, which take precedence over the recipe's.

        Returns
        -------
        AdversarialTrainer
            Not fitted yet.

        Raises
        ------
        ValueError
            If the recipe is unknown.

        References
        ----------
        .. [1] B. Bartoldson, J. Diffenderfer, K. Parasyris and B. Kailkhura, "Adversarial
           Robustness Limits via Scaling-Law and Human-Alignment Studies", ICML 2024.
           https://arxiv.org/abs/2404.09349

        Examples
        --------
        >>> from distillguard import AdversarialTrainer
        >>> trainer = AdversarialTrainer.from_recipe("bartoldson2024", max_epochs=10)
        >>> trainer.beta, trainer.label_smoothing, trainer.max_epochs
        (5.0, 0.1, 10)
        """
        check_choice("recipe", recipe, RECIPES)
        return cls(module, **RECIPES[recipe] | parameters)

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        validation: Any = None,
        extra: Any = None,
    ) -> Self:
        """Train the network against its own adversarial examples.

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
        extra : DataLoader, Dataset or pair (X, y), optional
            More labelled examples, such as synthetic ones, that make up ``extra_fraction`` of
            every batch. An epoch is one pass over ``X``; the extra examples continue from epoch to
            epoch. A DataLoader or Dataset keeps its own batches and what is in memory is cut to
            the fraction beside them; of two loaders the batch sizes decide.

        Returns
        -------
        AdversarialTrainer
            The estimator itself.

        Raises
        ------
        TypeError
            If a parameter, the data or what a loader yields has the wrong type.
        ValueError
            If a parameter is out of its range, the data is empty, not finite, outside
            ``bounds`` or of one class only, or ``module`` does not return one logit per class.
        SaveError
            If ``checkpoint_dir`` holds another run, or one whose beginning is damaged.
        DivergenceError
            If the loss or a weight becomes NaN or infinite; the network keeps its last good
            weights.
        """
        attack = AttackSettings.of(self.get_params(deep=False))
        with self._run(X, y, validation, sample_weight) as run:
            network = self._network(run, "model_", self.module)
            run.begin(network=network)
            adversary = attack.adversary(run)
            source, more = run.source, None
            if extra is not None:
                more = self._other_source(run, "extra", extra)
                more = more.within("extra", adversary.ascent.bounds)
                source = MixedSource(source, more, attack.extra_fraction)
            run.also("extra data", more)
            objective = self._objective(attack, adversary)
            run.train("network", network, objective, source=source)
        return self

    def _check_parameters(self) -> None:
        check_choice("objective", self.objective, ADVERSARIAL)
        if self.objective == "mart" and self.label_smoothing:
            raise ValueError(
                "label_smoothing must be 0 with objective='mart', whose loss has none, "
                f"got {self.label_smoothing!r}"
            )
        if self.beta is not None:
            check_not_negative("beta", self.beta)

    def _objective(self, attack: AttackSettings, adversary: Adversary) -> Objective:
        row = ADVERSARIAL[self.objective]
        beta = row.defaults["beta"] if self.beta is None else float(self.beta)
        numbers = {"beta": beta, "label_smoothing": attack.label_smoothing}
        return robust_objective(row, numbers, adversary, attack.weight_perturbation)
