"""The attacks on the museum's defences, and the rule by which all of them are judged.

A randomised defence is judged by many draws: an example counts by the share of draws in which it
is answered rightly, at the point where that share is least; the point is chosen by other draws
than those that judge it. A rejected adversarial example is answered rightly; a rejected clean one
is not.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks._museum.networks import Vote
from distillguard import attacks
from distillguard.adaptive import Averaged
from distillguard.exceptions import NoGradientError

DEAR = (Averaged, Vote)
"""Whose gradient costs so much that it is followed for half as many steps."""

INSIDE = 1e-6
"""How far inside the bounds gradients are asked for: a clamp has none at them."""


class Threat(NamedTuple):
    """Whom to attack on which images, and how the defence answers."""

    model: nn.Module
    X: Tensor
    y: Tensor
    epsilon: float
    randomised: bool = False
    rejects: bool = False

    def part(self, kept: Tensor) -> "Threat":
        """The same for some of the images."""
        return self._replace(X=self.X[kept], y=self.y[kept])


class Found(NamedTuple):
    """What one attack left: its name, and the mean share of right answers after it alone."""

    attack: str
    accuracy: float


@torch.no_grad()
def right(threat: Threat, points: Tensor, *, draws: int = 30, clean: bool = False) -> Tensor:
    """Share of draws in which each point is answered rightly, of shape (n,)."""
    shares = torch.zeros(len(points), dtype=torch.float64)
    draws = draws if threat.randomised else 1
    for _ in range(draws):
        logits = threat.model(points)
        answers = logits.argmax(dim=1)
        correct = answers == threat.y
        if threat.rejects and not clean:
            correct |= answers == logits.shape[1] - 1
        shares += correct.double() / draws
    return shares


def margin(logits: Tensor, y: Tensor, rejects: bool = False) -> Tensor:
    """How far the best other real class is above the true one, and above rejection."""
    real = logits[:, :-1] if rejects else logits
    own = real.gather(1, y[:, None]).squeeze(1)
    other = real.scatter(1, y[:, None], -math.inf).amax(dim=1)
    return other - (torch.maximum(own, logits[:, -1]) if rejects else own)


def ascent(
    threat: Threat, attacked: nn.Module, *, steps: int = 200, restarts: int = 2, every: int = 1
) -> Tensor:
    """Climb the margin along ``attacked``'s gradient; return each image's point of widest margin.

    Signs of a gradient with momentum, steps that fall from half the radius along a cosine, a
    first run from the images and further ones from random points. Margins are the defence's own,
    or the stand-in's where the defence is randomised; then no success ends the climb.
    """
    generator = torch.Generator().manual_seed(0)
    judge = attacked if threat.randomised else threat.model
    X, y, epsilon = threat.X, threat.y, threat.epsilon
    best, widest = X.clone(), torch.full((len(X),), -math.inf)
    for restart in range(restarts):
        shift = (2 * torch.rand(X.shape, generator=generator) - 1) * epsilon * min(restart, 1)
        velocity = torch.zeros_like(X)
        for step in range(steps):
            asked = (X + shift).clamp(INSIDE, 1 - INSIDE).requires_grad_()
            climbed = margin(attacked(asked), y, threat.rejects).sum()
            (gradient,) = torch.autograd.grad(climbed, asked)
            length = gradient.abs().flatten(1).mean(dim=1).clamp(min=1e-30)
            velocity = 0.75 * velocity + gradient / length.view(-1, *[1] * (X.ndim - 1))
            size = epsilon * (0.02 + 0.24 * (1 + math.cos(math.pi * step / steps)))
            shift = (shift + size * velocity.sign()).clamp(-epsilon, epsilon)
            if step % every and step < steps - 1:
                continue
            points = (X + shift).clamp(0, 1)
            with torch.no_grad():
                height = margin(judge(points), y, threat.rejects)
            better = height > widest
            widest = torch.where(better, height, widest)
            best[better] = points[better]
            if not threat.randomised and (widest > 0).all():
                return best
    return best


def unadapted(threat: Threat, attacked: nn.Module | None = None) -> tuple[float, str]:
    """Accuracy after PGD on the cross-entropy with 40 steps, as one writes it without looking.

    Where the graph is interrupted it has nothing to follow and stays at its random start.
    """
    settings = {"epsilon": threat.epsilon, "random_state": 0}
    target, said = attacked or threat.model, "PGD"
    try:
        points = attacks.pgd(target, threat.X, threat.y, steps=40, **settings)
    except NoGradientError:
        noise = torch.rand(threat.X.shape, generator=torch.Generator().manual_seed(0))
        points = (threat.X + (2 * noise - 1) * threat.epsilon).clamp(0, 1)
        said = "its random start, for want of a gradient"
    shares = right(threat, points)
    if threat.rejects:  # what is rejected clean is an error, whatever becomes of its point
        shares = torch.minimum(shares, right(threat, threat.X, clean=True))
    return shares.mean().item(), said


def library(threat: Threat, attacked: nn.Module) -> Iterator[tuple[str, Callable[..., Tensor]]]:
    """The library's attacks on a stand-in; a randomised one is climbed to the last step."""
    common = {"epsilon": threat.epsilon, "random_state": 0, "early_stop": not threat.randomised}
    steps, targets = (50, 3) if isinstance(attacked, DEAR) else (100, 9)

    def pgd(part: Threat) -> Tensor:
        return attacks.pgd(
            attacked, part.X, part.y, loss="margin", steps=2 * steps, restarts=2, **common
        )

    def targeted(part: Threat) -> Tensor:
        return attacks.apgd_targeted(
            attacked, part.X, part.y, n_targets=targets, steps=steps, **common
        )

    yield f"PGD on the margin, 2 x {2 * steps}", pgd
    yield f"APGD, {targets} targets x {steps}", targeted


def search(threat: Threat, queries: int) -> Tensor:
    """Square attack on the defence's own answers."""
    return attacks.square(
        threat.model, threat.X, threat.y, epsilon=threat.epsilon, queries=queries, random_state=0
    )


def best(
    threat: Threat, stand_ins: dict[str, nn.Module], *, queries: int = 0
) -> tuple[float, list[Found]]:
    """Accuracy after every attack on every stand-in, and after each alone.

    Attacks ask only about images that are answered rightly more often than one time in fifty.
    """
    worst, least = threat.X.clone(), right(threat, threat.X)
    found = []

    def judge(name: str, attack: Callable[[Threat], Tensor]) -> None:
        nonlocal worst, least
        kept = least > 0.02
        if not kept.any():
            return
        part = threat.part(kept)
        points = attack(part).detach()
        outside = (points - part.X).abs().amax().item() > part.epsilon * (1 + 1e-5)
        if outside or points.min() < 0 or points.max() > 1:
            raise RuntimeError(f"{name} left the threat model")
        shares = least.clone()
        shares[kept] = torch.minimum(right(part, points), least[kept])
        better = shares < least
        everywhere = worst.clone()
        everywhere[kept] = points
        worst = torch.where(better.view(-1, *[1] * (worst.ndim - 1)), everywhere, worst)
        least = shares
        found.append(Found(name, least.mean().item()))

    for named, attacked in stand_ins.items():
        steps = {"steps": 100, "restarts": 1} if isinstance(attacked, DEAR) else {}
        steps |= {"every": 10} if threat.randomised else {}
        judge(f"ascent on {named}", lambda part, on=attacked, how=steps: ascent(part, on, **how))
        if not threat.rejects:
            for name, attack in library(threat, attacked):
                judge(f"{name} on {named}", attack)
    if queries:
        judge(f"Square, {queries} queries", lambda part: search(part, queries))
    if threat.randomised:
        least = right(threat, worst, draws=100)
    return least.mean().item(), found
