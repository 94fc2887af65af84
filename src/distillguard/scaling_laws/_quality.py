"""Approach 3: the data quality limits the benefit of more data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .._validation import check_not_negative
from ._fit import Fit
from ._fitting import Form, fit_form
from ._law import FLOPS_FACTOR, AccuracyLine, Optimum, Range, ScalingLaw
from ._numbers import like, positive
from ._runs import Runs, read_runs
from ._starts import EXPONENTS, non_negative_coefficients


@dataclass(frozen=True, kw_only=True)
class QualityLaw(ScalingLaw):
    r"""Loss in which the data quality limits the benefit of more data [1]_.

    .. math::
        L = \left(\frac{B}{D} + (Q \, \mathrm{FID})^{\kappa/\beta}\right)^\beta + E
        + \epsilon \ln(1 + \mathrm{FID}) + \frac{A}{N^\alpha},

    for :math:`N` parameters and :math:`D` examples. The first term has the form of [2]_
    (equation 1.5). With more and more examples it tends to :math:`(Q \, \mathrm{FID})^\kappa`
    rather than to 0. At FID 0 the law equals :class:`ParametricLaw` with :math:`B^\beta` as its B.

    Attributes
    ----------
    A : float
        Coefficient of the size.
    B : float
        Number of examples at which the data term is 1 at FID 0.
    E : float
        Irreducible loss, with unlimited size and unlimited perfect data.
    Q : float
        Coefficient of the quality's bound; 0 for none.
    alpha : float
        Exponent of the size.
    beta : float
        Exponent of the data.
    kappa : float
        Exponent of the quality's bound.
    epsilon : float
        Coefficient of the quality in the irreducible loss, the paper's e. Of either sign.
    reference_fid : float
        Default of ``fid``.
    flops_factor : float
        Training FLOPs per parameter and example.
    accuracy_line : AccuracyLine or None
        Robust accuracy as a linear function of the loss.
    source : str
        Source of the coefficients.

    See Also
    --------
    ParametricLaw : The data quality scales the terms instead.

    References
    ----------
    .. [1] B. R. Bartoldson, J. Diffenderfer, K. Parasyris and B. Kailkhura, "Adversarial
       Robustness Limits via Scaling-Law and Human-Alignment Studies", ICML 2024, approach 3.
       https://arxiv.org/abs/2404.09349
    .. [2] J. Kaplan et al., "Scaling Laws for Neural Language Models", 2020.
       https://arxiv.org/abs/2001.08361

    Examples
    --------
    >>> from distillguard.scaling_laws import BARTOLDSON2024_QUALITY as law
    >>> [round(law.loss(1e8, 1e9, fid=fid), 3) for fid in (0, 1.65, 6.8)]
    [0.66, 0.702, 0.813]
    """

    A: float
    B: float
    E: float
    Q: float
    alpha: float
    beta: float
    kappa: float
    epsilon: float = 0.0
    reference_fid: float = 0.0
    flops_factor: float = FLOPS_FACTOR
    accuracy_line: AccuracyLine | None = None
    source: str = ""

    _coefficients: ClassVar[dict[str, Range]] = {
        "A": "positive",
        "B": "positive",
        "E": "positive",
        "Q": "not negative",
        "alpha": "positive",
        "beta": "positive",
        "kappa": "positive",
        "epsilon": "any",
    }

    def loss(self, parameters: Any, data: Any, fid: Any = None) -> Any:
        """Predict the loss of a network.

        Parameters
        ----------
        parameters : float or array
            Parameters of the network.
        data : float or array
            Training examples, counted with repetitions.
        fid : float or array, optional
            Fréchet inception distance of the training data; ``reference_fid`` if not given.

        Returns
        -------
        float or ndarray
            The loss.

        Raises
        ------
        ValueError
            If sizes are not finite and above 0, or ``fid`` is not finite and at least 0.
        """
        size, examples = positive("parameters", parameters), positive("data", data)
        quality = self._fid(fid)
        by_data = (self.B / examples + self._bound(quality)) ** self.beta
        remains = self.E + self.epsilon * np.log1p(quality)
        return like(by_data + remains + self.A / size**self.alpha, parameters, data, fid)

    def compute_optimal(self, flops: Any, fid: Any = None) -> Optimum:
        r"""Find the size and the data that give the lowest loss for the compute.

        With :math:`u = B / D` and :math:`v = (Q \, \mathrm{FID})^{\kappa/\beta}` the optimum is
        where :math:`\beta (u + v)^{\beta - 1} u = \alpha A N^{-\alpha}`. The logarithm of the ratio
        of the two sides is increasing and concave in :math:`\ln N`, so Newton's method converges
        from any start.

        Parameters
        ----------
        flops : float or array
            Training FLOPs to spend.
        fid : float or array, optional
            Fréchet inception distance of the training data; ``reference_fid`` if not given.

        Returns
        -------
        Optimum
            Parameters, examples, loss and accuracy.

        Raises
        ------
        ValueError
            If ``flops`` is not finite and above 0, or ``fid`` is not finite and at least 0.
        """
        product, bound = positive("flops", flops) / self.flops_factor, self._bound(self._fid(fid))
        product, bound = np.broadcast_arrays(product, bound)
        log_ratio = np.log(self.beta / (self.alpha * self.A))
        x = np.log(product) / 2
        for _ in range(100):
            u = self.B * np.exp(x) / product
            value = log_ratio + (self.beta - 1) * np.log(u + bound) + np.log(u) + self.alpha * x
            step = value / (1 + self.alpha + (self.beta - 1) * u / (u + bound))
            x = x - step
            if np.abs(step).max(initial=0) < 1e-13 * (1 + np.abs(x).max(initial=0)):
                break
        size, examples = np.exp(x), product / np.exp(x)
        return self._optimum(size, examples, self.loss(size, examples, fid), flops, fid)

    @classmethod
    def fit(
        cls,
        runs: Any,
        *,
        fixed: Mapping[str, float] | None = None,
        reference_fid: float | None = None,
        flops_factor: float = FLOPS_FACTOR,
        huber_delta: float = 1e-3,
        n_starts: int = 24,
        n_bootstrap: int = 200,
        confidence: float = 0.95,
        random_state: int | None = None,
    ) -> Fit:
        """Fit the law to training runs.

        Works like :meth:`ParametricLaw.fit`. Identifying the limit needs runs of several qualities
        with enough data to approach it; otherwise ``Q`` and ``kappa`` are reported as not
        identified.

        Parameters
        ----------
        runs : mapping of columns, data frame, structured array or sequence of mappings
            Columns ``parameters``, ``data`` and ``loss``; optionally ``fid``, ``accuracy``
            (gives the law its accuracy line) and ``run`` (rows with the same name are
            checkpoints of one run and are resampled together). Others are ignored.
        fixed : mapping, optional
            Coefficients to hold fixed, by name.
        reference_fid : float, optional
            Default of ``fid`` in the law; the lowest FID of the runs if not given.
        flops_factor : float, default=7822.0
            Training FLOPs per parameter and example of the runs.
        huber_delta : float, default=0.001
            Error of the log-loss above which it counts linearly instead of quadratically.
        n_starts : int, default=24
            Starts of the optimiser.
        n_bootstrap : int, default=200
            Resamples of the runs for the intervals.
        confidence : float, default=0.95
            Level of the intervals.
        random_state : int, optional
            Seed of the resamples. A fresh one if not given.

        Returns
        -------
        Fit
            The law, its intervals, and which coefficients the runs do not identify.

        Raises
        ------
        TypeError
            If ``runs`` has no columns.
        ValueError
            If a column is missing, has a different length or impossible values, there are not
            more runs than coefficients, or another argument is out of range.
        """
        table = read_runs(runs)
        if reference_fid is None:
            reference_fid = 0.0 if table.fid is None else float(table.fid.min())
        check_not_negative("reference_fid", reference_fid)
        return fit_form(
            _QualityForm(table, reference_fid),
            {"reference_fid": reference_fid, "flops_factor": flops_factor},
            fixed,
            huber_delta=huber_delta,
            n_starts=n_starts,
            n_bootstrap=n_bootstrap,
            confidence=confidence,
            random_state=random_state,
        )

    def _bound(self, fid: Any) -> Any:
        """What is added to B / D at a data quality."""
        return (self.Q * fid) ** (self.kappa / self.beta)


class _QualityForm(Form):
    """The law's logarithm in the logarithms of its coefficients, and epsilon."""

    law = QualityLaw

    def __init__(self, runs: Runs, reference_fid: float) -> None:
        self.runs = runs
        self.size, self.examples = np.log(runs.parameters), np.log(runs.data)
        fid = np.full(len(runs), reference_fid) if runs.fid is None else runs.fid
        self.quality = np.log1p(fid)
        # In place of ln 0, so low that the bound vanishes and finite so that 0 times it is 0.
        self.log_fid = np.log(np.maximum(fid, 1e-300))
        self.spread = {"epsilon": float(np.ptp(self.quality)) / float(runs.loss.min())}

    def unvaried(self) -> dict[str, float]:
        # With one quality the bound is at best a constant, and epsilon's term is part of E.
        if self.runs.n_qualities > 1:
            return {}
        return {"Q": 0.0, "kappa": 1.0, "epsilon": 0.0}

    def log_loss(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b, e, q, log_alpha, log_beta, log_kappa, epsilon = theta
        beta, kappa = np.exp(log_beta), np.exp(log_kappa)
        by_size, quality = np.exp(log_alpha) * self.size, max(q, -1e300) + self.log_fid
        remains = np.exp(e) + epsilon * self.quality

        inner = np.stack([b - self.examples, kappa / beta * quality])
        by_data = np.logaddexp(*inner)
        w_data, w_bound = np.exp(inner - by_data)
        terms = np.stack([beta * by_data, np.log(remains), a - by_size])
        total = np.logaddexp.reduce(terms, axis=0)
        w, w_remains, w_size = np.exp(terms - total)

        bound = w * w_bound * kappa
        slopes = [
            w_size,
            w * w_data * beta,
            w_remains * np.exp(e) / remains,
            bound,
            -w_size * by_size,
            w * beta * by_data - bound * quality,
            bound * quality,
            w_remains * self.quality / remains,
        ]
        return total, np.stack(slopes, axis=1)

    def candidates(self) -> np.ndarray:
        found = []
        for alpha in EXPONENTS[::2]:
            for beta in EXPONENTS[::2]:
                powers = [-alpha * self.size, -beta * self.examples, 0 * self.size]
                a, b, e = non_negative_coefficients(powers, self.runs.loss)
                found += [
                    [a, b / beta, e, q, np.log(alpha), np.log(beta), np.log(kappa), epsilon]
                    for q in np.log([1e-4, 1e-3, 1e-2])
                    for kappa in (0.3, 0.6, 1.2)
                    for epsilon in (0.0, 0.05)
                ]
        return np.array(found)
