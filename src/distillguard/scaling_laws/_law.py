"""Common parts of the three approaches: FLOPs, accuracy, and the optimum."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np

from .._validation import check_finite, check_not_negative, check_positive
from ._numbers import like, not_negative, positive

Range: TypeAlias = Literal["positive", "not negative", "any"]

FLOPS_FACTOR = 7822.0
"""Training FLOPs per parameter and example of Bartoldson et al. 2024."""


class AccuracyLine(NamedTuple):
    """Accuracy as a linear function of the loss.

    Attributes
    ----------
    intercept : float
        Accuracy at loss 0, by extrapolation.
    slope : float
        Change of accuracy per unit of loss, below 0 if a lower loss is better.
    """

    intercept: float
    slope: float


class Optimum(NamedTuple):
    """Compute-optimal network and data; floats, or arrays of the shape of the FLOPs.

    Attributes
    ----------
    parameters : float or ndarray
        Parameters of the network.
    data : float or ndarray
        Training examples, counted with repetitions.
    loss : float or ndarray
        Predicted loss.
    accuracy : float, ndarray or None
        Predicted robust accuracy in [0, 1]; None if the law has no accuracy line.
    """

    parameters: Any
    data: Any
    loss: Any
    accuracy: Any


class ScalingLaw(ABC):
    """Base class of scaling laws.

    A law is a frozen data class whose fields are the coefficients, with the paper's letters. All
    arguments broadcast; scalars give a scalar and arrays an array.
    """

    flops_factor: float
    reference_fid: float | None
    accuracy_line: AccuracyLine | None
    source: str

    _coefficients: ClassVar[dict[str, Range]]
    """The fitted fields, in order, and what values they may have."""

    def __post_init__(self) -> None:
        check_positive("flops_factor", self.flops_factor)
        if self.reference_fid is not None:
            check_not_negative("reference_fid", self.reference_fid)
        for name in self._coefficients:
            check_coefficient(type(self), name, getattr(self, name))

    @property
    def coefficients(self) -> dict[str, float]:
        """The fitted coefficients by name."""
        return {name: getattr(self, name) for name in self._coefficients}

    @abstractmethod
    def loss(self, parameters: Any, data: Any, fid: Any = None) -> Any:
        """Predict the loss.

        Parameters
        ----------
        parameters : float or array
            Parameters of the network.
        data : float or array
            Training examples, counted with repetitions.
        fid : float or array, optional
            Fréchet inception distance of the training data from the real images.

        Returns
        -------
        float or ndarray
            The loss.
        """

    @abstractmethod
    def compute_optimal(self, flops: Any, fid: Any = None) -> Optimum:
        """Find the compute-optimal size and amount of data.

        Parameters
        ----------
        flops : float or array
            Training FLOPs to spend.
        fid : float or array, optional
            Fréchet inception distance of the training data from the real images.

        Returns
        -------
        Optimum
            Parameters, examples, loss and accuracy.
        """

    def accuracy(self, loss: Any) -> Any:
        """Predict the robust accuracy at a given loss.

        Parameters
        ----------
        loss : float or array
            A loss, such as :meth:`loss` returns.

        Returns
        -------
        float or ndarray
            Accuracy on the law's accuracy line, clipped to [0, 1].

        Raises
        ------
        ValueError
            If the law has no accuracy line, or a loss is not a finite number of at least 0.
        """
        if self.accuracy_line is None:
            raise ValueError(
                f"{type(self).__name__}.accuracy_line must be given to predict accuracies, got "
                "None; fit to runs with a column 'accuracy', or set it by dataclasses.replace"
            )
        values = not_negative("loss", loss)
        intercept, slope = self.accuracy_line
        return like(np.clip(intercept + slope * values, 0, 1), loss)

    def flops(self, parameters: Any, data: Any) -> Any:
        """Count the training FLOPs: ``flops_factor * parameters * data``.

        Parameters
        ----------
        parameters : float or array
            Parameters of the network.
        data : float or array
            Training examples, counted with repetitions.

        Returns
        -------
        float or ndarray
            FLOPs.

        Raises
        ------
        ValueError
            If an argument is not finite and above 0.
        """
        product = positive("parameters", parameters) * positive("data", data)
        return like(self.flops_factor * product, parameters, data)

    def _fid(self, fid: Any) -> Any:
        """The given data quality, or the law's own."""
        return np.asarray(self.reference_fid) if fid is None else not_negative("fid", fid)

    def _optimum(self, parameters: Any, data: Any, loss: Any, *like_what: Any) -> Optimum:
        size, examples, least = (
            like(np.asarray(each), *like_what) for each in (parameters, data, loss)
        )
        accuracy = None if self.accuracy_line is None else self.accuracy(least)
        return Optimum(size, examples, least, accuracy)


def check_coefficient(law: type[ScalingLaw], name: str, value: Any) -> None:
    """Refuse a coefficient outside its range."""
    checks = {"positive": check_positive, "not negative": check_not_negative, "any": check_finite}
    checks[law._coefficients[name]](name, value)


def check_fixed(law: type[ScalingLaw], fixed: Mapping[str, float]) -> None:
    """Refuse fixed names that are no coefficients of the law, and impossible values."""
    for name, value in fixed.items():
        if name not in law._coefficients:
            raise ValueError(
                f"fixed must name coefficients of {', '.join(law._coefficients)}, got {name!r}"
            )
        check_coefficient(law, name, value)
