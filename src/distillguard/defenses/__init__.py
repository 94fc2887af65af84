"""Layered defences: input transformations and detectors around a classifier.

Every single layer has holes, like a slice of Swiss cheese. What counts is what gets through all of
them together, and that is what :func:`~distillguard.evaluate` measures.
"""

from ._bit_depth import BitDepth
from ._detector import Detector
from ._feature_squeezing import FeatureSqueezing
from ._gaussian_noise import GaussianNoise
from ._jpeg import JPEG
from ._layer import Layer, RandomLayer
from ._layered import LayeredDefense
from ._maximum_probability import MaximumProbability
from ._median_filter import MedianFilter
from ._network import LayeredNetwork
from ._random_resize_pad import RandomResizePad
from ._reconstruction_error import ReconstructionError
from ._total_variation import TotalVariation

__all__ = [
    "JPEG",
    "BitDepth",
    "Detector",
    "FeatureSqueezing",
    "GaussianNoise",
    "Layer",
    "LayeredDefense",
    "LayeredNetwork",
    "MaximumProbability",
    "MedianFilter",
    "RandomLayer",
    "RandomResizePad",
    "ReconstructionError",
    "TotalVariation",
]
