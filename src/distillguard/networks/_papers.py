"""The papers' networks: functions from ``(input_shape, n_classes)`` to a module of logits."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from .._validation import check_at_least
from ._layers import (
    PreActivationResNet,
    check_dropout,
    check_image,
    check_shape,
    check_sizes,
    he_initialised,
    papernot,
)


def papernot_mnist(
    input_shape: Sequence[int] = (1, 28, 28),
    n_classes: int = 10,
    *,
    dropout: float | Sequence[float] = 0.5,
    initial_weights: str = "he",
) -> nn.Module:
    """Build the MNIST network of the defensive distillation paper [1]_.

    Two 3x3 convolutions of 32 channels, pooling, two of 64, pooling, two hidden layers of 200
    and the logits; 312,202 parameters on MNIST. Every layer but the last is followed by a ReLU.

    Parameters
    ----------
    input_shape : sequence of int, default=(1, 28, 28)
        Channels, height and width of one example; both sides of at least 16.
    n_classes : int, default=10
        Logits to return, at least 2.
    dropout : float or pair of floats, default=0.5
        Share of hidden units zeroed in training, in [0, 1), after both hidden layers; a pair
        gives one value for each.
    initial_weights : {"he", "torch"}, default="he"
        He's rule, or PyTorch's default, whose weights are less than half as large and better
        for :class:`~distillguard.AdversarialTrainer` at large radii.

    Returns
    -------
    nn.Module
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes).

    Raises
    ------
    TypeError
        If ``input_shape`` or ``n_classes`` is not made of integers, or ``dropout`` is neither a
        number nor a pair of numbers.
    ValueError
        If ``input_shape`` is not an image of at least 16x16, ``n_classes`` is below 2,
        ``dropout`` is outside [0, 1) or ``initial_weights`` is unknown.

    See Also
    --------
    papernot_cifar10 : The same layers, wider.

    Notes
    -----
    The paper leaves three choices open. Here, convolutions are not padded, as in Carlini and
    Wagner's code [2]_, which reduces 28x28 images to 4x4 maps. Dropout follows both hidden layers;
    Carlini and Wagner's code has it only after the first, which is ``dropout=(0.5, 0)``. Weights
    are drawn by He's rule [3]_ and biases are 0, unless ``initial_weights`` says otherwise.

    References
    ----------
    .. [1] N. Papernot, P. McDaniel, X. Wu, S. Jha and A. Swami, "Distillation as a Defense to
       Adversarial Perturbations against Deep Neural Networks", IEEE S&P 2016, table I.
       https://arxiv.org/abs/1511.04508
    .. [2] N. Carlini and D. Wagner, "Towards Evaluating the Robustness of Neural Networks",
       IEEE S&P 2017, table I. https://arxiv.org/abs/1608.04644
    .. [3] K. He, X. Zhang, S. Ren and J. Sun, "Delving Deep into Rectifiers", ICCV 2015,
       equation 10. https://arxiv.org/abs/1502.01852

    Examples
    --------
    >>> import torch
    >>> from distillguard.networks import papernot_mnist
    >>> network = papernot_mnist()
    >>> network(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    sizes: dict[str, Any] = {"channels": (32, 64), "hidden": 200}
    return papernot(input_shape, n_classes, dropout, **sizes, initial_weights=initial_weights)


def papernot_cifar10(
    input_shape: Sequence[int] = (3, 32, 32),
    n_classes: int = 10,
    *,
    dropout: float | Sequence[float] = 0.5,
    initial_weights: str = "he",
) -> nn.Module:
    """Build the CIFAR-10 network of the defensive distillation paper [1]_.

    The layers of :func:`papernot_mnist` with 64 and 128 channels and hidden layers of 256;
    1,147,978 parameters on CIFAR-10. Choices that the paper leaves open are the same.

    Parameters
    ----------
    input_shape : sequence of int, default=(3, 32, 32)
        Channels, height and width of one example; both sides of at least 16.
    n_classes : int, default=10
        Logits to return, at least 2.
    dropout : float or pair of floats, default=0.5
        Share of hidden units zeroed in training, in [0, 1), after both hidden layers; a pair
        gives one value for each.
    initial_weights : {"he", "torch"}, default="he"
        He's rule, or PyTorch's default, whose weights are less than half as large and better
        for :class:`~distillguard.AdversarialTrainer` at large radii.

    Returns
    -------
    nn.Module
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes).

    Raises
    ------
    TypeError
        If ``input_shape`` or ``n_classes`` is not made of integers, or ``dropout`` is neither a
        number nor a pair of numbers.
    ValueError
        If ``input_shape`` is not an image of at least 16x16, ``n_classes`` is below 2,
        ``dropout`` is outside [0, 1) or ``initial_weights`` is unknown.

    See Also
    --------
    papernot_mnist : The choices that the paper leaves open.
    preact_resnet18 : A stronger network for images of this size.

    References
    ----------
    .. [1] N. Papernot, P. McDaniel, X. Wu, S. Jha and A. Swami, "Distillation as a Defense to
       Adversarial Perturbations against Deep Neural Networks", IEEE S&P 2016, table I.
       https://arxiv.org/abs/1511.04508

    Examples
    --------
    >>> import torch
    >>> from distillguard.networks import papernot_cifar10
    >>> network = papernot_cifar10(n_classes=4)
    >>> network(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 4])
    """
    sizes: dict[str, Any] = {"channels": (64, 128), "hidden": 256}
    return papernot(input_shape, n_classes, dropout, **sizes, initial_weights=initial_weights)


def mlp(
    input_shape: Sequence[int],
    n_classes: int = 10,
    *,
    hidden: Sequence[int] = (256, 128),
    dropout: float = 0.0,
) -> nn.Module:
    """Build a fully connected network for tables and small images.

    The input is flattened, and a ReLU follows each hidden layer. Weights are drawn by He's rule
    [1]_ and biases are 0.

    Parameters
    ----------
    input_shape : sequence of int
        Shape of one example, of any rank: ``(n_features,)`` for a table.
    n_classes : int, default=10
        Logits to return, at least 2.
    hidden : sequence of int, default=(256, 128)
        Width of each hidden layer. Empty for a linear model.
    dropout : float, default=0.0
        Share of the hidden units zeroed in training, in [0, 1), after each hidden layer.

    Returns
    -------
    nn.Module
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes).

    Raises
    ------
    TypeError
        If ``input_shape``, ``n_classes`` or ``hidden`` is not made of integers, or ``dropout`` is
        not a number.
    ValueError
        If ``input_shape`` is empty, a width or an axis is below 1, ``n_classes`` is below 2 or
        ``dropout`` is outside [0, 1).

    See Also
    --------
    papernot_mnist : A convolutional network for images of 16x16 and more.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren and J. Sun, "Delving Deep into Rectifiers", ICCV 2015,
       equation 10. https://arxiv.org/abs/1502.01852

    Examples
    --------
    >>> import torch
    >>> from distillguard.networks import mlp
    >>> network = mlp((1, 8, 8), hidden=(64,))
    >>> network(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    shape = check_shape(input_shape)
    check_at_least("n_classes", n_classes, 2)
    check_sizes("hidden", hidden)
    share, _ = check_dropout(dropout)

    layers: list[nn.Module] = [nn.Flatten()]
    widths = [math.prod(shape), *hidden]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), *([nn.Dropout(share)] if share else [])]
    layers.append(nn.Linear(widths[-1], n_classes))
    return he_initialised(nn.Sequential(*layers))


def preact_resnet18(input_shape: Sequence[int] = (3, 32, 32), n_classes: int = 10) -> nn.Module:
    """Build the pre-activation ResNet-18 for small images [1]_.

    A 3x3 convolution without stride, four stages of two blocks with 64, 128, 256 and 512
    channels, a last normalisation, averaging over the map, and the logits; 11,172,170
    parameters on CIFAR-10. The usual student of adversarially robust distillation.

    Parameters
    ----------
    input_shape : sequence of int, default=(3, 32, 32)
        Channels, height and width of one example; both sides of at least 8.
    n_classes : int, default=10
        Logits to return, at least 2.

    Returns
    -------
    nn.Module
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes).

    Raises
    ------
    TypeError
        If ``input_shape`` or ``n_classes`` is not made of integers.
    ValueError
        If ``input_shape`` is not an image of at least 8x8 or ``n_classes`` is below 2.

    See Also
    --------
    wide_resnet : Fewer stages, wider blocks, SiLU.

    Notes
    -----
    Convolutions are initialised by He's rule over their outputs, and biases are 0. Inputs are
    expected in [0, 1] and need no standardisation, which the first normalisation layer does.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren and J. Sun, "Identity Mappings in Deep Residual Networks",
       ECCV 2016, figure 1(b). https://arxiv.org/abs/1603.05027

    Examples
    --------
    >>> import torch
    >>> from distillguard.networks import preact_resnet18
    >>> network = preact_resnet18()
    >>> network(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    return PreActivationResNet(
        check_image(input_shape, least=8),
        n_classes,
        stem=64,
        widths=(64, 128, 256, 512),
        blocks=2,
        activation=nn.ReLU,
    )


def wide_resnet(
    input_shape: Sequence[int] = (3, 32, 32),
    n_classes: int = 10,
    *,
    depth: int = 28,
    width: int = 10,
    activation: Callable[[], nn.Module] = nn.SiLU,
) -> nn.Module:
    """Build a wide residual network [1]_, by default with SiLU as in robust training [2]_.

    A 3x3 convolution of 16 channels, three stages of ``(depth - 4) / 6`` blocks with 16, 32
    and 64 times ``width`` channels, a last normalisation, averaging over the map, and the
    logits. WRN-28-10 has 36.48 million parameters on CIFAR-10, WRN-94-16 has 365.92 million.

    Parameters
    ----------
    input_shape : sequence of int, default=(3, 32, 32)
        Channels, height and width of one example; both sides of at least 4.
    n_classes : int, default=10
        Logits to return, at least 2.
    depth : int, default=28
        Convolutions on the longest path: 6 k + 4 with k blocks per stage.
    width : int, default=10
        Factor of the channels. Memory grows linearly with it, parameters quadratically.
    activation : callable, default=nn.SiLU
        Creates the activation module: a class such as ``nn.ReLU``, the original choice.

    Returns
    -------
    nn.Module
        Maps inputs of shape (n, ...) to logits of shape (n, n_classes).

    Raises
    ------
    TypeError
        If ``input_shape``, ``n_classes``, ``depth`` or ``width`` is not made of integers.
    ValueError
        If ``input_shape`` is not an image of at least 4x4, ``n_classes`` is below 2, ``width``
        is below 1 or ``depth`` is not 6 k + 4 for some k of at least 1.

    See Also
    --------
    preact_resnet18 : The smaller network of the same kind.

    Notes
    -----
    Convolutions are initialised by He's rule over their outputs, and biases are 0. Inputs are
    expected in [0, 1] and need no standardisation, which the first normalisation layer does.

    References
    ----------
    .. [1] S. Zagoruyko and N. Komodakis, "Wide Residual Networks", BMVC 2016, table 1.
       https://arxiv.org/abs/1605.07146
    .. [2] B. R. Bartoldson, J. Diffenderfer, K. Parasyris and B. Kailkhura, "Adversarial
       Robustness Limits via Scaling-Law and Human-Alignment Studies", ICML 2024.
       https://arxiv.org/abs/2404.09349

    Examples
    --------
    >>> import torch
    >>> from distillguard.networks import wide_resnet
    >>> network = wide_resnet(depth=10, width=1)
    >>> network(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    check_at_least("depth", depth, 1)
    check_at_least("width", width, 1)
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"depth must be 6 k + 4 for some k of at least 1, got {depth}")
    return PreActivationResNet(
        check_image(input_shape, least=4),
        n_classes,
        stem=16,
        widths=(16 * width, 32 * width, 64 * width),
        blocks=(depth - 4) // 6,
        activation=activation,
    )
