"""Examples from memory, data sets and loaders are held to the same rules."""

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset, TensorDataset

from distillguard import UndefendedClassifier, datasets


@pytest.fixture(scope="module")
def digits():
    X, y = datasets.load_digits("train")
    return X[:300], y[:300]


def baseline(**settings):
    return UndefendedClassifier(**{"max_epochs": 2, "random_state": 0, **settings})


class Pairs(Dataset):
    """Examples that cannot be identified: only asked for one by one."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


FORMS = {
    "data set": Pairs,
    "TensorDataset": TensorDataset,
    "loader": lambda X, y: DataLoader(Pairs(X, y), 70),
    "plain loader": lambda X, y: DataLoader(TensorDataset(X, y), 70),
}


# --- labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_labels_of_loaders_are_looked_up_in_the_classes_like_those_of_arrays(digits, form):
    X, y = digits
    fitted = baseline(max_epochs=5).fit(X, y + 1)
    assert fitted.score(FORMS[form](X, y + 1)) == fitted.score(X, y + 1) > 0.5


@pytest.mark.parametrize("form", FORMS)
def test_validation_labels_of_loaders_are_looked_up_in_the_classes(digits, form):
    X, y = digits
    fitted = baseline().fit(X, 3 * y - 7, validation=FORMS[form](X, 3 * y - 7))
    last = fitted.history_[-1]
    assert last["validation_accuracy"] == pytest.approx(fitted.score(X, 3 * y - 7))


@pytest.mark.parametrize("form", FORMS)
def test_labels_that_are_no_classes_are_refused(digits, form):
    X, y = digits
    fitted = baseline().fit(X, y + 1)
    with pytest.raises(ValueError, match="labels must be known classes, got 0"):
        fitted.score(FORMS[form](X, y))
    with pytest.raises(ValueError, match="labels must be known classes, got 0"):
        baseline().fit(X, y + 1, validation=FORMS[form](X, y))
    named = baseline().fit(X, np.array(list("abcdefghij"))[y])
    with pytest.raises(ValueError, match="labels must be known classes, got 0"):
        named.score(FORMS[form](X, y))
