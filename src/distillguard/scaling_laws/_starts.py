"""Starts for the fits: exponents from a grid, with their coefficients solved for."""

import numpy as np
from scipy.optimize import nnls

EXPONENTS = np.geomspace(0.04, 1.5, 10)


def non_negative_coefficients(log_terms: list[np.ndarray], loss: np.ndarray) -> np.ndarray:
    """Logarithms of the best coefficients of the terms, by relative errors.

    Terms with a zero coefficient get a thousandth of the largest, or no descent could restore them.
    """
    shifts = [term.mean() for term in log_terms]
    columns = [np.exp(term - shift) for term, shift in zip(log_terms, shifts, strict=True)]
    found, _ = nnls(np.stack(columns, axis=1) / loss[:, None], np.ones_like(loss))
    return np.log(np.maximum(found, 1e-3 * found.max())) - shifts
