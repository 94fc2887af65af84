"""DefensiveDistiller is a scikit-learn classifier: the executable contract and the ecosystem."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from distillguard import DefensiveDistiller, datasets


@parametrize_with_checks([DefensiveDistiller()])
def test_scikit_learns_own_checks_pass(estimator, check):
    check(estimator)
