"""Approach 1: power laws through the lower envelope of training curves."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .._validation import check_at_least, check_positive, check_random_state
from ._fit import Fit
from ._fitting import FACTOR, accuracy_line, resamples
from ._law import FLOPS_FACTOR, AccuracyLine, Optimum, Range, ScalingLaw
from ._lower_envelope import Envelope, lower_envelope
from ._numbers import confidence_level, positive
from ._runs import read_runs


@dataclass(frozen=True, kw_only=True)
class EnvelopeLaw(ScalingLaw):
    r"""Power laws in the compute, fitted to the best runs [1]_.

    .. math::
        L^* = \frac{a}{C^{\gamma}}, \qquad N^* = b \, C^{\mu}, \qquad D^* = c \, C^{\nu},

    for :math:`C` training FLOPs, as in approach 1 of [2]_. The law describes compute-optimal
    networks and data of one quality. As its loss has no lower limit, it is too optimistic far
    beyond the runs.

    Attributes
    ----------
    loss_coefficient : float
        :math:`a`.
    loss_exponent : float
        :math:`\gamma`, above 0 if compute helps.
    parameters_coefficient : float
        :math:`b`.
    parameters_exponent : float
        :math:`\mu`.
    data_coefficient : float
        :math:`c`.
    data_exponent : float
        :math:`\nu`.
    reference_fid : float or None
        Fréchet inception distance of the data, or None if unknown.
    flops_factor : float
        Training FLOPs per parameter and example.
    accuracy_line : AccuracyLine or None
        Robust accuracy as a linear function of the loss.
    source : str
        Source of the coefficients.

    See Also
    --------
    ParametricLaw : Predicts for any size, amount and quality of data.

    References
    ----------
    .. [1] B. R. Bartoldson, J. Diffenderfer, K. Parasyris and B. Kailkhura, "Adversarial
       Robustness Limits via Scaling-Law and Human-Alignment Studies", ICML 2024, approach 1.
       https://arxiv.org/abs/2404.09349
    .. [2] J. Hoffmann et al., "Training Compute-Optimal Large Language Models", NeurIPS 2022,
       section 3.1. https://arxiv.org/abs/2203.15556

    Examples
    --------
    >>> from distillguard.scaling_laws import BARTOLDSON2024_ENVELOPE as law
    >>> round(law.compute_optimal(1e20).loss, 4)  # 3.79 / 1e20 ** 0.035
    0.7562
    """

    loss_coefficient: float
    loss_exponent: float
    parameters_coefficient: float
    parameters_exponent: float
    data_coefficient: float
    data_exponent: float
    reference_fid: float | None = None
    flops_factor: float = FLOPS_FACTOR
    accuracy_line: AccuracyLine | None = None
    source: str = ""

    _coefficients: ClassVar[dict[str, Range]] = {
        "loss_coefficient": "positive",
        "loss_exponent": "any",
        "parameters_coefficient": "positive",
        "parameters_exponent": "any",
        "data_coefficient": "positive",
        "data_exponent": "any",
    }

    def loss(self, parameters: Any, data: Any, fid: Any = None) -> Any:
        """Predict the lowest loss possible with the compute of a network and its data.

        The law ignores how much worse a network is that is larger or smaller than is optimal for
        its compute.

        Parameters
        ----------
        parameters : float or array
            Parameters of the network.
        data : float or array
            Training examples, counted with repetitions.
        fid : float, optional
            Must be ``reference_fid`` if given, as the law holds for data of one quality.

        Returns
        -------
        float or ndarray
            The loss.

        Raises
        ------
        ValueError
            If sizes are not finite and above 0, or ``fid`` is a different quality.
        """
        return self.compute_optimal(self.flops(parameters, data), fid).loss

    def compute_optimal(self, flops: Any, fid: Any = None) -> Optimum:
        """Compute size, data and loss from the three power laws.

        Each was fitted separately, so ``flops_factor * parameters * data`` equals ``flops`` only
        approximately.

        Parameters
        ----------
        flops : float or array
            Training FLOPs to spend.
        fid : float, optional
            Must be ``reference_fid`` if given, as the law holds for data of one quality.

        Returns
        -------
        Optimum
            Parameters, examples, loss and accuracy.

        Raises
        ------
        ValueError
            If ``flops`` is not finite and above 0, or ``fid`` is a different quality.
        """
        if fid is not None and not (np.ndim(fid) == 0 and fid == self.reference_fid):
            raise ValueError(
                f"fid must be {self.reference_fid}, the one data quality of an EnvelopeLaw, or "
                f"None, got {fid!r}; use a ParametricLaw or QualityLaw"
            )
        compute = positive("flops", flops)
        return self._optimum(
            self.parameters_coefficient * compute**self.parameters_exponent,
            self.data_coefficient * compute**self.data_exponent,
            self.loss_coefficient / compute**self.loss_exponent,
            flops,
        )

    @classmethod
    def fit(
        cls,
        runs: Any,
        *,
        flops_factor: float = FLOPS_FACTOR,
        n_bootstrap: int = 200,
        confidence: float = 0.95,
        random_state: int | None = None,
    ) -> Fit:
        """Fit the law to training curves.

        At each of 1000 values of FLOPs, spaced evenly on a logarithmic scale, the curve with the
        lowest loss is selected, with linear interpolation between its points. FLOPs at which no
        curve improves on less compute are left out. The logarithms of loss, size and data are
        then regressed on those of the FLOPs. The bootstrap resamples whole curves.

        Parameters
        ----------
        runs : mapping of columns, data frame, structured array or sequence of mappings
            Columns ``parameters``, ``data`` and ``loss``, one row per checkpoint or per run;
            optionally ``accuracy`` (gives the law its accuracy line), ``fid`` (one value) and
            ``run``: rows with the same name form a curve. Without ``run``, rows of the same size
            do.
        flops_factor : float, default=7822.0
            Training FLOPs per parameter and example of the runs.
        n_bootstrap : int, default=200
            Resamples of the curves for the intervals.
        confidence : float, default=0.95
            Level of the intervals.
        random_state : int, optional
            Seed of the resamples. A fresh one if not given.

        Returns
        -------
        Fit
            The law and its intervals. A power law is reported as not identified if fewer than
            three sizes make up the envelope, or if its intervals at the ends of the envelope
            extend by more than a factor of two either way.

        Raises
        ------
        TypeError
            If ``runs`` has no columns.
        ValueError
            If a column is missing, has a different length or impossible values, the runs have
            several data qualities or give fewer than two points of an envelope, or another
            argument is out of range.

        Examples
        --------
        >>> import numpy as np
        >>> from distillguard.scaling_laws import BARTOLDSON2024_PARAMETRIC, EnvelopeLaw
        >>> size, data = np.meshgrid(np.geomspace(1e6, 1e9, 12), np.geomspace(1e6, 1e10, 40))
        >>> loss = BARTOLDSON2024_PARAMETRIC.loss(size, data)
        >>> runs = {"parameters": size.ravel(), "data": data.ravel(), "loss": loss.ravel()}
        >>> fit = EnvelopeLaw.fit(runs, n_bootstrap=20, random_state=0)
        >>> truth = BARTOLDSON2024_PARAMETRIC.compute_optimal(1e20)
        >>> print(f"{fit.law.compute_optimal(1e20).loss / truth.loss - 1:.1%}")
        2.7%
        """
        check_positive("flops_factor", flops_factor)
        check_at_least("n_bootstrap", n_bootstrap, 0)
        confidence_level(confidence)
        check_random_state(random_state)
        table = read_runs(runs)
        if table.n_qualities > 1:
            raise ValueError(
                f"runs must be of one fid for an EnvelopeLaw, got {table.n_qualities} of them; "
                "choose the rows of one, or use a ParametricLaw or QualityLaw"
            )
        group = np.unique(table.parameters, return_inverse=True)[1]
        group = group if table.run is None else table.run
        whole = lower_envelope(table, group, flops_factor)
        if whole is None:
            raise ValueError(
                "runs must have curves of at least two points each for an envelope, got none that "
                "improves with compute; give each size several amounts of data, or checkpoints "
                "of one 'run'"
            )

        def law(lines: np.ndarray, weights: np.ndarray | None = None) -> EnvelopeLaw:
            (loss, at_loss), (size, at_size), (data, at_data) = lines
            return cls(
                loss_coefficient=math.exp(at_loss),
                loss_exponent=-float(loss),
                parameters_coefficient=math.exp(at_size),
                parameters_exponent=float(size),
                data_coefficient=math.exp(at_data),
                data_exponent=float(data),
                reference_fid=None if table.fid is None else float(table.fid[0]),
                flops_factor=flops_factor,
                accuracy_line=accuracy_line(table, weights),
            )

        laws = [
            law(again.lines, weights)
            for weights in resamples(group, n_bootstrap, np.random.default_rng(random_state))
            if (again := lower_envelope(table, group, flops_factor, weights)) is not None
        ]
        residuals = whole.values[0] - np.polyval(whole.lines[0], whole.log_flops)
        fit = Fit(
            law=law(whole.lines),
            laws=tuple(laws),
            confidence=confidence,
            unidentified={},
            undetermined=frozenset(),
            fixed={},
            objective=float((residuals**2).mean()),
            objectives=(float((residuals**2).mean()),),
            residuals=residuals,
            runs=table,
        )
        fit.unidentified.update(_unidentified(fit, whole))
        return fit


def _unidentified(fit: Fit, whole: Envelope) -> dict[str, str]:
    ends = np.exp(whole.log_flops[[0, -1]])
    found: dict[str, str] = {}
    low, high = fit.interval(lambda law: np.array(law.compute_optimal(ends)[:3]))
    factors = np.max(high / low, axis=1)
    for name, open_by in zip(("parameters", "data", "loss"), factors, strict=True):
        if whole.n_sizes < 3:
            reason = f"the envelope is made up of {whole.n_sizes} sizes"
        elif open_by > FACTOR**2:
            reason = f"the line's interval spans a factor of {open_by:.2g} at an end"
        else:
            continue
        found |= {f"{name}_coefficient": reason, f"{name}_exponent": reason}
    return found
