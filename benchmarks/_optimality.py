"""AttackBench's local optimality, from distances alone, and the interval of a difference.

The area under robust accuracy over [0, r] is the mean of ``min(distance, r)``, because accuracy is
the share of distances that exceed a radius. So local optimality has a closed form; a test compares
it with attackbenchlib's own function where that is installed.
"""

import numpy as np
from numpy.typing import NDArray

Distances = NDArray[np.float64]


def local_optimality(distances: Distances, envelope: Distances) -> NDArray[np.float64]:
    """How near an attack comes to the least distances known, from 0 to 1; NaN without any.

    Both are of shape (..., images): 0 where the image was misclassified from the start, infinity
    where nothing was found. The radius is the largest finite distance of the envelope.
    """
    finite = np.where(np.isfinite(envelope), envelope, 0.0)
    radius = finite.max(axis=-1, keepdims=True)
    saved, most = (
        ((envelope > 0) * (radius - np.minimum(found, radius))).sum(axis=-1)
        for found in (distances, envelope)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(saved / most, 0.0, 1.0)


def interval(
    ours: Distances, theirs: Distances, envelope: Distances, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the difference in local optimality, from paired resamples of the images."""
    n = len(envelope)
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    mine, other = (local_optimality(found[drawn], envelope[drawn]) for found in (ours, theirs))
    low, high = np.nanpercentile(mine - other, [2.5, 97.5])
    return float(low), float(high)
