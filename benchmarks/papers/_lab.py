"""What the reproductions share: images, networks trained once, attacks made once.

Whatever is costly is kept in a folder, under a name that says what it is: the claims ask for it
and do not know whether it was there. A network is trained as Papernot's table II has it.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from benchmarks._common import quick_precision
from benchmarks.papers._smoothing import Smoothed
from distillguard import DefensiveDistiller, UndefendedClassifier, datasets, networks
from distillguard._geometry import lp_norm
from distillguard.attacks import carlini_wagner_l2, jsma

Examples = tuple[Tensor, Tensor]

CLASSES = 10
TEMPERATURES = (1, 2, 5, 10, 20, 30, 40, 50, 100)
UNDEFENDED, SMOOTHED = "undefended", "label smoothing"
HALVES = ("first half", "second half")
"""Undefended networks trained on half of the images each."""
MAX_FEATURES = 112
PATIENCE = 1000
"""Steps of a second Carlini-Wagner attack where the first fails."""
EPOCHS, PUBLISHED_EPOCHS = 40, 50
"""Passes over the training images: by default, and in the papers."""
SALIENCIES = ("softmax", "softmax of logits / T", "logits")


class Recipe(NamedTuple):
    """Training by stochastic gradient descent, in batches of 128; the last weights stay."""

    learning_rate: float
    momentum: float
    decay: float = 1.0
    """Of the learning rate, after each fifth of the training."""

    def __str__(self) -> str:
        decay = f", decay {self.decay:g} each fifth" if self.decay != 1 else ""
        return f"SGD (learning rate {self.learning_rate:g}, momentum {self.momentum:g}{decay})"

    @property
    def settings(self) -> dict[str, Any]:
        """What an estimator is told."""
        return {
            "optimizer": partial(torch.optim.SGD, momentum=self.momentum),
            "learning_rate": self.learning_rate,
            "lr_scheduler": self.schedule,
            "batch_size": 128,
            "weight_averaging": None,
        }

    def schedule(self, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
        """Multiply the learning rate by the decay after each fifth of the steps."""
        return torch.optim.lr_scheduler.StepLR(optimizer, max(steps // 5, 1), self.decay)


class Data(NamedTuple):
    """Images, the network for them, and the column of the papers to set the results beside."""

    title: str
    load: Callable[..., Examples]
    network: partial[nn.Module]
    published: str
    epsilon: float
    """The usual l-infinity budget."""
    training: int | None
    """Training images used without ``--full``; all if None."""
    recipe: Recipe = Recipe(learning_rate=0.1, momentum=0.5)

    @property
    def made_by(self) -> str:
        """The call that makes the network."""
        told = ", ".join(f"{name}={value!r}" for name, value in self.network.keywords.items())
        return f"{self.network.func.__name__}({told})"


OPEN: dict[str, Any] = {"dropout": (0.5, 0.0), "initial_weights": "torch"}
"""What Papernot leaves open: dropout where Carlini and Wagner have it, PyTorch's weights."""
MNIST = partial(networks.papernot_mnist, **OPEN)
CIFAR10 = partial(networks.papernot_cifar10, **OPEN)

DATA = {
    "mnist5k": Data("MNIST-5k", datasets.load_mnist5k, MNIST, "mnist", 0.3, None),
    "fashion": Data("Fashion-MNIST", datasets.load_fashion_mnist, MNIST, "mnist", 0.1, 10_000),
    "mnist": Data("MNIST", datasets.load_mnist, MNIST, "mnist", 0.3, None),
    "cifar10": Data(
        "CIFAR-10",
        datasets.load_cifar10,
        CIFAR10,
        "cifar10",
        8 / 255,
        None,
        Recipe(learning_rate=0.01, momentum=0.9, decay=0.5),
    ),
}


class Size(NamedTuple):
    """How many images: by default, and in the paper."""

    default: int
    paper: int


@dataclass
class Lab:
    """One data set and everything that is made of it."""

    data: str
    cache: Path
    root: str | None = None
    full: bool = False
    epochs: int = EPOCHS
    temperatures: Sequence[int] = TEMPERATURES
    most: int | None = None
    """No more images than this, whatever a claim wants: for trying out."""
    precision: str = field(default_factory=quick_precision)
    """Of the training."""
    spent: dict[str, float] = field(default_factory=dict)
    """Processor seconds behind each kept thing that was asked for."""
    computed: float = 0.0
    """Processor seconds of those that were not there yet."""

    @property
    def about(self) -> Data:
        """The data set's entry."""
        return DATA[self.data]

    @property
    def kinds(self) -> list[str]:
        """The undefended network and the distilled ones."""
        return [UNDEFENDED, *(f"T={T}" for T in self.temperatures)]

    @property
    def settings(self) -> dict[str, Any]:
        """What the figures depend on."""
        images = "all" if self.full or not self.about.training else self.about.training
        return {
            "data": self.data,
            "full": self.full,
            "epochs": self.epochs,
            "training_images": images,
            "optimizer": str(self.about.recipe),
            "network": self.about.made_by,
            "precision": self.precision,
        }

    def bare(self) -> "Lab":
        """The same without images, to be sent to another process."""
        return replace(self, spent={}, computed=0.0)

    def size(self, images: Size) -> int:
        """How many images this time."""
        wanted = images.paper if self.full else images.default
        return wanted if self.most is None else min(wanted, self.most)

    @cached_property
    def device(self) -> torch.device:
        """The GPU if there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def train(self) -> Examples:
        """Training images."""
        X, y = self._loaded("train")
        n = None if self.full else self.about.training
        return X[:n], y[:n]

    @cached_property
    def test(self) -> Examples:
        """All test images."""
        X, y = self._loaded("test")
        return X.to(self.device), y.to(self.device)

    def _loaded(self, split: str) -> Examples:
        return self.about.load(split, root=self.root) if self.root else self.about.load(split)

    def _path(self, name: str) -> Path:
        rate, momentum, _ = self.about.recipe
        how = f"{self.epochs}-sgd-{rate:g}-{momentum:g}-dropout-once-{self.precision}"
        prefix = f"{self.data}{'-full' if self.full else ''}-{how}"
        return self.cache / f"{prefix}-{name}.pt".replace(" ", "_").replace("/", "by")

    def remembered(self, name: str, compute: Callable[[], Any]) -> Any:
        """Read what is kept under a name, or compute and keep it. Not to be nested."""
        path = self._path(name)
        if not path.exists():
            began = time.process_time()
            value = compute()
            seconds = time.process_time() - began
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(f".{os.getpid()}")
            torch.save({"value": value, "seconds": seconds}, fresh)
            fresh.replace(path)
            self.computed += seconds
        kept = torch.load(path, weights_only=True)
        self.spent[path.stem] = kept["seconds"]
        return kept["value"]

    def has(self, kind: str, seed: int) -> bool:
        """Whether a network is trained already."""
        return self._path(f"{kind}-{seed}").exists()

    def network(self, kind: str, seed: int) -> nn.Module:
        """Return ``"undefended"``, ``"T=20"``, ``"label smoothing"`` or a half, ready for use."""
        state = self.remembered(f"{kind}-{seed}", partial(self._trained, kind, seed))
        module = self.about.network(tuple(self.test[0].shape[1:]), CLASSES)
        module.load_state_dict(state)
        return module.eval().requires_grad_(False).to(self.device)

    def _trained(self, kind: str, seed: int) -> dict[str, Tensor]:
        X, y = self.train
        settings: dict[str, Any] = {"max_epochs": self.epochs, "precision": self.precision}
        settings |= self.about.recipe.settings
        estimator: Any
        if kind in HALVES:
            # The confidence of a transferable example is measured in logits: these networks are
            # trained as long as the paper's, which makes their logits about as large.
            settings["max_epochs"] = self.epochs if self.full else 5 * self.epochs // 4
            order = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))
            half = order.chunk(2)[HALVES.index(kind)]
            X, y = X[half], y[half]
        if kind.startswith("T="):
            T = temperature_of(kind)
            estimator = DefensiveDistiller(self.about.network, temperature=T, **settings)
        else:
            maker = Smoothed if kind == SMOOTHED else UndefendedClassifier
            estimator = maker(self.about.network, **settings)
        estimator.set_params(random_state=random_state(kind, seed)).fit(X, y)
        return estimator.model_.cpu().state_dict()

    def chosen(self, seed: int, n: int, *models: nn.Module) -> Examples:
        """The first n, in an order that the seed gives, that every model classifies correctly."""
        X, y = self.test
        order = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))
        found: list[Tensor] = []
        for part in order.to(self.device).split(max(2 * n, 64)):
            right = torch.stack([answers(model, X[part]) == y[part] for model in models])
            found.append(part[right.all(dim=0)])
            if sum(map(len, found)) >= n:
                break
        picked = torch.cat(found)[:n]
        return X[picked], y[picked]

    def saliency(self, kind: str, seed: int, n: int, saliency: str = "softmax") -> Tensor:
        """Features that JSMA changes to reach each wrong class: (n, 9), infinite where it fails."""
        T = temperature_of(kind)
        settings: dict[str, Any] = {"max_features": MAX_FEATURES}
        if saliency == "logits":
            settings["saliency"] = "logits"
        elif saliency != "softmax":
            settings["temperature"] = T
            if T == 1:
                return self.saliency(kind, seed, n)
        attack = partial(jsma, **settings)
        return self._distances(f"jsma {saliency}", attack, "l0", kind, seed, n)

    def nearest(self, kind: str, seed: int, n: int) -> Tensor:
        """L2 distance that Carlini and Wagner need to a random wrong class: (n, 1)."""
        return self._distances(
            "cw l2", carlini_wagner_l2, "l2", kind, seed, n, random=True, patience=PATIENCE
        )

    def distances(
        self, attack: Callable[..., Tensor], norm: str, kind: str, seed: int, n: int
    ) -> Tensor:
        """Distance that an attack needs to each wrong class: (n, 9), infinite where it fails."""
        return self._distances(f"cw {norm} all", attack, norm, kind, seed, n, patience=PATIENCE)

    def _distances(
        self,
        name: str,
        attack: Callable[..., Tensor],
        norm: Any,
        kind: str,
        seed: int,
        n: int,
        random: bool = False,
        patience: int = 0,
    ) -> Tensor:
        """``patience``: steps of a second attempt where the first fails."""
        network = self.network(kind, seed)

        def compute() -> Tensor:
            inputs, labels = self.chosen(seed, n, network)
            aims = random_class(labels, seed) if random else wrong_classes(labels)
            points = inputs.repeat_interleave(aims.shape[1], dim=0)
            targets = aims.flatten()
            adversarial = attack(network, points, targets, targeted=True)
            reached = answers(network, adversarial) == targets
            if patience and not reached.all():
                missed = points[~reached], targets[~reached]
                adversarial[~reached] = attack(network, *missed, targeted=True, steps=patience)
                reached = answers(network, adversarial) == targets
            length = lp_norm(adversarial - points, norm).masked_fill(~reached, torch.inf)
            return length.view(aims.shape).cpu()

        return self.remembered(f"{name}-{kind}-{seed}-{n}", compute)


def random_state(kind: str, seed: int) -> int:
    """Seed of a training: no half and no temperature shares it with another network.

    The last layer is trained in units of T. From equal weights, temperatures whose ratio is a
    power of two would give one network at two scales, equal to the last bit.
    """
    halves = {half: 1 + HALVES.index(half) for half in HALVES}
    own = 10 * int(kind[2:]) if kind.startswith("T=") else halves.get(kind, 0)
    return seed + 1000 * own


def temperature_of(kind: str) -> float:
    """Return the temperature of a distilled network; 1 for the others."""
    return float(kind[2:]) if kind.startswith("T=") else 1.0


def answers(model: nn.Module, inputs: Tensor) -> Tensor:
    """Predicted classes."""
    return logits_of(model, inputs).argmax(dim=1)


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits, in batches."""
    with torch.no_grad():
        return torch.cat([model(part) for part in inputs.split(500)])


def wrong_classes(labels: Tensor) -> Tensor:
    """Every class but the true one: (n, 9)."""
    return (labels[:, None] + torch.arange(1, CLASSES, device=labels.device)) % CLASSES


def random_class(labels: Tensor, seed: int) -> Tensor:
    """One wrong class for each: (n, 1)."""
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randint(1, CLASSES, (len(labels), 1), generator=generator)
    return (labels[:, None] + shift.to(labels.device)) % CLASSES


def share(mask: Tensor) -> float | None:
    """Share that is true; None of nothing."""
    return mask.double().mean().item() if mask.numel() else None


def mean_of(values: Tensor) -> float | None:
    """Mean of the finite ones; None if there are none."""
    finite = values[values.isfinite()]
    return finite.double().mean().item() if len(finite) else None


def seconds_per_pass(lab: Lab, examples: int = 256) -> float:
    """Processor seconds of one forward and one backward pass of one image, measured."""
    model = lab.about.network(tuple(lab.test[0].shape[1:]), CLASSES).to(lab.device)
    points = lab.test[0][:examples].clone().requires_grad_()

    def timed() -> Iterator[float]:
        for _ in range(3):
            began = time.process_time()
            torch.autograd.grad(model(points).sum(), points)
            yield (time.process_time() - began) / len(points)

    return min(timed())
