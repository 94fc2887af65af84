"""How the museum's networks learn where the library's own estimators do not train like that."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillguard import UndefendedClassifier

EPOCHS = 15

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]


def fitted(model: nn.Module, X: Tensor, y: Tensor, label_smoothing: float = 0.0) -> nn.Module:
    """Train by the library, the defence's transformations and activations in place."""
    estimator = UndefendedClassifier(
        model, max_epochs=EPOCHS, label_smoothing=label_smoothing, random_state=0
    )
    trained: nn.Module = estimator.fit(X, y).model_
    return trained.eval()


def descended(
    model: nn.Module, objective: Objective, X: Tensor, y: Tensor, epochs: int = EPOCHS
) -> nn.Module:
    """Train by Adam on an objective of one's own, a mean over the batch."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(X), generator=generator).split(128):
            optimizer.zero_grad()
            objective(model, X[part], y[part]).backward()
            optimizer.step()
    return model.eval()


def logit_squeezing(model: nn.Module, X: Tensor, y: Tensor, weight: float = 0.5) -> Tensor:
    """Cross-entropy of noisy images, and the mean square of the logits."""
    logits = model((X + 0.5 * torch.randn_like(X)).clamp(0, 1))
    return F.cross_entropy(logits, y) + weight * logits.square().mean()


def adaptive_diversity(
    ensemble: nn.Module, X: Tensor, y: Tensor, entropy: float = 2.0, diversity: float = 0.5
) -> Tensor:
    """Pang et al.'s loss: members' cross-entropies less the ensemble's entropy and diversity."""
    logits = torch.stack([member(X) for member in ensemble.members])  # type: ignore[union-attr]
    own = sum(F.cross_entropy(each, y) for each in logits)
    probabilities = logits.softmax(dim=2)
    mean = probabilities.mean(dim=0)
    spread = -(mean * (mean + 1e-20).log()).sum(dim=1)
    return own - (entropy * spread + diversity * log_volume(probabilities, y)).mean()


def log_volume(probabilities: Tensor, y: Tensor) -> Tensor:
    """Logarithm of the squared volume that the members' wrong answers span, once normalised.

    ``probabilities`` has shape (members, n, n_classes).
    """
    wrong = torch.ones_like(probabilities[0], dtype=torch.bool).scatter(1, y[:, None], False)
    rows = torch.stack([each[wrong].view(len(y), -1) for each in probabilities], dim=1)
    rows = F.normalize(rows, dim=2)
    squares = rows @ rows.transpose(1, 2) + 1e-6 * torch.eye(len(probabilities))
    return squares.logdet()


def reconstruction(autoencoder: nn.Module, X: Tensor, y: Tensor) -> Tensor:
    """Mean square error of reconstructing images from noisy ones."""
    noisy = (X + 0.1 * torch.randn_like(X)).clamp(0, 1)
    return F.mse_loss(autoencoder(noisy), X)
