"""Approach 2: a loss of three terms, two of which depend on the data quality."""

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
class ParametricLaw(ScalingLaw):
    r"""Loss as a sum of power laws in size and data, with data quality [1]_.

    .. math::
        L = \frac{A}{N^\alpha} + \frac{B q^\zeta}{D^\beta} + E q^\epsilon,
        \qquad q = \frac{1 + \mathrm{FID}}{1 + \mathrm{FID}_0},

    for :math:`N` parameters and :math:`D` examples. The terms are the loss due to the finite
    network, the loss due to the finite data, and the irreducible loss. Without :math:`q` this is
    approach 3 of [2]_.

    Attributes
    ----------
    A : float
        Coefficient of the size.
    B : float
        Coefficient of the data.
    E : float
        Irreducible loss, with unlimited size and unlimited data of the reference quality.
    alpha : float
        Exponent of the size.
    beta : float
        Exponent of the data.
    zeta : float
        Exponent of the quality in the data term. Of either sign; 0 for no dependence.
    epsilon : float
        Exponent of the quality in the irreducible loss. Of either sign; 0 for no dependence.
    reference_fid : float
        :math:`\mathrm{FID}_0`, at which :math:`q = 1`; also the default of ``fid``.
    flops_factor : float
        Training FLOPs per parameter and example.
    accuracy_line : AccuracyLine or None
        Robust accuracy as a linear function of the loss.
    source : str
        Source of the coefficients.

    See Also
    --------
    EnvelopeLaw : Assumes no form of the loss; for compute-optimal networks only.
    QualityLaw : The data quality limits the benefit of more data.

    References
    ----------
    .. [1] B. R. Bartoldson, J. Diffenderfer, K. Parasyris and B. Kailkhura, "Adversarial
       Robustness Limits via Scaling-Law and Human-Alignment Studies", ICML 2024, approach 2.
       https://arxiv.org/abs/2404.09349
    .. [2] J. Hoffmann et al., "Training Compute-Optimal Large Language Models", NeurIPS 2022,
       section 3.3. https://arxiv.org/abs/2203.15556

    Examples
    --------
    >>> from distillguard.scaling_laws import BARTOLDSON2024_PARAMETRIC as law
    >>> best = law.compute_optimal(1e20, fid=1.65)
    >>> print(f"{best.parameters:.3g} parameters, {best.data:.3g} examples: {best.accuracy:.1%}")
    5.35e+07 parameters, 2.39e+08 examples: 70.3%
    >>> round(law.loss(parameters=79e6, data=350e6), 3)
    0.724
    """

    A: float
    B: float
    E: float
    alpha: float
    beta: float
    zeta: float = 0.0
    epsilon: float = 0.0
    reference_fid: float = 0.0
    flops_factor: float = FLOPS_FACTOR
    accuracy_line: AccuracyLine | None = None
    source: str = ""

    _coefficients: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("A", "B", "E", "alpha", "beta"), "positive"),
        **dict.fromkeys(("zeta", "epsilon"), "any"),
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
        b, e = self._at(fid)
        values = self.A / size**self.alpha + b / examples**self.beta + e
        return like(values, parameters, data, fid)

    def compute_optimal(self, flops: Any, fid: Any = None) -> Optimum:
        r"""Find the size and the data that give the lowest loss for the compute.

        In closed form, with :math:`C` the FLOPs, :math:`k` the ``flops_factor`` and
        :math:`B' = B q^\zeta`:

        .. math::
            N = G \left(\frac{C}{k}\right)^{\beta/(\alpha+\beta)}, \quad
            D = \frac{1}{G} \left(\frac{C}{k}\right)^{\alpha/(\alpha+\beta)}, \quad
            G = \left(\frac{\alpha A}{\beta B'}\right)^{1/(\alpha+\beta)}.

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
        product = positive("flops", flops) / self.flops_factor
        b, _ = self._at(fid)
        total = self.alpha + self.beta
        balance = (self.alpha * self.A / (self.beta * b)) ** (1 / total)
        size = balance * product ** (self.beta / total)
        examples = product ** (self.alpha / total) / balance
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
        n_starts: int = 16,
        n_bootstrap: int = 200,
        confidence: float = 0.95,
        random_state: int | None = None,
    ) -> Fit:
        r"""Fit the law to training runs.

        Minimises the mean Huber loss of the errors of the log-loss, as in [1]_, by L-BFGS with
        analytic gradients; the logarithm of the law is a log-sum-exp of three terms that are
        linear in the logarithms. All coefficients are fitted jointly. For a fit in two stages,
        hold some with ``fixed``.

        Parameters
        ----------
        runs : mapping of columns, data frame, structured array or sequence of mappings
            Columns ``parameters``, ``data`` and ``loss``; optionally ``fid``, ``accuracy``
            (gives the law its accuracy line) and ``run`` (rows with the same name are
            checkpoints of one run and are resampled together). Others are ignored.
        fixed : mapping, optional
            Coefficients to hold fixed, by name.
        reference_fid : float, optional
            :math:`\mathrm{FID}_0`; the lowest FID of the runs if not given.
        flops_factor : float, default=7822.0
            Training FLOPs per parameter and example of the runs.
        huber_delta : float, default=0.001
            Error of the log-loss above which it counts linearly instead of quadratically.
        n_starts : int, default=16
            Starts of the optimiser: the best of about a hundred combinations of exponents, with
            their coefficients solved for, and a sample of the others.
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

        References
        ----------
        .. [1] B. R. Bartoldson, J. Diffenderfer, K. Parasyris and B. Kailkhura, "Adversarial
           Robustness Limits via Scaling-Law and Human-Alignment Studies", ICML 2024.
           https://arxiv.org/abs/2404.09349

        Examples
        --------
        >>> from distillguard.scaling_laws import BARTOLDSON2024_PARAMETRIC, ParametricLaw
        >>> pairs = [(size, data) for size in (1e6, 1e7, 1e8) for data in (1e6, 1e7, 1e8)]
        >>> runs = [
        ...     {"parameters": n, "data": d, "loss": BARTOLDSON2024_PARAMETRIC.loss(n, d)}
        ...     for n, d in pairs
        ... ]
        >>> fit = ParametricLaw.fit(runs, n_bootstrap=20, random_state=0)
        >>> round(fit.law.alpha, 4), round(fit.law.beta, 4)
        (0.2443, 0.2281)
        >>> sorted(fit.unidentified)  # one data quality says nothing about others
        ['epsilon', 'zeta']
        """
        table = read_runs(runs)
        if reference_fid is None:
            reference_fid = 0.0 if table.fid is None else float(table.fid.min())
        check_not_negative("reference_fid", reference_fid)
        return fit_form(
            _ParametricForm(table, reference_fid),
            {"reference_fid": reference_fid, "flops_factor": flops_factor},
            fixed,
            huber_delta=huber_delta,
            n_starts=n_starts,
            n_bootstrap=n_bootstrap,
            confidence=confidence,
            random_state=random_state,
        )

    def _at(self, fid: Any) -> tuple[Any, Any]:
        """The coefficients B and E at a data quality."""
        quality = (1 + self._fid(fid)) / (1 + self.reference_fid)
        return self.B * quality**self.zeta, self.E * quality**self.epsilon


class _ParametricForm(Form):
    """The law's logarithm in ln A, ln B, ln E, ln alpha, ln beta, zeta, epsilon."""

    law = ParametricLaw

    def __init__(self, runs: Runs, reference_fid: float) -> None:
        self.runs = runs
        self.size, self.examples = np.log(runs.parameters), np.log(runs.data)
        fid = np.full(len(runs), reference_fid) if runs.fid is None else runs.fid
        self.quality = np.log1p(fid) - np.log1p(reference_fid)
        self.spread = {name: float(np.ptp(self.quality)) for name in ("zeta", "epsilon")}

    def unvaried(self) -> dict[str, float]:
        # With one quality q is a constant, which A, B and E absorb.
        return {"zeta": 0.0, "epsilon": 0.0} if self.runs.n_qualities == 1 else {}

    def log_loss(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b, e, log_alpha, log_beta, zeta, epsilon = theta
        by_size, by_data = np.exp(log_alpha) * self.size, np.exp(log_beta) * self.examples
        terms = np.stack(
            [a - by_size, b + zeta * self.quality - by_data, e + epsilon * self.quality]
        )
        total = np.logaddexp.reduce(terms, axis=0)
        w = np.exp(terms - total)
        slopes = [*w, -w[0] * by_size, -w[1] * by_data, w[1] * self.quality, w[2] * self.quality]
        return total, np.stack(slopes, axis=1)

    def candidates(self) -> np.ndarray:
        found = []
        for alpha in EXPONENTS:
            for beta in EXPONENTS:
                powers = [-alpha * self.size, -beta * self.examples, 0 * self.size]
                coefficients = non_negative_coefficients(powers, self.runs.loss)
                found += [
                    [*coefficients, np.log(alpha), np.log(beta), zeta, epsilon]
                    for zeta in ((-0.3, 0.3) if self.spread["zeta"] else (0,))
                    for epsilon in ((-0.3, 0.3) if self.spread["zeta"] else (0,))
                ]
        return np.array(found)
