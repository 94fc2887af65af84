"""A class's only example is there to be learned: nothing is held out."""

import pytest
import torch
from torch import nn

from distillguard import ExtendedDistiller, UndefendedClassifier

X, Y = torch.eye(4), [0, 1, 2, 3]


def network(shape, n_classes):
    return nn.Sequential(nn.Dropout(0.1), nn.Linear(*shape, n_classes))


def test_early_stopping_says_that_nothing_can_be_held_out():
    classifier = UndefendedClassifier(network, max_epochs=1, early_stopping=True)
    with pytest.raises(ValueError, match="early_stopping must be False, or validation given, wh"):
        classifier.fit(X, Y)
    assert classifier.fit(X, Y, validation=(X, Y)).predict(X).shape == (4,)


def test_what_keeps_examples_aside_of_its_own_accord_learns_all():
    distiller = ExtendedDistiller(network, max_epochs=1, random_state=0)
    with pytest.warns(UserWarning, match="false_positive_rate needs clean examples that are kept"):
        distiller.fit(X, Y)
    assert distiller.predict(X).shape == (4,)
