"""Starts for the fits: exponents from a grid, the coefficients that belong to them solved for."""

import numpy as np
from scipy.optimize import nnls

EXPONENTS = np.geomspace(0.04, 1.5, 10)


def non_negative_coefficients(log_terms: list[np.ndarray], loss: np.ndarray) -> np.ndarray:
    """Logarithms of the best coefficients of the terms, by relative errors.

    Terms that the solution does without keep a thousandth, or no descent would bring them back.
    """
    shifts = [term.mean() for term in log_terms]
    columns = [np.exp(term - shift) for term, shift in zip(log_terms, shifts, strict=True)]
    found, _ = nnls(np.stack(columns, axis=1) / loss[:, None], np.ones_like(loss))
    return np.log(np.maximum(found, 1e-3 * found.max())) - shifts
