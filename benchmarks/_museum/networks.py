"""Defences inside a network or around it: activations, ensembles, and models that reject."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from benchmarks._small import network


class KWinners(nn.Module):
    """Keep the largest of a layer's activations, so large a share of them, and zero the rest."""

    def __init__(self, share: float = 0.1) -> None:
        super().__init__()
        self.share = share

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the winners in their places."""
        flat = inputs.flatten(1)
        winners = flat.topk(max(1, round(self.share * flat.shape[1])), dim=1)
        return torch.zeros_like(flat).scatter(1, winners.indices, winners.values).view_as(inputs)


class ActivationPruning(nn.Module):
    """Keep activations drawn by size, with replacement, scaled so that the mean stays.

    As many draws as ``share`` times the number of activations; one that was drawn at least once
    stays, divided by the probability of that.
    """

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        self.share = share

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what is left."""
        flat = inputs.flatten(1)
        sizes = flat.detach().abs() + 1e-12
        chance = sizes / sizes.sum(dim=1, keepdim=True)
        draws = max(1, round(self.share * flat.shape[1]))
        drawn = torch.zeros_like(chance)
        drawn.scatter_(1, torch.multinomial(chance, draws, replacement=True), 1.0)
        stays = -torch.expm1(draws * torch.log1p(-chance.clamp(max=1 - 1e-6)))
        return (flat * drawn / stays).view_as(inputs)


class MeanSparse(nn.Module):
    """Set what lies near its channel's mean to that mean, within ``width`` deviations."""

    def __init__(self, channels: int, width: float = 0.25) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.zeros(channels))
        self.mean: Tensor
        self.deviation: Tensor

    def measure(self, inputs: Tensor) -> None:
        """Take mean and deviation of each channel from these activations."""
        channels = inputs.transpose(0, 1).flatten(1)
        self.mean, self.deviation = channels.mean(dim=1), channels.std(dim=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sparse activations."""
        shape = [1, -1] + [1] * (inputs.ndim - 2)
        mean, deviation = self.mean.view(shape), self.deviation.view(shape)
        return torch.where((inputs - mean).abs() <= self.width * deviation, mean, inputs)


class Ensemble(nn.Module):
    """Several small networks that answer by the mean of their probabilities."""

    def __init__(self, members: int = 3) -> None:
        super().__init__()
        self.members = nn.ModuleList(network() for _ in range(members))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logarithm of the mean."""
        logs = torch.stack([member(inputs).log_softmax(dim=1) for member in self.members])
        return logs.logsumexp(dim=0) - math.log(len(self.members))


class Vote(nn.Module):
    """A randomised model that is asked several times and answers by the mean."""

    def __init__(self, model: nn.Module, draws: int) -> None:
        super().__init__()
        self.model, self.draws = model, draws

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logarithm of the mean probabilities."""
        if self.training:
            logits: Tensor = self.model(inputs)
            return logits
        asked = inputs.repeat(self.draws, *[1] * (inputs.ndim - 1))
        logs = self.model(asked).log_softmax(dim=1).unflatten(0, (self.draws, len(inputs)))
        mean: Tensor = logs.logsumexp(dim=0) - math.log(self.draws)
        return mean


class Autoencoder(nn.Module):
    """A small convolutional autoencoder of images, MagNet's for MNIST with narrower layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.Sigmoid(),
            nn.AvgPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Sigmoid(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Sigmoid(),
            nn.Conv2d(8, 1, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the reconstructions."""
        made: Tensor = self.layers(inputs)
        return made


class SqueezingScore(nn.Module):
    """The largest l1 distance between the answers to an image and to it squeezed."""

    def __init__(self, classifier: nn.Module, squeezers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.classifier, self.squeezers = classifier, nn.ModuleList(squeezers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return scores of shape (n,)."""
        plain = self.classifier(inputs).softmax(dim=1)
        squeezed = [self.classifier(one(inputs)).softmax(dim=1) for one in self.squeezers]
        return torch.stack([(plain - other).abs().sum(dim=1) for other in squeezed]).amax(dim=0)


class ReconstructionScore(nn.Module):
    """The mean absolute difference between an image and its reconstruction."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, inputs: Tensor) -> Tensor:
        """Return scores of shape (n,)."""
        return (inputs - self.autoencoder(inputs)).abs().flatten(1).mean(dim=1)


class DivergenceScore(nn.Module):
    """Jensen and Shannon's divergence of the answers to an image and to its reconstruction."""

    def __init__(self, classifier: nn.Module, autoencoder: nn.Module, temperature: float) -> None:
        super().__init__()
        self.classifier, self.autoencoder = classifier, autoencoder
        self.temperature = temperature

    def forward(self, inputs: Tensor) -> Tensor:
        """Return scores of shape (n,)."""
        pair = [inputs, self.autoencoder(inputs)]
        logs = [(self.classifier(x) / self.temperature).log_softmax(dim=1) for x in pair]
        middle = torch.stack(logs).logsumexp(dim=0) - math.log(2)
        return torch.stack([(one.exp() * (one - middle)).sum(dim=1) for one in logs]).mean(dim=0)


class Rejecting(nn.Module):
    """A classifier that detectors may overrule: one more logit, the last, means rejection.

    That logit is the largest exactly where a detector's score is above its threshold.
    """

    rejects = True
    STEEPNESS = 10.0

    def __init__(self, classifier: nn.Module, detectors: Sequence[nn.Module]) -> None:
        super().__init__()
        self.classifier, self.detectors = classifier, nn.ModuleList(detectors)
        self.register_buffer("thresholds", torch.ones(len(detectors)))
        self.thresholds: Tensor

    @torch.no_grad()
    def calibrate(self, inputs: Tensor, false_positive_rate: float = 0.05) -> None:
        """Set thresholds that each detector passes on its part of the false alarms."""
        level = 1 - false_positive_rate / len(self.detectors)
        scores = [detector(inputs).double() for detector in self.detectors]
        self.thresholds = torch.stack([each.quantile(level).float() for each in scores])

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits of shape (n, n_classes + 1)."""
        logits = self.classifier(inputs)
        scores = torch.stack([detector(inputs) for detector in self.detectors], dim=1)
        excess = (scores / self.thresholds - 1).amax(dim=1, keepdim=True)
        rejection = logits.amax(dim=1, keepdim=True) + self.STEEPNESS * excess
        return torch.cat([logits, rejection], dim=1)
