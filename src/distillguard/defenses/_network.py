"""Layers, a classifier and detectors as one module that may reject inputs."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .._modes import device_of
from ._detector import Detector

_LEAST = 1e-6
"""Below this a spread or a gap of clean examples says nothing."""


class LayeredNetwork(nn.Module):
    r"""A classifier with layers and detectors as one module.

    The last column of the logits is rejection. With the other logits :math:`z`, the scores
    :math:`s_k` of the detectors and their thresholds :math:`t_k`, it is

    .. math:: \max_i z_i + c \max_k \frac{s_k - t_k}{w_k},

    which exceeds all classes exactly when a score exceeds its threshold. :math:`w_k` is the
    interquartile range of the scores on clean examples and :math:`c` the median logit gap between
    the two best classes on clean examples, so that an attack sees class and detectors in the same
    unit. Without detectors it is :math:`\max_i z_i - c`.

    Parameters
    ----------
    network : nn.Module
        The classifier, from transformed inputs to logits.
    layers : sequence of nn.Module
        Transformations of the inputs, in order.
    detectors : sequence of Detector
        Detectors that may reject an input.

    Attributes
    ----------
    network, layers, detectors
        As given.
    thresholds, spreads : Tensor of shape (n_detectors,)
        :math:`t` and :math:`w`.
    unit : Tensor
        :math:`c`, one number.
    rejects : bool
        True: the last column is rejection.

    Examples
    --------
    >>> import torch
    >>> from distillguard.defenses import BitDepth, LayeredNetwork
    >>> network = LayeredNetwork(torch.nn.Linear(4, 3), [BitDepth(3)], [])
    >>> network(torch.rand(2, 4)).shape
    torch.Size([2, 4])
    """

    rejects = True
    thresholds: Tensor
    spreads: Tensor
    unit: Tensor

    def __init__(
        self, network: nn.Module, layers: Sequence[nn.Module], detectors: Sequence[Detector]
    ) -> None:
        super().__init__()
        self.network = network
        self.layers = nn.ModuleList(layers)
        self.detectors = nn.ModuleList(detectors)
        device = device_of(network, torch.device("cpu"))
        self.register_buffer("thresholds", torch.zeros(len(detectors), device=device))
        self.register_buffer("spreads", torch.ones(len(detectors), device=device))
        self.register_buffer("unit", torch.tensor(1.0, device=device))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, including rejection.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Inputs of the first layer.

        Returns
        -------
        Tensor of shape (n, n_classes + 1)
            Logits, the last column for rejection.
        """
        logits, scores = self.answers(inputs)
        best = logits.amax(dim=1)
        alarm = self.alarm(scores) if scores else -torch.ones_like(best)
        rejection = best + self.unit.to(best) * alarm.to(best)
        return torch.cat([logits, rejection[:, None]], dim=1)

    def classify(self, inputs: Tensor) -> Tensor:
        """Return the logits of the classifier behind the layers.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Inputs of the first layer.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Logits.
        """
        for layer in self.layers:
            inputs = layer(inputs)
        logits: Tensor = self.network(inputs)
        return logits

    def parts(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the classifier and the scores of the detectors.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Inputs of the first layer.

        Returns
        -------
        logits : Tensor of shape (n, n_classes)
            Logits of the classifier.
        scores : Tensor of shape (n, n_detectors)
            Scores of the detectors.
        """
        logits, scores = self.answers(inputs)
        return logits, torch.stack(scores, dim=1) if scores else logits.new_zeros(
            logits.shape[0], 0
        )

    def alarm(self, scores: Sequence[Tensor]) -> Tensor:
        """Return the largest excess over a threshold, in units of the spread of clean scores.

        Its gradient flows only through the detector with the largest excess for each input.

        Parameters
        ----------
        scores : sequence of Tensor of shape (n,)
            Scores of each detector.

        Returns
        -------
        Tensor of shape (n,)
            Above 0 if the input is rejected.
        """
        limits, spreads = (each.to(scores[0]) for each in (self.thresholds, self.spreads))
        excess = [(own - limits[k]) / spreads[k] for k, own in enumerate(scores)]
        if not any(each.requires_grad for each in excess):
            return torch.stack(excess).amax(dim=0)
        first = torch.stack([each.detach() for each in excess]).argmax(dim=0)
        alarm = excess[0].new_zeros(len(excess[0]))
        for place in first.unique().tolist():
            alarm = torch.where(first == place, excess[place], alarm)
        return alarm

    def answers(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of the classifier and a list of the scores of each detector.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Inputs of the first layer.

        Returns
        -------
        logits : Tensor of shape (n, n_classes)
            Logits of the classifier.
        scores : list of Tensor of shape (n,)
            Scores of each detector.
        """
        logits = self.classify(inputs)
        model = self._remembering(inputs, logits)
        detectors = [cast(Detector, each) for each in self.detectors]
        scores = [each.score(model, inputs) for each in detectors]
        for detector, score in zip(detectors, scores, strict=True):
            if not isinstance(score, Tensor) or score.shape != inputs.shape[:1]:
                got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
                raise ValueError(
                    f"score of {type(detector).__name__} must return one number for each input, "
                    f"shape ({len(inputs)},), got {got}"
                )
        return logits, scores

    def calibrate(self, thresholds: Tensor, logits: Tensor, scores: Tensor) -> None:
        """Set the thresholds and the units of the rejection logit.

        Parameters
        ----------
        thresholds : Tensor of shape (n_detectors,)
            The thresholds.
        logits : Tensor of shape (n, n_classes)
            Logits of the classifier on clean examples.
        scores : Tensor of shape (n, n_detectors)
            Scores of the detectors on the same examples.
        """
        first, second = logits.topk(2, dim=1).values.unbind(dim=1)
        self.unit.copy_((first - second).median().clamp(min=_LEAST))
        self.thresholds.copy_(thresholds)
        for place, own in enumerate(scores.unbind(dim=1)):
            low, high = torch.quantile(own, own.new_tensor([0.25, 0.75]))
            seen = high - low > _LEAST * own.abs().max()
            self.spreads[place] = high - low if seen else 1.0

    def _remembering(self, inputs: Tensor, logits: Tensor) -> Callable[[Tensor], Tensor]:
        """The classifier, with the logits of the inputs cached."""
        return lambda asked: logits if asked is inputs else self.classify(asked)
