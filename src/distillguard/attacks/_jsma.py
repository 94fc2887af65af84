"""The Jacobian-based saliency map attack (Papernot et al. 2016), with the paper's pairs."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .._typing import Bounds, Callback, Mask, Model
from .._validation import check_at_least, check_choice, check_positive
from ..functional import softmax
from ._engine import Query, logits_and_jacobian, logits_at, run, select
from ._examples import Examples
from ._losses import success_margin

Saliency = Literal["softmax", "logits"]
Change = Literal["increase", "decrease", "both"]


def jsma(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    saliency: Saliency = "softmax",
    temperature: float = 1.0,
    max_features: int = 112,
    change: Change = "increase",
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    mask: Mask | None = None,
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    r"""Attack by the saliency map of Papernot, setting features to a bound in pairs [1]_.

    At each step, of all pairs of features that are as they were, the one with

    .. math::
        \arg\max_{(p, q)} \; -\alpha_{pq} \, \beta_{pq}, \qquad
        \alpha_{pq} = \sum_{i \in \{p, q\}} \frac{\partial F_t}{\partial x_i} > 0, \qquad
        \beta_{pq} = \sum_{i \in \{p, q\}} \sum_{j \ne t}
        \frac{\partial F_j}{\partial x_i} < 0

    is set to the upper bound, until the model predicts the target :math:`t` or ``max_features`` are
    changed. If ``change`` lets a feature fall to the lower bound, its slopes count with the
    opposite sign. A feature is one number of the input: colour channels count one by one.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). A module is attacked
        in eval mode; its modes, ``requires_grad`` flags and gradients are left as they were.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified.
    labels : Tensor of shape (n,), int64
        The classes to reach when ``targeted``, as in the paper; else the true classes.
    saliency : {"softmax", "logits"}, default="softmax"
        What :math:`F` is. ``"softmax"``, the probabilities, is what the paper attacked and the
        JSMA-F of Carlini and Wagner [3]_; where a distilled model's softmax saturates, its
        gradients are exactly zero and the attack stops. ``"logits"`` is their JSMA-Z, which
        never stops so but weights all other classes alike, and succeeds less often.
    temperature : float, default=1.0
        What the logits are divided by before the softmax. The temperature of a defensive
        distillation here undoes it [2]_. ``saliency="logits"`` does not depend on it.
    max_features : int, default=112
        Features changed at most, a whole number of pairs; 112 is the paper's 14.3 % of an
        MNIST image.
    change : {"increase", "decrease", "both"}, default="increase"
        Whether features go to the upper bound, as in the paper's tables, to the lower, or each
        to whichever bound serves better. ``"both"`` succeeds more often with fewer features.
    targeted : bool, default=False
        Reach ``labels``. If not, the target is at each step the likeliest class other than the
        label, and any class other than the label is a success.
    bounds : tuple of float or Tensor, default=(0.0, 1.0)
        Lowest and highest value an input may take, to which features are set: two numbers, or
        tensors broadcastable to one input, such as one bound for each feature or channel.
    mask : Tensor of bool, optional
        Which coordinates may change, in the shape of one input or of all (with a first axis of 1
        or n); the others come back bit-equal. All may if not given.
    batch_size : int, default=256
        Examples on the device at once. Memory grows with it; results do not change.
    random_state : int, optional
        Only reaches models that draw random numbers themselves; the attack draws none.
    progress : bool, default=False
        Show a progress bar that counts decided examples.
    callback : callable, optional
        Called at every question to the model with ``(indices, points, logits)``: places in
        ``inputs`` (m,), the points (m, ...) in the dtype of ``inputs`` and the model's answer
        (m, n_classes), detached. What it returns is ignored.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs``, each feature as it was or at a bound.
        An example on which the attack failed, out of features or without any pair that the
        conditions admit, comes back unchanged, as does one that is misclassified already.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point, ``labels`` is not int64 or ``mask`` is not bool.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, the model answers by an example's place
        in the batch, ``saliency`` or ``change`` is
        unknown, ``temperature`` is not a finite number above 0, ``max_features`` is below 2, or
        ``model`` returns something else than logits.
    NoGradientError
        If autograd cannot trace the model's output back to its input.

    See Also
    --------
    carlini_wagner_l0 : Fewer features, changed by any amount.

    Notes
    -----
    Probabilities sum to 1, so that with the softmax :math:`\beta = -\alpha` and one gradient
    serves both; logits need two. No more is asked of the model than one forward a step. The
    best pair is found exactly, without looking at all pairs.

    References
    ----------
    .. [1] N. Papernot, P. McDaniel, S. Jha, M. Fredrikson, Z. B. Celik and A. Swami, "The
       Limitations of Deep Learning in Adversarial Settings", EuroS&P 2016, algorithms 2 and 3.
       https://arxiv.org/abs/1511.07528
    .. [2] N. Carlini and D. Wagner, "Defensive Distillation is Not Robust to Adversarial
       Examples", 2016. https://arxiv.org/abs/1607.04311
    .. [3] N. Carlini and D. Wagner, "Towards Evaluating the Robustness of Neural Networks",
       IEEE S&P 2017, sections III-C and VIII-A. https://arxiv.org/abs/1608.04644

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import jsma
    >>> model = torch.nn.Linear(4, 2, bias=False)
    >>> weight = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 3.0]])
    >>> _ = model.weight.data.copy_(weight)
    >>> inputs, targets = torch.tensor([[0.9, 0.8, 0.1, 0.2]]), torch.tensor([1])
    >>> jsma(model, inputs, targets, targeted=True)
    tensor([[0.9000, 0.8000, 1.0000, 1.0000]])
    """
    check_choice("saliency", saliency, ("softmax", "logits"))
    check_positive("temperature", temperature)
    check_at_least("max_features", max_features, 2)
    check_choice("change", change, ("increase", "decrease", "both"))

    algorithm = SaliencyMapAttack(
        saliency=saliency,
        temperature=temperature,
        max_features=max_features,
        change=change,
        targeted=targeted,
    )
    return run(
        algorithm,
        model,
        inputs,
        labels,
        targeted=targeted,
        bounds=bounds,
        mask=mask,
        batch_size=batch_size,
        random_state=random_state,
        progress=progress,
        callback=callback,
    )


class JSMAState(NamedTuple):
    """Where each example stands; every tensor's first axis is the example."""

    examples: Examples
    current: Tensor
    changed: Tensor
    """Features changed so far."""
    reached: Tensor
    over: Tensor


@dataclass(frozen=True)
class SaliencyMapAttack:
    """The state machine behind :func:`jsma`."""

    saliency: Saliency
    temperature: float
    max_features: int
    change: Change
    targeted: bool

    def start(self, examples: Examples) -> JSMAState:
        """Begin at the input, nothing changed."""
        no = torch.zeros_like(examples.labels, dtype=torch.bool)
        return JSMAState(examples, examples.inputs, torch.zeros_like(examples.labels), no, no)

    def step(self, model: Query, state: JSMAState) -> JSMAState:
        """Judge the current point and change the most salient pair; the last is only judged."""
        able = state.changed + 2 <= self.max_features
        if bool(able.any()):
            logits, jacobian = logits_and_jacobian(
                model, state.examples, state.current, self._outputs
            )
            changed, found = self._change(state, jacobian.flatten(2))
        else:
            logits = logits_at(model, state.examples, state.current)
            changed, found = state.current, able

        reached = success_margin(logits, state.examples, self.targeted) > 0
        moves = able & found & ~reached
        return state._replace(
            current=select(moves, changed, state.current),
            changed=state.changed + 2 * moves,
            reached=reached,
            over=~moves,
        )

    def done(self, state: JSMAState) -> Tensor:
        """At the aim, out of features, or without any salient pair."""
        return state.over

    def result(self, state: JSMAState) -> Tensor:
        """Return the point that reached its aim, and the input where none did."""
        return select(state.reached, state.current, state.examples.inputs)

    def _outputs(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What a pair must raise, F_t and minus all other F_j: (n, 2), or (n, 1) if they agree."""
        target = labels[:, None]
        if not self.targeted:
            target = logits.detach().scatter(1, target, -torch.inf).argmax(dim=1, keepdim=True)
        if self.saliency == "softmax":
            # The others' probabilities are 1 minus the target's, and so are their slopes.
            return softmax(logits, self.temperature).gather(1, target)
        aim = logits.gather(1, target)
        return torch.cat([aim, aim - logits.sum(dim=1, keepdim=True)], dim=1)

    def _change(self, state: JSMAState, slopes: Tensor) -> tuple[Tensor, Tensor]:
        """Set the best pair to its bounds, and say where there is one (algorithm 3).

        Slopes are (n, 1 or 2, d). With two bounds each feature stands twice, and the pair of it
        with itself gains nothing.
        """
        flat, (inputs, low, high) = state.current.flatten(1), self._flat(state.examples)
        signs = {"increase": [1], "decrease": [-1], "both": [1, -1]}[self.change]
        bound_values = torch.stack([high if sign > 0 else low for sign in signs], dim=1)
        fixed = (flat != inputs)[:, None] | (flat[:, None] == bound_values)
        gains = torch.cat(
            [
                (sign * slopes).masked_fill(fixed[:, number, None], -torch.inf)
                for number, sign in enumerate(signs)
            ],
            dim=2,
        )
        # Where there is but one output, it stands for both.
        pair, found = best_pair(gains[:, 0], gains[:, -1])
        values = bound_values.flatten(1).gather(1, pair)
        return flat.scatter(1, pair % flat.shape[1], values).view_as(state.current), found

    def _flat(self, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, lowest and highest values, (n, d) each."""
        inputs = examples.inputs
        low, high = examples.low.expand_as(inputs), examples.high.expand_as(inputs)
        return inputs.flatten(1), low.flatten(1), high.flatten(1)


def best_pair(rises: Tensor, falls: Tensor) -> tuple[Tensor, Tensor]:
    """Find the two features of each example that maximise (sum of rises) * (sum of falls).

    Both sums must be above 0; features at -inf are out of the question. ``rises`` and ``falls``
    are (n, d); returns the places (n, 2) and whether there is such a pair (n,).
    """
    places, rises, falls = _contenders(rises.double(), falls.double())
    best = rises.new_full((len(rises),), -torch.inf)
    pair = torch.zeros_like(places[:, :2])
    for first in range(places.shape[1] - 1):
        rise = rises[:, first : first + 1] + rises[:, first + 1 :]
        fall = falls[:, first : first + 1] + falls[:, first + 1 :]
        # Logarithms: the product itself underflows where a distilled model is nearly flat.
        score = torch.where((rise > 0) & (fall > 0), rise.log() + fall.log(), -torch.inf)

        most, partner = score.max(dim=1)
        better = most > best
        here = torch.stack([places[:, first], _picked(places[:, first + 1 :], partner)], dim=1)
        pair = torch.where(better[:, None], here, pair)
        best = torch.where(better, most, best)
    return pair, best > -torch.inf


def _contenders(rises: Tensor, falls: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places, rises and falls of the features that a best pair can need, padded with -inf.

    Take a best pair and a feature of it that two others match or beat in both rise and fall:
    one of the two is not its partner, and can replace it. So only features that at most one
    other beats have to be paired: usually a few dozen, even of thousands.
    """
    order = rises.argsort(dim=1, descending=True, stable=True)
    rises, falls = rises.gather(1, order), falls.gather(1, order)
    highest_before = _earlier(falls.cummax(dim=1).values)
    second_before = _earlier(torch.minimum(falls, highest_before).cummax(dim=1).values)
    kept = falls > second_before

    width = max(2, int(kept.sum(dim=1).amax()))
    first = kept.byte().argsort(dim=1, descending=True, stable=True)[:, :width]
    dropped = ~kept.gather(1, first)
    rises = rises.gather(1, first).masked_fill(dropped, -torch.inf)
    falls = falls.gather(1, first).masked_fill(dropped, -torch.inf)
    return order.gather(1, first), rises, falls


def _earlier(running: Tensor) -> Tensor:
    """Shift a running maximum by one place: over what stands strictly before."""
    return torch.cat([torch.full_like(running[:, :1], -torch.inf), running[:, :-1]], dim=1)


def _picked(places: Tensor, at: Tensor) -> Tensor:
    return places.gather(1, at[:, None]).squeeze(1)
