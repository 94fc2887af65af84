"""The museum's defences: paper, claim, weakness, and how each is attacked."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks._museum import training
from benchmarks._museum.networks import (
    ActivationPruning,
    Autoencoder,
    DivergenceScore,
    Ensemble,
    KWinners,
    MeanSparse,
    ReconstructionScore,
    Rejecting,
    SqueezingScore,
    Vote,
)
from benchmarks._museum.transformations import (
    JPEG,
    BitDepth,
    Clamp,
    MedianFilter,
    Noise,
    ResizeAndPad,
    Thermometer,
    TotalVariation,
)
from benchmarks._small import LOADERS, RADII, TRAINED_ON, convolutional, network, trained
from distillguard import AdversarialTrainer, ExtendedDistiller, networks
from distillguard.adaptive import averaged, straight_through

StandIns = dict[str, nn.Module]
AS_IT_IS = "the model as it is"


class Studio(NamedTuple):
    """The data that an exhibit is made of, and the networks that several share."""

    data: str
    cache: Path

    def examples(self) -> tuple[Tensor, Tensor]:
        """Images and labels to train on."""
        X, y = LOADERS[self.data]("train")
        return X[:TRAINED_ON], y[:TRAINED_ON]

    def held_out(self) -> Tensor:
        """Images that are neither trained on nor attacked: the last of the test set."""
        return LOADERS[self.data]("test")[0][-500:]

    def small(self, kind: str) -> nn.Module:
        """One of the networks of ``benchmarks.evaluation``."""
        radius = RADII[self.data]["linf"]
        return trained(kind, *self.examples(), radius, self.cache / f"{self.data} {kind}.pt")


def as_it_is(model: nn.Module) -> StandIns:
    """No adaptation but that of the loss."""
    return {AS_IT_IS: model}


@dataclass(frozen=True)
class Exhibit:
    """One defence: how it is described, built and attacked.

    ``make`` builds the untrained model, ``train`` returns it trained; ``stand_ins`` are the
    modules that the adaptive attacks differentiate in its place, ``oblivious`` the one that the
    unadapted attack differentiates. ``twin`` is the network without the defence, ``causes`` are
    the findings that name the weakness.
    """

    name: str
    title: str
    paper: str
    link: str
    claim: str
    hole: str
    make: Callable[[], nn.Module]
    train: Callable[[nn.Module, Studio], nn.Module]
    stand_ins: Callable[[nn.Module], StandIns] = as_it_is
    oblivious: Callable[[nn.Module], nn.Module] | None = None
    data: str = "MNIST-5k"
    epsilon: float = 0.2
    twin: str = "undefended"
    randomised: bool = False
    rejects: bool = False
    control: bool = False
    queries: int = 0
    causes: tuple[str, ...] = ()

    def model(self, studio: Studio) -> nn.Module:
        """Return the trained defence, from the cache where it is there."""
        path = studio.cache / f"museum {self.name}.pt"
        model = self.make()
        if path.is_file():
            model.load_state_dict(torch.load(path, weights_only=True))
            return model.eval()
        torch.manual_seed(0)
        model = self.train(model, studio).eval()
        torch.save(model.state_dict(), path)
        return model

    def published(self) -> dict[str, Any]:
        """What a card says besides the figures."""
        shown = ("name", "title", "paper", "link", "claim", "hole", "control", "data", "epsilon")
        words = {name: getattr(self, name) for name in (*shown, "rejects", "randomised")}
        return words | {"causes": list(self.causes)}


def plainly(model: nn.Module, studio: Studio) -> nn.Module:
    """Train on the images as they are."""
    return training.fitted(model, *studio.examples())


def taken(kind: str, prefix: str = "") -> Callable[[nn.Module, Studio], nn.Module]:
    """Take the weights of a network that other benchmarks use too."""

    def train(model: nn.Module, studio: Studio) -> nn.Module:
        weights = studio.small(kind).state_dict()
        part = model.get_submodule(prefix)
        part.load_state_dict(weights, strict=False)
        return model

    return train


def parts(model: nn.Module, kind: type[nn.Module]) -> Iterator[nn.Module]:
    """The submodules of one kind."""
    return (module for module in model.modules() if isinstance(module, kind))


def stepped_over(model: nn.Module, kind: type[nn.Module], backward: Any = "identity") -> nn.Module:
    """Put the straight-through estimator on every part of one kind."""
    for part in list(parts(model, kind)):
        model = straight_through(model, backward, part=part)
    return model


def mean_of(model: nn.Module, draws: int = 10) -> StandIns:
    """Climb the mean of many draws."""
    return {f"the mean of {draws} draws": averaged(model, draws)}


# Defensive distillation, smoothing of labels and of logits: a network of one's own, and no more.


def distilled(temperature: int) -> Exhibit:
    """Defensive distillation at one temperature."""
    return Exhibit(
        name=f"distillation-{temperature}",
        title=f"Defensive distillation, T = {temperature}",
        paper="Papernot et al. 2016",
        link="https://arxiv.org/abs/1511.04508",
        claim="The success of JSMA on MNIST falls from 95.9 % to 0.45 % at T = 100.",
        hole="Logits grow by the factor T, the softmax saturates, and the gradient of the "
        "cross-entropy is zero in single precision. The decision boundaries do not move.",
        make=network,
        train=taken(f"T={temperature}"),
        causes=("margin-beats-cross-entropy", "zero-gradients", "saturated-softmax"),
    )


def dropping(_: object, width: int) -> nn.Module:
    """The small network with dropout in front of its last layer, of so many outputs."""
    *layers, last = network().children()
    assert isinstance(last, nn.Linear)
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(last.in_features, width))


def extended(model: nn.Module, studio: Studio) -> nn.Module:
    """Distil by the library with the paper's class of outliers, and by the paper's rule."""
    distiller = ExtendedDistiller(
        dropping, false_positive_rate=None, max_epochs=training.EPOCHS, random_state=0
    )
    return distiller.fit(*studio.examples()).model_


EXTENDED = Exhibit(
    name="extended-distillation",
    title="Extended defensive distillation",
    paper="Papernot and McDaniel 2017",
    link="https://arxiv.org/abs/1705.05264",
    claim="A class of outliers, learned from the teacher's uncertainty, addresses some of the "
    "attacks that broke defensive distillation.",
    hole="The outlier class is just one more logit. An attack whose margin also penalises it "
    "reaches another class instead.",
    make=lambda: networks.Rejecting(dropping((1, 28, 28), 11)),
    train=extended,
    oblivious=lambda model: model.get_submodule("network"),
    rejects=True,
)

LABEL_SMOOTHING = Exhibit(
    name="label-smoothing",
    title="Label smoothing",
    paper="Warde-Farley and Goodfellow 2016",
    link="https://doi.org/10.7551/mitpress/10761.001.0001",
    claim="Smoothed labels resist one-step attacks as well as distillation does, at no cost.",
    hole="Smaller logit gaps weaken single steps on the cross-entropy, but not iterative attacks.",
    make=network,
    train=lambda model, studio: training.fitted(model, *studio.examples(), label_smoothing=0.3),
)

LOGIT_SQUEEZING = Exhibit(
    name="logit-squeezing",
    title="Logit squeezing",
    paper="Kannan, Kurakin and Goodfellow 2018",
    link="https://arxiv.org/abs/1803.06373",
    claim="A penalty on the logits and noisy training images rival adversarial training on MNIST.",
    hole="The penalty flattens the loss around the images. An attack on the margin with many steps "
    "and restarts still finds the boundary (Mosbach et al. 2018).",
    make=network,
    train=lambda model, studio: training.descended(
        model, training.logit_squeezing, *studio.examples()
    ),
)


# Transformations in front of a network.


THERMOMETER = Exhibit(
    name="thermometer",
    title="Thermometer encoding",
    paper="Buckman et al. 2018",
    link="https://openreview.net/forum?id=S18Su--CW",
    claim="Encoding each pixel in zeros and ones breaks the network's linearity and resists PGD.",
    hole="The comparisons of the code have no gradient. With the gradient of a smooth code in "
    "their place, PGD succeeds (Athalye et al. 2018).",
    make=lambda: nn.Sequential(Thermometer(16), convolutional(16)),
    train=plainly,
    stand_ins=lambda model: {
        "the code's smooth version": straight_through(model, model[0].softened, part="0")  # type: ignore[index]
    },
    causes=("interrupted-graph",),
)


def filtered() -> nn.Sequential:
    """Guo et al.'s transformations, one after the other, in front of a network."""
    return nn.Sequential(BitDepth(3), JPEG(75), TotalVariation(), network())


def on_filtered_images(model: nn.Module, studio: Studio) -> nn.Module:
    """Train the network behind the transformations on transformed images."""
    X, y = studio.examples()
    assert isinstance(model, nn.Sequential)
    model[-1] = training.fitted(network(), model[:-1](X), y)
    return model


def past_filters(model: nn.Module) -> StandIns:
    """Step over what has no gradient, and take the mean of the random pixels."""
    open_model = model
    for kind in (BitDepth, JPEG, TotalVariation):
        open_model = stepped_over(open_model, kind)
    assert isinstance(model, nn.Sequential)
    return mean_of(open_model) | {"the network alone": model[-1]}


TRANSFORMATIONS = Exhibit(
    name="transformations",
    title="Bit depth, JPEG and total variation",
    paper="Guo et al. 2018",
    link="https://arxiv.org/abs/1711.00117",
    claim="Input transformations stop most attacks on a network trained on transformed images.",
    hole="Rounding has zero gradient, the total-variation solver has none, and dropped pixels are "
    "random. With the identity in the backward pass and the mean over draws, PGD succeeds (Athalye "
    "et al. 2018).",
    make=filtered,
    train=on_filtered_images,
    stand_ins=past_filters,
    data="Fashion-MNIST",
    epsilon=0.15,
    randomised=True,
    causes=("interrupted-graph", "zero-gradients", "unstable-predictions"),
)

RESIZE_AND_PAD = Exhibit(
    name="resize-and-pad",
    title="Random resizing and padding",
    paper="Xie et al. 2018",
    link="https://arxiv.org/abs/1711.01991",
    claim="Random scaling and padding undo adversarial examples at test time, without training.",
    hole="The gradient of one draw says little about the next draw, but the mean over many draws "
    "does (Athalye et al. 2018).",
    make=lambda: nn.Sequential(ResizeAndPad(), network()),
    train=taken("undefended", "1"),
    stand_ins=mean_of,
    randomised=True,
    causes=("unstable-predictions",),
)


def noisy() -> nn.Sequential:
    """Noise in front of a network."""
    return nn.Sequential(Noise(0.2), network())


NOISE = Exhibit(
    name="noise",
    title="Input noise, one draw",
    paper="Liu et al. 2018 (RSE)",
    link="https://arxiv.org/abs/1712.00673",
    claim="Random noise at test time hides the gradient from the attacker.",
    hole="The mean over draws has a gradient. Any robustness left comes from training with noise.",
    make=noisy,
    train=plainly,
    stand_ins=mean_of,
    randomised=True,
    causes=("unstable-predictions",),
)

NOISE_VOTE = Exhibit(
    name="noise-vote",
    title="Input noise, mean of 10 draws",
    paper="Liu et al. 2018 (RSE)",
    link="https://arxiv.org/abs/1712.00673",
    claim="An ensemble of noisy predictions keeps the accuracy and resists attacks.",
    hole="The defence itself takes the mean over draws whose gradient the attack needs.",
    make=lambda: Vote(noisy(), 10),
    train=plainly,
    randomised=True,
    causes=("unstable-predictions",),
)

CLAMP = Exhibit(
    name="clamp",
    title="A clamp at the input",
    paper="no paper, just careful code on PyTorch 2.14 and later",
    link="https://github.com/pytorch/pytorch/pull/191142",
    claim="None: it changes no image. It precedes an adversarially trained network.",
    hole="A clamp has zero gradient at its bounds, and most pixels of a digit are at a bound.",
    make=lambda: nn.Sequential(Clamp(), network()),
    train=taken("adversarially trained", "1"),
    stand_ins=lambda model: {"the network without it": straight_through(model, part="0")},
    twin="adversarially trained",
    causes=("gradient-vanishes-at-bounds",),
)


# Activations.


def pruned() -> nn.Module:
    """The small network with its activations pruned at random."""
    return convolutional(activation=lambda width: nn.Sequential(nn.ReLU(), ActivationPruning()))


PRUNING = Exhibit(
    name="activation-pruning",
    title="Stochastic activation pruning",
    paper="Dhillon et al. 2018",
    link="https://arxiv.org/abs/1803.01442",
    claim="Dropping small activations at random makes a trained network robust without retraining.",
    hole="On average it computes what the unpruned network does, and so does the gradient averaged "
    "over many draws (Athalye et al. 2018).",
    make=pruned,
    train=taken("undefended"),
    stand_ins=lambda model: {
        "the network unpruned": stepped_over(model, ActivationPruning),
        **mean_of(model),
    },
    randomised=True,
    causes=("unstable-predictions",),
)


def winners() -> nn.Module:
    """The small network with the winners in the place of ReLU."""
    return convolutional(activation=lambda width: KWinners(0.1))


K_WINNERS = Exhibit(
    name="k-winners",
    title="k-winners-take-all",
    paper="Xiao, Zhong and Zheng 2020",
    link="https://arxiv.org/abs/1905.10510",
    claim="Discontinuous activations make gradients useless, also with adversarial training.",
    hole="The outputs are discontinuous, but their mean over a small neighbourhood is smooth. The "
    "gradient of ReLU also leads through, and a gradient-free search needs none (Tramer et al. "
    "2020).",
    make=winners,
    train=plainly,
    stand_ins=lambda model: {
        AS_IT_IS: model,
        "ReLU's gradient": stepped_over(model, KWinners, torch.relu),
        "the mean of 20 points nearby": averaged(nn.Sequential(Noise(0.05), model), 20),
    },
    queries=5000,
)


def sparse() -> nn.Module:
    """The small network with MeanSparse in front of every ReLU."""
    return convolutional(activation=lambda width: nn.Sequential(MeanSparse(width), nn.ReLU()))


def measured(model: nn.Module, studio: Studio) -> nn.Module:
    """Take a robust network's weights, and the activations' means layer by layer."""
    model = taken("adversarially trained")(model, studio)
    values, _ = studio.examples()
    with torch.no_grad():
        for layer in model.children():
            for part in parts(layer, MeanSparse):
                assert isinstance(part, MeanSparse)
                part.measure(values)
            values = layer(values)
    return model


MEAN_SPARSE = Exhibit(
    name="mean-sparse",
    title="MeanSparse on an adversarially trained network",
    paper="Amini et al. 2024",
    link="https://arxiv.org/abs/2406.05927",
    claim="Replacing activations near their mean by the mean raises the accuracy under AutoAttack "
    "(75.28 % on CIFAR-10, later corrected to 73.10 %).",
    hole="Replaced activations have zero gradient, so attacks see only part of the network.",
    make=sparse,
    train=measured,
    stand_ins=lambda model: {
        AS_IT_IS: model,
        "the network without it": stepped_over(model, MeanSparse),
    },
    data="Fashion-MNIST",
    epsilon=0.1,
    twin="adversarially trained",
    queries=2000,
)


# Ensembles and detectors.


ENSEMBLE = Exhibit(
    name="ensemble-diversity",
    title="Ensemble diversity (ADP)",
    paper="Pang et al. 2019",
    link="https://arxiv.org/abs/1901.08846",
    claim="Ensemble members whose wrong predictions differ are hard to fool together.",
    hole="The boundaries of the members are still near. Attacks with few or large steps miss them "
    "(Tramer et al. 2020).",
    make=Ensemble,
    train=lambda model, studio: training.descended(
        model, training.adaptive_diversity, *studio.examples()
    ),
)


def squeezed() -> Rejecting:
    """Feature squeezing for grey photographs: three bits, and a median of 2 x 2."""
    classifier = network()
    return Rejecting(classifier, [SqueezingScore(classifier, [BitDepth(3), MedianFilter()])])


def calibrated(model: nn.Module, studio: Studio) -> nn.Module:
    """Give the classifier the undefended twin's weights, and the detectors their thresholds."""
    model = taken("undefended", "classifier")(model, studio)
    assert isinstance(model, Rejecting)
    model.eval().calibrate(studio.held_out())
    return model


def bare(model: nn.Module) -> nn.Module:
    """The classifier that a guard stands before."""
    part: nn.Module = model.get_submodule("classifier")
    return part


FEATURE_SQUEEZING = Exhibit(
    name="feature-squeezing",
    title="Feature squeezing",
    paper="Xu, Evans and Qi 2018",
    link="https://arxiv.org/abs/1704.01155",
    claim="Squeezing changes the prediction only on adversarial images, so most are detected.",
    hole="An attack on the prediction and the score together evades both (He et al. 2017).",
    make=squeezed,
    train=calibrated,
    stand_ins=lambda model: {"the squeezers stepped over": stepped_over(model, BitDepth)},
    oblivious=bare,
    data="Fashion-MNIST",
    epsilon=0.15,
    rejects=True,
)


class Reformed(nn.Sequential):
    """A network behind an autoencoder."""


def magnet() -> Rejecting:
    """MagNet: an autoencoder that reforms, and two detectors that ask it."""
    autoencoder, classifier = Autoencoder(), network()
    detectors = [
        ReconstructionScore(autoencoder),
        DivergenceScore(classifier, autoencoder, temperature=10.0),
    ]
    return Rejecting(Reformed(autoencoder, classifier), detectors)


def reformed(model: nn.Module, studio: Studio) -> nn.Module:
    """Train the autoencoder, take the undefended twin's weights, set the thresholds."""
    model = taken("undefended", "classifier.1")(model, studio)
    assert isinstance(model, Rejecting)
    autoencoder = model.get_submodule("classifier.0")
    training.descended(autoencoder, training.reconstruction, *studio.examples(), epochs=30)
    model.eval().calibrate(studio.held_out())
    return model


MAGNET = Exhibit(
    name="magnet",
    title="MagNet",
    paper="Meng and Chen 2017",
    link="https://arxiv.org/abs/1705.09064",
    claim="Images off the data manifold are detected or reconstructed by networks kept secret.",
    hole="Autoencoder and detectors are differentiable. An attacker who knows them, or similar "
    "ones, uses the gradient through all of them (Carlini and Wagner 2017).",
    make=magnet,
    train=reformed,
    oblivious=lambda model: model.get_submodule("classifier.1"),
    rejects=True,
)


# Controls.


def by_pgd(model: nn.Module, studio: Studio) -> nn.Module:
    """Train on adversarial examples alone, from the twin: from nothing it learns nothing."""
    trainer = AdversarialTrainer(
        copy.deepcopy(studio.small("undefended")).requires_grad_(True),
        objective="pgd",
        epsilon=RADII[studio.data]["linf"],
        bounds=(0.0, 1.0),
        learning_rate=1e-3,
        lr_scheduler="cosine",
        max_epochs=training.EPOCHS,
        random_state=0,
    )
    made: nn.Module = trainer.fit(*studio.examples()).model_
    return made


TRADES = Exhibit(
    name="trades",
    title="TRADES",
    paper="Zhang et al. 2019",
    link="https://arxiv.org/abs/1901.08573",
    claim="Training makes the network robust, and it does.",
    hole="None known.",
    make=network,
    train=taken("adversarially trained"),
    control=True,
    queries=2000,
)

PGD_TRAINING = Exhibit(
    name="pgd-training",
    title="PGD training",
    paper="Madry et al. 2018",
    link="https://arxiv.org/abs/1706.06083",
    claim="Training makes the network robust, and it does.",
    hole="None known.",
    make=network,
    train=by_pgd,
    control=True,
    queries=2000,
)

EXHIBITS = (
    distilled(20),
    distilled(100),
    EXTENDED,
    LABEL_SMOOTHING,
    LOGIT_SQUEEZING,
    THERMOMETER,
    TRANSFORMATIONS,
    RESIZE_AND_PAD,
    PRUNING,
    K_WINNERS,
    FEATURE_SQUEEZING,
    MAGNET,
    ENSEMBLE,
    MEAN_SPARSE,
    NOISE,
    NOISE_VOTE,
    CLAMP,
    TRADES,
    PGD_TRAINING,
)
