"""Auto-PGD, away from the label and towards one class after another (Croce and Hein 2020)."""

from ._apgd import apgd
from ._targeted import apgd_targeted

__all__ = ["apgd", "apgd_targeted"]
