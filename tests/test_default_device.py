"""A default device of the caller's changes no result: every tensor says where it lies.

On the meta device tensors hold no values: one that got there by default raises, or gives NaN.
"""

import ast
import json
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import distillguard
from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    ExtendedDistiller,
    LayeredDefense,
    RobustDistiller,
    UndefendedClassifier,
    attacks,
    callbacks,
    datasets,
    defenses,
    evaluate,
    evaluation,
    exercises,
    functional,
    load,
    networks,
    testing,
)
from distillguard.adaptive import averaged, distil_surrogate, gradient_from, straight_through
from distillguard.evaluation import _loss_surface
from test_attacks_contract import each_case, pixels
from test_exercises_answers import RIGHT

SOURCES = sorted(Path(distillguard.__file__).parent.rglob("*.py"))
# What torch.set_default_device moves, of what torch makes from numbers alone.
FACTORIES = {
    *("arange", "as_tensor", "asarray", "bartlett_window", "blackman_window", "empty"),
    *("empty_permuted", "empty_strided", "eye", "full", "hamming_window", "hann_window"),
    *("kaiser_window", "linspace", "logspace", "ones", "rand", "randint", "randn", "randperm"),
    *("range", "scalar_tensor", "sparse_bsc_tensor", "sparse_bsr_tensor", "sparse_coo_tensor"),
    *("sparse_compressed_tensor", "sparse_csc_tensor", "sparse_csr_tensor", "tensor"),
    *("tril_indices", "triu_indices", "zeros"),
}


def seeded(make, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


SHAPE = (1, 4, 4)


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3))


MANY = seeded(lambda: torch.rand(500, *SHAPE))
X = MANY[:60]


def even(seed):
    """A network that gives each class its share of the examples."""
    made = seeded(network, seed).eval()
    with torch.no_grad():
        made[-1].weight *= 5
        made[-1].bias -= made(X).mean(dim=0)
    return made


NET, OTHER = even(1), even(2)
Y = NET(X).argmax(dim=1)
LOW, HIGH = torch.zeros(1, 1, 4), torch.ones(1, 1, 4)
MASK = torch.ones(SHAPE, dtype=torch.bool)
MASK[:, 0] = False


class Pairs(Dataset):
    """A data set of the caller's own, which is shuffled."""

    def __len__(self):
        return len(X)

    def __getitem__(self, place):
        return X[place], Y[place]


class Stairs(nn.Module):
    """A defence whose gradient is zero, in front of a network: what adapted attacks are for."""

    def __init__(self):
        super().__init__()
        self.network = NET

    def forward(self, inputs):
        return self.network((inputs * 20).round().detach() / 20 + 0 * inputs)


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = NET

    def forward(self, inputs):
        return self.network(inputs + 0.05 * torch.randn_like(inputs))


def told(value):
    """Everything that a result says, bit for bit, but for times."""
    if isinstance(value, evaluation.RobustnessReport):
        return told([value.to_dict(), value.examples])
    if isinstance(value, Tensor):
        return told(value.detach().numpy())
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, nn.Module):
        return told(value.state_dict())
    if isinstance(value, dict):
        return {key: told(each) for key, each in value.items() if key not in ("seconds", "date")}
    if isinstance(value, list | tuple):
        return [told(each) for each in value]
    return told(vars(value)) if hasattr(value, "__dict__") else repr(value)


def changes_nothing(call):
    alone = told(seeded(call))
    with torch.device("meta"):
        beside = seeded(call)
    assert told(beside) == alone


VARIANTS = {
    "plain": {},
    "in-batches": {"batch_size": 3},
    "masked": {"mask": torch.arange(12).view(1, 3, 4) % 4 > 0},
    "bounds-as-tensors": {"bounds": (torch.zeros(1, 3, 1), torch.ones(1, 3, 1))},
    "targeted": {"targeted": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
@each_case
def test_attacks_find_the_same_points(tangled, case, variant):
    inputs = pixels(7)
    labels = tangled.decided(inputs)
    if variant == "targeted":
        labels = (labels + 1) % 4
    attack = case if variant == "plain" else case.briefly
    changes_nothing(lambda: attack(tangled, inputs, labels, **VARIANTS[variant]))


REPORTS = {
    "quick": {"attacks": "quick"},
    "standard": {"epsilon": 0.05},
    "autoattack": {"attacks": "autoattack", "epsilon": 0.4, "n": 2},
    "full-diagnosis": {"attacks": "quick", "diagnosis": "full"},
    "bounds-as-tensors": {"attacks": "quick", "bounds": (LOW, HIGH)},
    "bounds-as-arrays": {"attacks": "quick", "bounds": (LOW.numpy(), 1.0)},
    "mask": {"attacks": "quick", "mask": MASK},
    "mask-as-array": {"attacks": "quick", "mask": MASK.numpy()},
    "surrogate": {"attacks": "quick", "surrogate": OTHER},
    "chunks": {"attacks": "quick", "chunk_size": 5},
    "l2": {"norm": "l2", "epsilon": 0.4, "n": 4},
    "l1": {"norm": "l1", "epsilon": 1.0, "n": 2, "diagnosis": "brief"},
    "l0": {"norm": "l0", "epsilon": 2},
    "l0-pixels": {"norm": "l0_pixels", "epsilon": 2, "attacks": "quick"},
}


def report(model=NET, n=8, **settings):
    settings = {"epsilon": 0.1, "random_state": 0, "keep_examples": "all"} | settings
    return evaluate(model, X[:n], Y[:n], **settings)


@pytest.mark.parametrize("name", REPORTS)
def test_evaluations_come_to_the_same(name):
    changes_nothing(lambda: report(**REPORTS[name]))


@pytest.mark.parametrize("model", [Stairs(), Noisy()], ids=["detached", "random"])
def test_adapted_attacks_come_to_the_same(model):
    changes_nothing(lambda: report(model.eval(), attacks="quick", adapt=True, n=4))


DATA = {
    "tensors": (X, Y),
    "arrays": (X.numpy(), Y.numpy()),
    "names": (X.numpy(), np.array(["a", "b", "c"])[Y]),
    "data-set": (Pairs(), None),
    "batches": ([(X[:30], Y[:30]), (X[30:], Y[30:])], None),
}


@pytest.mark.parametrize("name", [name for name in DATA if name != "names"])
def test_data_of_any_kind_are_read_as_ever(name):
    settings = {"epsilon": 0.1, "attacks": "quick", "random_state": 0}
    changes_nothing(lambda: evaluate(NET, *DATA[name], **settings))


def test_an_evaluation_goes_on_from_its_state_file(tmp_path):
    def call(name):
        return report(attacks="quick", chunk_size=5, state_file=tmp_path / name)

    first = told(call("one"))
    with torch.device("meta"):
        assert told(call("one")) == first  # all of it is known already
        assert told(call("two")) == first


def guard():
    layers = [defenses.BitDepth(3), defenses.MedianFilter(), defenses.GaussianNoise(0.05)]
    detectors = [defenses.MaximumProbability(), defenses.ReconstructionError(max_epochs=2)]
    return LayeredDefense(NET, layers, detectors, random_state=0).fit(X, Y)


PICTURE = re.compile('data:image/png[^"]*')


def traced():
    trace = evaluation.AttackTrace(X[:5], Y[:5])
    attacks.pgd(NET, X[:5], Y[:5], epsilon=0.1, steps=4, random_state=0, callback=trace)
    return trace


MEASURES = {
    "layers": lambda: evaluation.evaluate_layers(
        guard(), X[:6], Y[:6], epsilon=0.1, attacks="quick", random_state=0
    ),
    "guard": lambda: report(guard(), attacks="quick"),
    "curve": lambda: evaluation.robustness_curve(
        NET,
        X[:8],
        Y[:8],
        minimum_distance=attacks.fmn,
        budget=attacks.fgsm,
        epsilons=[0.05, 0.1],
        random_state=0,
    ),
    "transfer": lambda: evaluation.transfer_matrix(
        {"one": NET, "other": OTHER}, attacks.fgsm, X[:8], Y[:8], epsilon=0.1, random_state=0
    ),
    "confidence": lambda: evaluation.confidence_histogram(NET, X, Y),
    "gradients": lambda: evaluation.gradient_histogram(NET, X, Y),
    "comparison": lambda: str(
        evaluation.compare(one=report(attacks="quick"), other=report(OTHER, attacks="quick"))
    ),
    "pictures": lambda: PICTURE.findall(report(attacks="quick").to_html()),
    "surrogate": lambda: (
        distil_surrogate(NET, MANY, rounds=1, max_epochs=1, device="cpu", random_state=0).network
    ),
    "jacobian": lambda: (
        distil_surrogate(
            NET, MANY, rounds=1, max_epochs=1, augmentation="jacobian", device="cpu", random_state=0
        ).network
    ),
    "surface": lambda: _loss_surface.measured(
        NET, X[:1], Y[:1], radius=0.1, n_steps=5, bounds=(0.0, 1.0), random_state=0
    ),
    "trace": lambda: traced().margin,
    "averaged": lambda: attacks.fgsm(
        averaged(Noisy().eval(), 3), X[:5], Y[:5], epsilon=0.1, random_state=0
    ),
    "straight-through": lambda: attacks.fgsm(
        straight_through(Stairs().eval(), NET), X[:5], Y[:5], epsilon=0.1, random_state=0
    ),
    "gradient-from": lambda: attacks.fgsm(
        gradient_from(Stairs().eval(), OTHER), X[:5], Y[:5], epsilon=0.1, random_state=0
    ),
}


@pytest.mark.parametrize("name", MEASURES)
def test_measures_come_to_the_same(name):
    changes_nothing(MEASURES[name])


TESTED = {
    "model": lambda: testing.check_model(NET, X[:4]),
    "attack": lambda: testing.check_attack(partial(attacks.pgd, epsilon=0.1, steps=4)),
    "attack-l0": lambda: testing.check_attack(partial(attacks.sigma_zero, steps=30)),
    "classifier": lambda: testing.check_classifier(
        UndefendedClassifier(max_epochs=1, device="cpu", random_state=0)
    ),
    "layer": lambda: testing.check_defense(defenses.BitDepth(3)),
    "random-layer": lambda: testing.check_defense(defenses.RandomResizePad()),
    "detector": lambda: testing.check_defense(defenses.ReconstructionError(max_epochs=1)),
    "loss": lambda: testing.check_loss(functional.dlr_loss),
    "softmax": lambda: testing.check_softmax(functional.softmax),
    "exercises": lambda: str(exercises.progress(RIGHT)),
}


@pytest.mark.parametrize("name", TESTED)
def test_promises_and_exercises_are_judged_as_ever(name):
    changes_nothing(TESTED[name])


def test_images_are_loaded_into_memory():
    changes_nothing(lambda: datasets.load_digits("test"))


BRIEF = {"max_epochs": 2, "batch_size": 16, "device": "cpu", "random_state": 0}
ATTACKED = {"epsilon": 0.05, "steps": 2, "bounds": (0.0, 1.0)}
ESTIMATORS = {
    "undefended": lambda: UndefendedClassifier(early_stopping=True, **BRIEF),
    "module": lambda: UndefendedClassifier(NET, class_weight="balanced", **BRIEF),
    "sgd": lambda: UndefendedClassifier(optimizer="sgd", lr_scheduler="one_cycle", **BRIEF),
    "nadam": lambda: UndefendedClassifier(optimizer="nadam", gradient_clip=1.0, **BRIEF),
    "built": lambda: UndefendedClassifier(lambda shape, n: network(), **BRIEF),
    "distilled": lambda: DefensiveDistiller(temperature=20.0, hard_label_weight=0.1, **BRIEF),
    "extended": lambda: ExtendedDistiller(early_stopping=True, **BRIEF),
    "adversarial": lambda: AdversarialTrainer(weight_perturbation=0.01, **ATTACKED, **BRIEF),
    "adversarial-l1": lambda: AdversarialTrainer(
        objective="mart", norm="l1", batch_statistics=True, **ATTACKED, **BRIEF
    ),
    "own-attack": lambda: AdversarialTrainer(
        attack=partial(attacks.fgsm, epsilon=0.05), epsilon=0.05, **BRIEF
    ),
    "double": lambda: UndefendedClassifier(precision="64-true", **BRIEF),
    "robust": lambda: RobustDistiller(**ATTACKED, **BRIEF),
    "layered": lambda: LayeredDefense(
        UndefendedClassifier(**BRIEF),
        [defenses.BitDepth(3), defenses.TotalVariation(), defenses.RandomResizePad()],
        [defenses.MaximumProbability(), defenses.FeatureSqueezing([defenses.BitDepth(2)])],
        random_state=0,
    ),
}


def learned(fitted):
    """What an estimator is after fit, and what it answers."""
    return [
        fitted.model_,
        getattr(fitted, "history_", None),
        fitted.predict_proba(X),
        fitted.predict(X),
        fitted.decision_function(X),
        fitted.score(X, Y),
    ]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_learn_and_predict_the_same(name):
    changes_nothing(lambda: learned(ESTIMATORS[name]().fit(X.numpy(), Y.numpy())))


@pytest.mark.parametrize("name", ["undefended", "distilled", "built", "layered"])
def test_a_save_is_loaded_as_it_was(name, tmp_path):
    fitted = ESTIMATORS[name]().fit(X, Y)
    module = (lambda shape, n: network()) if name == "built" else None

    def call():
        fitted.save(tmp_path / "save")
        manifest = json.loads((tmp_path / "save" / "manifest.json").read_text())
        return [manifest["answers"], *learned(load(tmp_path / "save", module))]

    changes_nothing(call)


class Fails(callbacks.Callback):
    """Breaks a run off in its second epoch."""

    def on_epoch(self, record, network):
        if record["epoch"] == 2:
            raise InterruptedError


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    def call(name, *fails):
        settings = BRIEF | {"checkpoint_dir": tmp_path / name, "callbacks": fails}
        return DefensiveDistiller(early_stopping=True, **settings)

    whole = told(learned(call("whole").fit(X, Y)))
    with torch.device("meta"):
        with pytest.raises(InterruptedError):
            call("part", Fails()).fit(X, Y)
        assert told(learned(call("part").fit(X, Y))) == whole


@pytest.mark.parametrize("name", DATA)
def test_data_of_any_kind_are_learned_from(name):
    changes_nothing(lambda: UndefendedClassifier(**BRIEF).fit(*DATA[name]).model_)


def test_a_default_device_that_was_taken_back_changes_nothing():
    def call():
        return learned(UndefendedClassifier(**BRIEF).fit(X, Y))

    def afterwards():
        torch.set_default_device("meta")
        torch.set_default_device(None)
        return seeded(call)

    with ThreadPoolExecutor(1) as thread:  # each thread has a default device of its own
        assert told(thread.submit(afterwards).result()) == told(seeded(call))


def test_other_examples_are_learned_from():
    few = MANY[60:90], NET(MANY[60:90]).argmax(dim=1)
    trainer = AdversarialTrainer(early_stopping=True, **ATTACKED, **BRIEF)
    changes_nothing(lambda: learned(trainer.fit(X, Y, validation=few, extra=few)))


def test_training_goes_on_from_the_last_fit():
    def call():
        classifier = UndefendedClassifier(warm_start=True, **BRIEF).fit(X, Y)
        return learned(classifier.fit(X, Y))

    changes_nothing(call)


def test_networks_wrap_others_where_these_are():
    def call():
        parts = networks.Normalized(NET, [0.4], [0.2]), networks.Scaled(NET, 2.0)
        return [part(X[:5]) for part in (*parts, networks.Rejecting(NET), networks.Logits(NET))]

    changes_nothing(call)


def test_every_call_of_a_factory_names_the_device():
    bare = []
    for path in SOURCES:
        if path.parent.name == "exercises":
            continue  # they are judged on the CPU, answers included
        tree = ast.parse(path.read_text())
        named = {
            call.func
            for call in ast.walk(tree)
            if isinstance(call, ast.Call) and "device" in [each.arg for each in call.keywords]
        }
        bare += [
            f"{path.name}:{node.lineno} torch.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and (node.value.id, node.attr in FACTORIES) == ("torch", True)
            and node not in named
        ]
    assert not bare
