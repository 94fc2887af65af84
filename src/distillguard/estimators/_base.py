"""What every estimator shares: parameters checked, a network built, one fit at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from torch import nn

from .. import networks
from .._data._batch import Source
from .._modes import isolated_random_state, one_at_a_time, unwrapped
from .._random import draw_seed
from .._validation import check_at_least, check_in_unit_interval, check_positive
from ..exceptions import DivergenceError
from ..persistence._networks import networks_of
from ..training import Checkpoints, Epoch, Runtime
from ._fitting import Fitting
from ._nested import NestedParameters
from ._portable import Portable
from ._training_data import TrainingData


class NetworkClassifier(TrainingData, Portable, NestedParameters, BaseEstimator):
    """A classifier whose predictions are those of one of its networks.

    Subclasses implement ``fit`` inside ``self._fitting(X, y)``; everything that looks at data
    or asks the network is in the bases.
    """

    max_epochs: int
    optimizer: Any
    learning_rate: float
    lr_scheduler: Any
    patience: int
    gradient_clip: float | None
    weight_averaging: float | None
    callbacks: Any
    checkpoint_dir: Any
    device: str
    precision: str
    compile: bool
    warm_start: bool
    random_state: Any
    verbose: bool
    history_: list[Epoch]

    def _keep(self, given: dict[str, Any]) -> None:
        """Store the arguments of ``__init__``, as they are, under their own names."""
        for name in self._get_param_names():
            setattr(self, name, given[name])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _check_parameters(self) -> None:
        """Refuse what training could not use; the data is checked afterwards."""
        check_at_least("max_epochs", self.max_epochs, 1)
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("patience", self.patience, 1)
        check_positive("learning_rate", self.learning_rate)
        check_in_unit_interval("validation_fraction", self.validation_fraction)
        if self.validation_fraction in (0, 1):
            raise ValueError(
                f"validation_fraction must be above 0 and below 1, got {self.validation_fraction!r}"
            )
        if self.early_stopping not in (True, False, "loss", "accuracy"):
            raise ValueError(
                "early_stopping must be True, False, 'loss' or 'accuracy', got "
                f"{self.early_stopping!r}"
            )
        for callback in self.callbacks or ():
            if isinstance(callback, type) or not callable(getattr(callback, "on_epoch", None)):
                raise TypeError(
                    f"callbacks must hold objects with a method on_epoch, got {callback!r}"
                )
        if self.gradient_clip is not None:
            check_positive("gradient_clip", self.gradient_clip)
        if self.weight_averaging is not None:
            check_in_unit_interval("weight_averaging", self.weight_averaging)
        if self.warm_start and self.checkpoint_dir is not None:
            raise ValueError("warm_start must be False with checkpoint_dir, got True")

    @contextmanager
    def _fitting(self, X: Any, y: Any, validation: Any = None) -> Iterator[Fitting]:
        """Check parameters and data; inside, random numbers are the fit's own."""
        grads = torch.inference_mode(False), torch.enable_grad()
        # The runtime silences warnings, which it does for all threads at once.
        with one_at_a_time(), self._unchanged_if_refused(), grads[0], grads[1]:
            yield from self._prepared(X, y, validation)

    def _prepared(self, X: Any, y: Any, validation: Any) -> Iterator[Fitting]:
        self._check_parameters()
        runtime = Runtime(self.device, self.precision, self.compile)
        checkpoints, seed = None, None
        if self.checkpoint_dir is not None:
            checkpoints = Checkpoints(self.checkpoint_dir, runtime.processes)
            seed = checkpoints.seed
        # A generator has to be drawn from in every run, or those after this one draw otherwise.
        drawn = self._seed()
        seed = runtime.processes.broadcast(drawn if seed is None else seed)
        last = dict(vars(self))
        with isolated_random_state(runtime.cuda, seed):
            source = self._training_source(X, y, seed)
            if self.warm_start and self._predictor in last:
                self._check_same_kind(last["classes_"], last["input_shape_"])
            held: Source | None
            if validation is None:
                source, held = self._held_out(source)
            else:
                held = self._other_source("validation", validation, seed)
            fitting = Fitting(self, runtime, source, held, checkpoints, seed, drawn)
            self.history_ = fitting.history
            yield fitting

    @contextmanager
    def _unchanged_if_refused(self) -> Iterator[None]:
        """A fit that breaks off leaves what was fitted before, unless it is training's own fault.

        What a warm start trains is a copy, so that nothing but attributes has to be put back.
        """
        before = dict(vars(self))
        try:
            if self.warm_start:
                for name in networks_of(type(self)).keys() & vars(self).keys():
                    setattr(self, name, deepcopy(getattr(self, name)))
            yield
        except DivergenceError:
            raise
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _built(self, module: Any, source: Source) -> nn.Module:
        """Return a network of the estimator's own: copied, called for, or sized from the data."""
        if module is None:
            network: nn.Module = networks.mlp(self.input_shape_, len(self.classes_))
        elif isinstance(module, nn.Module):
            network = deepcopy(unwrapped(module))
        elif callable(module):
            network = module(self.input_shape_, len(self.classes_))
            if not isinstance(network, nn.Module):
                raise TypeError(
                    "module must be an nn.Module or a callable (input_shape, n_classes) -> "
                    f"nn.Module, got one that returns {type(network).__name__}"
                )
            network = unwrapped(network)
        else:
            raise TypeError(
                "module must be an nn.Module, a callable (input_shape, n_classes) -> nn.Module "
                f"or None, got {type(module).__name__}"
            )
        width = self._forward(network, source.first().inputs[:2]).shape[1]
        if width != len(self.classes_):
            raise ValueError(
                f"module must return one logit for each of the {len(self.classes_)} classes, "
                f"got {width}"
            )
        return network

    def _seed(self) -> int:
        """Draw the fit's seed; the global generator is not touched."""
        if self.random_state is None:
            return draw_seed(None)
        return int(check_random_state(self.random_state).randint(2**31 - 1))
