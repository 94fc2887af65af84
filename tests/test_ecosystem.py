"""Networks of others, grid search over a network's keywords, and rows by the million."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from distillguard import (
    DefensiveDistiller,
    UndefendedClassifier,
    attacks,
    datasets,
    evaluate,
    load,
    networks,
)

# --- networks of others ----------------------------------------------------------------------


def resnet18(input_shape, n_classes):
    from torchvision.models import resnet18

    return resnet18(num_classes=n_classes)


class Own(nn.Module):
    """What a user writes: normalisation, dropout, and no word about distillation."""

    def __init__(self, input_shape, n_classes):
        super().__init__()
        self.convolution = nn.Conv2d(input_shape[0], 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(6, n_classes)

    def forward(self, inputs):
        maps = self.norm(self.convolution(inputs)).relu()
        return self.last(self.drop(maps.mean(dim=(2, 3))))


@pytest.mark.parametrize(("module", "n"), [(resnet18, 24), (Own, 120)])
def test_any_network_fits_predicts_saves_loads_and_is_attacked(module, n, tmp_path):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    # The class is the brightest channel.
    X = torch.rand(n, 3, 32, 32, generator=generator) * 0.5
    X[torch.arange(n), y] += 0.4
    fitted = DefensiveDistiller(
        module, temperature=10.0, max_epochs=1, batch_size=12, random_state=0
    ).fit(X, y)
    assert fitted.predict(X).shape == (n,)

    fitted.save(tmp_path)
    found = load(tmp_path, module=module)
    np.testing.assert_array_equal(found.decision_function(X), fitted.decision_function(X))
    np.testing.assert_array_equal(found.soft_labels(X), fitted.soft_labels(X))

    labels = torch.from_numpy(found.predict(X[:8]))
    adversarial = attacks.pgd(found.student_, X[:8], labels, epsilon=0.1, steps=2, random_state=0)
    assert (adversarial - X[:8]).abs().max() <= 0.1 + 1e-6
    assert not torch.equal(adversarial, X[:8])
    report = evaluate(
        found,
        X[:8],
        y[:8],
        epsilon=0.1,
        attacks={"fgsm": partial(attacks.fgsm, epsilon=0.1)},
        random_state=0,
    )
    assert report.robust_accuracy <= report.clean_accuracy
    # Batch statistics and modes are as training left them.
    assert not any(part.training for part in found.student_.modules())
    np.testing.assert_array_equal(found.decision_function(X), fitted.decision_function(X))


# --- rows by the million ---------------------------------------------------------------------

MEASURE = """
import re, sys
import numpy as np, torch
torch.set_num_threads(1)
from distillguard import DefensiveDistiller

def anonymous():
    # Pages of a mapped file are the system's to drop; what is copied out of them is not.
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

rows, values = 1_000_000, 64
X = np.lib.format.open_memmap(sys.argv[1], "w+", "int8", (rows, values))
X[-1] = 1
few = np.random.default_rng(0).random((200, values)).astype("float32")
fitted = DefensiveDistiller(torch.nn.Linear(values, 2), max_epochs=1).fit(few, np.arange(200) % 2)
fitted.predict(X[:2000])
before, peak = anonymous(), 0

def watch(module, inputs, logits):
    global peak
    watch.calls += 1
    if watch.calls % 100 == 0:
        peak = max(peak, anonymous())

watch.calls = 0
fitted.student_.register_forward_hook(watch)
found = fitted.predict(np.load(sys.argv[1], mmap_mode="r"))
assert found.shape == (rows,)
assert (found[:-1] == found[0]).all()
assert found[-1] == fitted.predict(X[-1:])[0]
print(max(peak, anonymous()) - before, watch.calls)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_million_rows_mapped_from_a_file_are_predicted_in_little_memory(tmp_path):
    """Converted as a whole they would be 244 MiB; the answer itself is 8 MiB."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "rows.npy")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not run.returncode, run.stderr
    grown, calls = map(float, run.stdout.split())
    assert grown < 64
    assert calls == -(-1_000_000 // 512) + 1


def test_rows_are_refused_wherever_in_the_array_they_are():
    X = np.random.default_rng(0).random((40_000, 64), dtype=np.float32)
    fitted = UndefendedClassifier(nn.Linear(64, 2), max_epochs=1).fit(X[:40], np.arange(40) % 2)
    with pytest.raises(ValueError, match="X has 63 features"):
        fitted.predict(X[:, 1:])
    with pytest.raises(ValueError, match="at least one example, got none"):
        fitted.predict(X[:0])
    X[39_999, 3] = np.nan
    with pytest.raises(ValueError, match="X must be finite, got NaN"):
        fitted.predict(X)


# --- the network's keywords ------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    X, y = datasets.load_digits("train")
    return X[:200].flatten(1).numpy(), y[:200].numpy()


def first_width(network: nn.Module) -> int:
    return next(network.parameters()).shape[0]


def test_grid_search_reaches_the_networks_keywords(digits):
    distiller = DefensiveDistiller(networks.mlp, max_epochs=2, random_state=0)
    grid = {"module__hidden": [(32,), (64,)], "temperature": [1.0, 20.0]}
    search = GridSearchCV(distiller, grid, cv=2, error_score="raise").fit(*digits)
    best = search.best_params_["module__hidden"]
    assert set(search.cv_results_["param_module__hidden"]) == {(32,), (64,)}
    assert first_width(search.best_estimator_.student_) == best[0]
    assert distiller.module is networks.mlp


def test_keywords_are_parameters_of_the_estimator(digits):
    distiller = DefensiveDistiller(networks.mlp, teacher=networks.mlp)
    assert "module__hidden" not in distiller.get_params()
    distiller.set_params(module__hidden=(3,), teacher__hidden=(9, 9), temperature=2.0)
    known = distiller.get_params()
    assert (known["module__hidden"], known["teacher__hidden"]) == ((3,), (9, 9))
    assert not [name for name in distiller.get_params(deep=False) if "__" in name]

    copy = clone(distiller).set_params(module__hidden=(5,))
    assert distiller.get_params()["module__hidden"] == (3,)
    fitted = copy.set_params(max_epochs=1).fit(*digits)
    assert (first_width(fitted.student_), first_width(fitted.teacher_)) == (5, 9)


def test_a_function_and_its_keywords_can_be_set_at_once():
    distiller = DefensiveDistiller(nn.Linear(4, 2))
    distiller.set_params(module__dropout=0.25, module=networks.papernot_mnist)
    assert distiller.module.func is networks.papernot_mnist
    assert distiller.module.keywords == {"dropout": 0.25}


def test_without_a_module_the_keywords_are_those_of_the_one_sized_from_the_data(digits):
    pipeline = make_pipeline(StandardScaler(), UndefendedClassifier(max_epochs=1))
    pipeline.set_params(undefendedclassifier__module__hidden=(7,)).fit(*digits)
    assert first_width(pipeline[-1].model_) == 7


def test_an_optimisers_keywords_are_reached_the_same_way(digits):
    fitted = UndefendedClassifier(optimizer=torch.optim.SGD, max_epochs=1)
    fitted.set_params(optimizer__momentum=0.5).fit(*digits)
    assert fitted.get_params()["optimizer__momentum"] == 0.5


@pytest.mark.parametrize(
    ("module", "keyword", "message"),
    [
        (networks.mlp, "module__hiden", r"keyword of mlp \(hidden, dropout\), got 'hiden'"),
        (networks.preact_resnet18, "module__width", "preact_resnet18 .it has none., got 'width'"),
        (networks.mlp, "module__input_shape", r"\(hidden, dropout\), got 'input_shape'"),
        (nn.Linear(4, 2), "module__bias", "module must be a function for module__bias .*Linear"),
        (networks.mlp, "teacher__hidden", "teacher must be a function .* got NoneType"),
        (networks.mlp, "modul__hidden", "Invalid parameter 'modul'"),
        (networks.mlp, "temprature", "Invalid parameter 'temprature'"),
    ],
)
def test_an_unknown_keyword_is_refused_by_name(module, keyword, message):
    with pytest.raises(ValueError, match=message):
        DefensiveDistiller(module).set_params(**{keyword: (3,)})


def test_a_factory_that_takes_any_keyword_is_given_it():
    def anything(input_shape, n_classes, **keywords):
        return nn.Linear(input_shape[0], n_classes, **keywords)

    distiller = DefensiveDistiller(anything).set_params(module__bias=False)
    X, y = np.random.default_rng(0).random((20, 4)), np.arange(20) % 2
    assert distiller.set_params(max_epochs=1).fit(X, y).student_.bias is None
