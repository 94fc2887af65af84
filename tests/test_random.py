"""Randomness per example: SplitMix64 as published, uniform, normal, and keyed by the pixels."""

import numpy as np
import pytest
import scipy.stats
import torch

from distillguard._random import draw_seed, example_keys, normal, split_mix, uniform

PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]
"""The first outputs of the reference SplitMix64 for the seed 1234567."""


def keys_of(n: int) -> torch.Tensor:
    return example_keys(torch.arange(n, dtype=torch.float64)[:, None], 0)


def test_split_mix_gives_the_published_numbers():
    outputs = split_mix(torch.tensor([1234567]), 5)[0]
    assert [int(output) % 2**64 for output in outputs] == PUBLISHED


def test_uniform_numbers_are_the_top_bits_of_the_stream_in_every_precision():
    keys = keys_of(50)
    double, single = (uniform(keys, 3, 20, dtype) for dtype in (torch.float64, torch.float32))
    assert ((double - single.double()).abs() < 2.0**-24).all()
    assert ((double >= 0) & (double < 1)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_uniform_numbers_stay_below_one_in_every_precision(dtype):
    drawn = uniform(keys_of(200), 0, 500, dtype)
    assert drawn.dtype == dtype
    assert ((drawn >= 0) & (drawn < 1)).all()


def unmixed(value: int) -> int:
    """The number from which SplitMix64's finaliser makes ``value``: its steps back to front."""
    for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
        shifted = value
        for _ in range(64 // shift):
            shifted = value ^ (shifted >> shift)
        value = shifted * pow(factor, -1, 2**64) % 2**64
    return value


@pytest.mark.parametrize("digits", [11, 8, 24, 53])
def test_the_largest_uniform_number_is_the_last_below_one(digits):
    dtypes = {11: torch.float16, 8: torch.bfloat16, 24: torch.float32, 53: torch.float64}
    golden = 0x9E3779B97F4A7C15
    stream = unmixed(2**64 - 1) - golden
    key = (unmixed(stream % 2**64) - golden) % 2**64
    drawn = uniform(torch.tensor([key - 2**64 * (key >= 2**63)]), 0, 1, dtypes[digits])
    assert drawn.item() == 1 - 2.0**-digits


@pytest.mark.parametrize("counter", [0, 1, 10**6])
def test_uniform_numbers_pass_the_kolmogorov_smirnov_test(counter):
    along = uniform(keys_of(1), counter, 20_000, torch.float64)[0]
    across = uniform(keys_of(20_000), counter, 1, torch.float64)[:, 0]
    for drawn in (along, across):
        assert scipy.stats.kstest(drawn.numpy(), "uniform").pvalue > 1e-3


def test_normal_numbers_pass_the_kolmogorov_smirnov_test_and_do_not_correlate():
    drawn = normal(keys_of(5_000), 0, 5, torch.float64).numpy()
    assert drawn.shape == (5_000, 5)
    assert scipy.stats.kstest(drawn.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(drawn.T) - np.eye(5)).max() < 0.06


def test_neighbouring_counters_do_not_correlate():
    keys = keys_of(10_000)
    drawn = [uniform(keys, counter, 1, torch.float64)[:, 0].numpy() for counter in range(4)]
    assert abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.05


def test_a_counter_per_example_draws_what_each_would_draw_alone():
    keys = keys_of(3)
    together = uniform(keys, torch.tensor([0, 5, 2]), 4, torch.float64)
    alone = [uniform(keys[i : i + 1], c, 4, torch.float64) for i, c in enumerate((0, 5, 2))]
    assert torch.equal(together, torch.cat(alone))


def test_keys_of_images_that_differ_in_one_pixel_have_nothing_in_common():
    image = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0))
    changed = image.repeat(784, 1, 1)
    changed.view(784, -1)[range(784), range(784)] += 2**-20
    keys = example_keys(torch.cat([image, changed]), 0)
    assert len(keys.unique()) == 785
    bits = (keys[1:, None] ^ keys[0]) >> torch.arange(64) & 1
    assert 0.45 < bits.double().mean() < 0.55


def test_keys_of_images_with_the_same_pixels_in_another_order_differ():
    image = torch.rand(1, 12, generator=torch.Generator().manual_seed(0))
    orders = [torch.randperm(12, generator=torch.Generator().manual_seed(i)) for i in range(500)]
    images = torch.cat([image, *(image[:, order] for order in orders)])
    assert len(example_keys(images, 0).unique()) == len(images.unique(dim=0))


def test_keys_of_different_seeds_differ():
    image = torch.zeros(1, 5)
    assert len({int(example_keys(image, seed)) for seed in range(1000)}) == 1000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_keys_exist_for_every_floating_dtype_and_memory_layout(dtype):
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    keys = example_keys(images, 0)
    assert keys.dtype == torch.int64
    assert len(keys.unique()) == 2
    strided = images.to(memory_format=torch.channels_last)
    assert torch.equal(example_keys(strided, 0), keys)


def test_a_given_seed_is_kept_and_a_missing_one_is_fresh():
    assert draw_seed(7) == 7
    assert draw_seed(np.int64(7)) == 7
    assert isinstance(draw_seed(np.int64(7)), int)
    assert 0 <= draw_seed(2**80 + 5) < 2**63
    assert draw_seed(None) != draw_seed(None)
