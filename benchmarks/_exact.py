"""The least distance at which a dense ReLU network errs, by mixed-integer linear programming.

A ReLU whose argument can have both signs gets a binary variable, with the bounds of its argument
as the constants that switch it (Tjeng, Xiao and Tedrake 2019, https://arxiv.org/abs/1711.07356);
linear programs over the layers before make the bounds narrow. There is one program for each other
class, solved by HiGHS through :func:`scipy.optimize.milp`. It asks whether a point errs that is
closer than any known; one that does becomes the known one, moved to the closest point at which the
ReLUs are on and off as they are there, until none is left. Where rounding leaves no such point, the
distance is bisected.
"""

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import bmat, coo_array, eye
from torch import nn

Array = NDArray[np.float64]
Layer = tuple[Array, Array]
OPTIMAL, INFEASIBLE = 0, 2
CLOSER = 1e-3
"""By which share a point in linf must be closer than the known one to be looked for."""
ROUNDING = 1e-7
"""What HiGHS allows a value to miss its bound by, and more."""


class Least(NamedTuple):
    """What is known of the least distance to an error."""

    low: float
    """No point errs at this distance or closer. 0 where the time did not suffice."""
    high: float
    """A point errs at this distance."""
    proved: bool
    """Whether ``low`` is next to ``high``: a thousandth below it in linf, one less in l0."""
    seconds: float


def layers(network: nn.Module) -> list[Layer]:
    """Weights and biases of the dense layers, with a ReLU between them, in float64."""
    dense = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return [
        (each.weight.detach().double().cpu().numpy(), each.bias.detach().double().cpu().numpy())
        for each in dense
    ]


def logits(network: list[Layer], inputs: Array) -> Array:
    """Logits of inputs of shape (..., features)."""
    for weight, bias in network[:-1]:
        inputs = np.maximum(inputs @ weight.T + bias, 0)
    weight, bias = network[-1]
    found: Array = inputs @ weight.T + bias
    return found


def least_distance(
    network: list[Layer], x: Array, label: int, norm: str, known: float, seconds: float
) -> Least:
    """Least distance to an error over the box [0, 1], in "linf" or "l0".

    ``known`` is the distance of a point that errs; ``seconds`` the limit for one class.
    """
    started = time.perf_counter()
    low, high = 0.0, known
    within, certain = closer(high, norm), True
    while certain and low < closer(high, norm):
        found, certain = _nearer(network, x, label, norm, within, seconds)
        if found is not None:
            high = found
        elif certain:
            low = within
        stuck = found is None or found == within
        within = (low + high) / 2 if stuck and norm == "linf" else closer(high, norm)
    return Least(low, high, certain, time.perf_counter() - started)


def robust(
    network: list[Layer], x: Array, label: int, norm: str, radius: float, seconds: float
) -> bool | None:
    """Whether no point errs within a radius; None where the time did not suffice."""
    found, certain = _nearer(network, x, label, norm, radius, seconds)
    return found is None if certain else None


def _nearer(
    network: list[Layer], x: Array, label: int, norm: str, within: float, seconds: float
) -> tuple[float | None, bool]:
    """Distance of a point that errs within a distance, or None; and whether that is certain."""
    region, certain = Region(network, x, within, norm), True
    for other in range(len(network[-1][1])):
        if other != label:
            point, sure = region.erring(label, other, seconds)
            if point is not None:
                return min(within, region.closest(point, label, other)), True
            certain &= sure
    return None, certain


def closer(distance: float, norm: str) -> float:
    """The next distance that is worth a search."""
    return distance - 1 if norm == "l0" else distance * (1 - CLOSER)


class Region:
    """The points within a distance of ``x`` and in the box, with the network's values there.

    The variables are blocks: first the point, in l0 then what is changed, then for each hidden
    layer its outputs and its switches.
    """

    def __init__(self, network: list[Layer], x: Array, within: float, norm: str) -> None:
        self.network, self.x, self.within, self.norm = network, x, within, norm
        self.low: list[Array] = []
        self.high: list[Array] = []
        self.integer: list[Array] = []
        self.rows: list[tuple[dict[int, Any], Array, Array]] = []
        reach = within if norm == "linf" else 1.0
        inputs = self._add(np.maximum(x - reach, 0), np.minimum(x + reach, 1))
        if norm == "l0":
            self._change_few(inputs)
        for weight, bias in network[:-1]:
            inputs = self._relu(inputs, weight, bias, *self._range(inputs, weight, bias))
        self.outputs = inputs

    def erring(self, label: int, other: int, seconds: float) -> tuple[Array | None, bool]:
        """Find a point whose logit of ``other`` is not below that of ``label``, or None.

        The second value says whether None is certain.
        """
        weight, bias = self.network[-1]
        lead, level = weight[[other]] - weight[[label]], bias[[other]] - bias[[label]]
        if self._extreme(self.outputs, lead[0], 1) + level[0] < -ROUNDING:
            return None, True
        demand = ({self.outputs: coo_array(lead)}, -level, np.array([np.inf]))
        found = self._ask([*self.rows, demand], time_limit=seconds)
        if found.x is None:
            return None, found.status == INFEASIBLE
        return np.clip(found.x[: len(self.x)], self.low[0], self.high[0]), True

    def closest(self, point: Array, label: int, other: int) -> float:
        """Least distance with the ReLUs as they are at a point, and the values changed there."""
        if self.norm == "l0":
            return float((np.abs(point - self.x) > ROUNDING).sum())
        n = len(self.x)
        size, same = np.ones((n, 1)), eye(n)
        rows = [np.zeros((0, n + 1))]
        slopes, levels = np.eye(n), np.zeros(n)
        bounds: list[Array] = [np.zeros(0)]
        for weight, bias in self.network[:-1]:
            slopes, levels = weight @ slopes, weight @ levels + bias
            on = slopes @ point + levels >= 0
            sign = np.where(on, 1.0, -1.0)
            rows.append(np.hstack([sign[:, None] * slopes, np.zeros((len(sign), 1))]))
            bounds.append(-sign * levels)
            slopes, levels = on[:, None] * slopes, on * levels
        weight, bias = self.network[-1]
        lead = weight[other] - weight[label]
        rows.append(np.append(lead @ slopes, 0.0)[None])
        bounds.append(np.array([-(lead @ levels + bias[other] - bias[label])]))
        above = np.concatenate([np.concatenate(bounds), self.x, -self.x])
        matrix = bmat([[np.vstack(rows)], [bmat([[same, size], [-same, size]])]])
        found = milp(
            np.append(np.zeros(n), 1.0),
            constraints=LinearConstraint(matrix.tocsr(), above, np.inf),
            bounds=Bounds(np.append(self.low[0], 0.0), np.append(self.high[0], self.within)),
        )
        return float(found.fun) if found.status == OPTIMAL else self.within

    def _add(self, low: Array, high: Array, integer: bool = False) -> int:
        """Add a block of variables; its number."""
        self.low.append(low)
        self.high.append(high)
        self.integer.append(np.full(len(low), float(integer)))
        return len(self.low) - 1

    def _require(self, parts: dict[int, Any], low: Array, high: Array) -> None:
        """Demand that the sum of matrices times blocks be between two vectors."""
        self.rows.append(({i: coo_array(part) for i, part in parts.items()}, low, high))

    def _change_few(self, point: int) -> None:
        """Let the point differ from ``x`` in as many values as the distance says."""
        n = len(self.x)
        changed = self._add(np.zeros(n), np.ones(n), integer=True)
        same, unbounded = eye(n), np.full(n, np.inf)
        up, down = np.diag(1 - self.x), np.diag(self.x)
        self._require({point: same, changed: -up}, -unbounded, self.x)
        self._require({point: same, changed: down}, self.x, unbounded)
        self._require({changed: np.ones((1, n))}, np.zeros(1), np.array([self.within]))

    def _relu(self, inputs: int, weight: Array, bias: Array, low: Array, high: Array) -> int:
        """Add a layer whose arguments lie between ``low`` and ``high``; its number."""
        outputs = self._add(np.maximum(low, 0), np.maximum(high, 0))
        same = np.eye(len(bias))
        # At least the argument, everywhere; equal to it where that is never negative.
        above = np.where(low >= 0, bias, np.inf)
        self._require({outputs: same, inputs: -weight}, bias, above)
        both = (low < 0) & (high > 0)
        if both.any():
            under, over, some = low[both], high[both], same[both]
            switch = self._add(np.zeros(len(under)), np.ones(len(under)), integer=True)
            none = np.full(len(under), -np.inf)
            parts = {outputs: some, inputs: -weight[both], switch: np.diag(-under)}
            self._require(parts, none, bias[both] - under)
            self._require({outputs: some, switch: np.diag(-over)}, none, np.zeros(len(over)))
        return outputs

    def _range(self, inputs: int, weight: Array, bias: Array) -> tuple[Array, Array]:
        """Bounds of a dense layer: over the box, and where that leaves both signs, by programs."""
        up, down = np.maximum(weight, 0), np.minimum(weight, 0)
        low = up @ self.low[inputs] + down @ self.high[inputs] + bias
        high = up @ self.high[inputs] + down @ self.low[inputs] + bias
        if self.rows:
            for i in np.flatnonzero((low < 0) & (high > 0)):
                low[i] = max(low[i], self._extreme(inputs, weight[i], -1) + bias[i] - ROUNDING)
                high[i] = min(high[i], self._extreme(inputs, weight[i], 1) + bias[i] + ROUNDING)
        return low, high

    def _extreme(self, block: int, weights: Array, sign: int) -> float:
        """Largest (1) or least (-1) value of a sum over a block, switches between 0 and 1."""
        cost = [np.zeros(len(low)) for low in self.low]
        cost[block] = -sign * weights
        found = self._ask(self.rows, np.concatenate(cost), relaxed=True)
        return sign * np.inf if found.status != OPTIMAL else -sign * found.fun

    def _ask(
        self,
        rows: list[tuple[dict[int, Any], Array, Array]],
        cost: Array | None = None,
        relaxed: bool = False,
        **options: Any,
    ) -> Any:
        """Ask HiGHS for the least cost, or for any point that meets all demands."""
        widths = [len(low) for low in self.low]
        matrix = bmat([
            [parts.get(i, coo_array((len(low), n))) for i, n in enumerate(widths)]
            for parts, low, _ in rows
        ]) if rows else coo_array((0, sum(widths)))  # fmt: skip
        low, high = (np.concatenate([np.zeros(0), *(row[i] for row in rows)]) for i in (1, 2))
        return milp(
            np.zeros(sum(widths)) if cost is None else cost,
            constraints=LinearConstraint(matrix.tocsr(), low, high),
            bounds=Bounds(np.concatenate(self.low), np.concatenate(self.high)),
            integrality=0 if relaxed else np.concatenate(self.integer),
            options=options,
        )
