"""The Square attack: random search that needs no gradients (Andriushchenko et al. 2020)."""

from torch import Tensor

from .._typing import Bounds, Model, Norm
from .._validation import check_at_least, check_norm, check_positive
from ._engine import run
from ._random_search import RandomSearch


def square(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    queries: int = 5000,
    p_init: float = 0.8,
    restarts: int = 1,
    early_stop: bool = True,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 256,
    random_state: int | None = None,
    progress: bool = False,
) -> Tensor:
    r"""Attack by random search over squares of pixels, without gradients [1]_.

    Each query changes one random square of the best point so far, and keeps the change if the
    logit margin grew. In linf the square takes one of the values :math:`\pm\varepsilon` in each
    channel, after a start in vertical stripes of such values. In l2 the norm that two squares
    use moves into one of them, as two bumps of opposite sign. The squares shrink by a fixed
    schedule. What gradient masking hides from other attacks, this one still finds.

    Parameters
    ----------
    model : callable
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes). Asked for values alone:
        it need not be differentiable. A module is attacked in eval mode and given back as it
        was.
    inputs : Tensor of shape (n, ...), floating
        Clean examples within ``bounds``. Not modified. The last two axes are taken for rows and
        columns of an image, those before for its channels; features (n, d) for one row.
    labels : Tensor of shape (n,), int64
        True classes, or the classes to reach when ``targeted``.
    epsilon : float
        :math:`\varepsilon`, radius of the ball, in the units of ``inputs``.
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball.
    queries : int, default=5000
        How often the model is asked about one example in each run, the start included.
    p_init : float, default=0.8
        Share of the pixels in the first squares, above 0 and at most 1. It is halved nine
        times, after 0.1 % of the queries first and 80 % last.
    restarts : int, default=1
        Independent runs.
    early_stop : bool, default=True
        Leave an example alone as soon as the model is fooled, rather than widen the margin with
        the queries that are left.
    targeted : bool, default=False
        Move towards ``labels`` instead of away from them.
    bounds : tuple of float, default=(0.0, 1.0)
        Lowest and highest value an input may take.
    batch_size : int, default=256
        Examples on the device at once. Memory grows with it; results do not change.
    random_state : int, optional
        Seed of all draws, made per example. A fresh one if not given.
    progress : bool, default=False
        Show a progress bar that counts decided examples.

    Returns
    -------
    Tensor of shape (n, ...)
        Adversarial examples, like ``inputs``: within ``bounds`` exactly and within ``epsilon``
        up to rounding. Where the attack failed its best candidate is returned: judge success
        by asking the model.

    Raises
    ------
    TypeError
        If ``inputs`` is not floating point or ``labels`` is not int64.
    ValueError
        If shapes disagree, ``inputs`` leaves ``bounds``, ``epsilon`` is not a finite number
        above 0, ``p_init`` is not in (0, 1], ``queries`` or ``restarts`` is below 1, ``norm`` is
        unknown, or ``model`` returns something else than logits.

    See Also
    --------
    apgd : With gradients, some hundred times cheaper where they can be trusted.

    Notes
    -----
    A linf proposal that would change nothing is made with the opposite signs: no point is asked
    about twice. The paper uses the cross-entropy for targeted attacks; here it is the margin.

    References
    ----------
    .. [1] M. Andriushchenko, F. Croce, N. Flammarion and M. Hein, "Square Attack: a
       Query-Efficient Black-Box Adversarial Attack via Random Search", ECCV 2020,
       algorithms 1 to 3. https://arxiv.org/abs/1912.00049

    Examples
    --------
    >>> import torch
    >>> from distillguard.attacks import square
    >>> model = lambda images: (9 * images.mean(dim=(2, 3))).round()  # no gradient to follow
    >>> inputs, labels = torch.full((1, 2, 8, 8), 0.45), torch.tensor([0])
    >>> inputs[:, 0] += 0.1
    >>> adversarial = square(model, inputs, labels, epsilon=0.2, random_state=0)
    >>> model(adversarial).argmax(dim=1)
    tensor([1])
    """
    check_positive("epsilon", epsilon)
    check_norm(norm, ("linf", "l2"))
    check_at_least("queries", queries, 1)
    check_at_least("restarts", restarts, 1)
    check_positive("p_init", p_init)
    if p_init > 1:
        raise ValueError(f"p_init must be at most 1, got {p_init!r}")

    algorithm = RandomSearch(
        epsilon=epsilon,
        norm=norm,
        queries=queries,
        p_init=p_init,
        restarts=restarts,
        early_stop=early_stop,
        targeted=targeted,
        bounds=bounds,
    )
    return run(
        algorithm,
        model,
        inputs,
        labels,
        bounds=bounds,
        batch_size=batch_size,
        random_state=random_state,
        progress=progress,
    )
