"""The baseline of every defence: the same network, loop and epochs, without one."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Self

from torch import nn

from .._typing import NetworkFactory
from .._validation import check_in_unit_interval
from ..training import Callback, OptimizerFactory, SchedulerFactory
from ._classifier import NetworkClassifier
from ._run import hard_label_objective


class UndefendedClassifier(NetworkClassifier):
    """Classifier trained on hard labels at temperature 1: the baseline for defences.

    The benefit of a defence is the difference from this baseline with the same architecture,
    examples, optimiser and number of epochs.

    Parameters
    ----------
    module : nn.Module, callable or None, default=None
        The network to train, as for :class:`DefensiveDistiller`.
    label_smoothing : float, default=0.0
        Share of the label spread over all classes in the loss, in [0, 1].
    max_epochs : int, default=20
        Epochs of training.
    batch_size : int, default=128
        Examples in a step, for arrays and data sets; a DataLoader keeps its own.
    optimizer : {"adam", "adamw", "nadam", "rmsprop", "sgd"} or callable, default="adam"
        A name, or a callable ``(parameters, lr=...) -> torch.optim.Optimizer``.
    learning_rate : float, default=0.001
        The optimiser's step size.
    lr_scheduler : {"cosine", "one_cycle", "warmup_cosine"}, callable or None, default=None
        Schedule of the learning rate, stepped after each batch.
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
        Seed of initial weights, dropout and the order of examples.
    verbose : bool, default=False
        Show a progress bar with loss and accuracy for each epoch.

    Attributes
    ----------
    model_ : nn.Module
        The trained network, in eval mode.
    classes_ : ndarray of shape (n_classes,)
        The classes, in the order of the logits.
    history_ : list of dict
        One record per epoch, as for :class:`DefensiveDistiller`.
    n_features_in_ : int
        Numbers in one example.
    input_shape_ : tuple of int
        Shape of one example.
    n_iter_ : int
        Epochs trained.

    See Also
    --------
    DefensiveDistiller : The same with the defence.

    Examples
    --------
    >>> from distillguard import UndefendedClassifier, datasets
    >>> X, y = datasets.load_digits("train")
    >>> classifier = UndefendedClassifier(max_epochs=10, random_state=0).fit(X, y)
    >>> bool(classifier.score(*datasets.load_digits("test")) > 0.9)
    True
    """

    model_: nn.Module
    n_iter_: int
    label_smoothing: float

    def __init__(
        self,
        module: nn.Module | NetworkFactory | None = None,
        *,
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
        self, X: Any, y: Any = None, sample_weight: Any = None, *, validation: Any = None
    ) -> Self:
        """Train the network on hard labels.

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
        UndefendedClassifier
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
            If the loss or a weight becomes NaN or infinite; the network keeps its last good
            weights.
        """
        with self._run(X, y, validation, sample_weight) as run:
            network = self._network(run, "model_", self.module)
            run.begin(network=network)
            run.train("network", network, hard_label_objective(1.0, self.label_smoothing))
        return self

    def _check_parameters(self) -> None:
        check_in_unit_interval("label_smoothing", self.label_smoothing)
