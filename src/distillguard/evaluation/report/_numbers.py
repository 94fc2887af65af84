"""How figures are written: shares in per cent, intervals, units."""

from ..._typing import Distance

Interval = tuple[float, float]


def units(norm: Distance) -> str:
    """What a radius or a distance in this norm counts."""
    return {"l0": "values", "l0_pixels": "pixels"}.get(norm, "input units")


def percent(share: float) -> str:
    """``0.034`` as ``"3.4 %"``."""
    return f"{100 * share:.1f} %"


def interval(ends: Interval) -> str:
    """``(0.02, 0.05)`` as ``"[2.0, 5.0]"``, in per cent."""
    return f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
