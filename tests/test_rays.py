"""RayS: what it finds by labels alone, and how few questions that takes."""

import pytest
import torch

from distillguard.attacks import rays, square


def told_by_class(model):
    """The class of a model's answers, as rows of 0 with a 5."""
    return lambda inputs: 5.0 * torch.nn.functional.one_hot(model(inputs).argmax(dim=1), 2)


@pytest.mark.parametrize("share", [0.97, 1.03])
def test_finds_by_labels_alone_what_lies_beyond_the_boundary_of_a_half_space(
    halfspace, examples, share
):
    inputs, labels = examples(8)
    model = told_by_class(halfspace)
    for x, y, least in zip(inputs, labels, halfspace.least_epsilon(inputs, "linf"), strict=True):
        found = rays(model, x[None], y[None], epsilon=share * least.item(), queries=500)
        assert bool(halfspace(found).argmax(dim=1) != y) == (share > 1)


def test_fools_by_labels_where_a_search_by_margins_does_not(halfspace, examples):
    inputs, labels = examples(8)
    model = told_by_class(halfspace)
    budget = {"epsilon": 1.1 * halfspace.least_epsilon(inputs, "linf").max().item()}
    searched = square(model, inputs, labels, queries=200, random_state=0, **budget)
    found = rays(model, inputs, labels, queries=200, **budget)
    assert (halfspace(found).argmax(dim=1) != labels).all()
    assert not (halfspace(searched).argmax(dim=1) != labels).all()


def test_the_questions_are_those_of_the_paper_worked_by_hand():
    # Class 1 beyond x_1 + x_2 = 1.2 from (0.5, 0.5): all ones fool at 0.5, and least at 0.1.
    asked = []

    def model(inputs):
        other = inputs.sum(dim=1) > 1.2
        return 5.0 * torch.stack([~other, other], dim=1)

    def watch(indices, points, logits):
        asked.append([round(value, 4) for value in points[0].tolist()])

    inputs, labels = torch.tensor([[0.5, 0.5]], dtype=torch.float64), torch.tensor([0])
    rays(model, inputs, labels, epsilon=0.05, queries=4, callback=watch)
    # The input, the farthest point along ones, the radius allowed, the middle of what is left.
    assert asked == [[0.5, 0.5], [1.0, 1.0], [0.55, 0.55], [0.775, 0.775]]


def test_an_input_that_is_misclassified_ends_the_search_as_it_is(halfspace, examples):
    asked = []
    inputs, labels = examples(6)
    wrong, told = 1 - labels, lambda indices, points, logits: asked.append(len(points))
    assert torch.equal(rays(halfspace, inputs, wrong, epsilon=0.3, callback=told), inputs)
    assert asked == [6]


SIGNS = "++++ ---- --++ ++-- -+++ +-++ ++-+ +++- --++ ++-- -+++"
"""Directions of four coordinates where none fools: all, halves, fourths, and halves again."""


@pytest.mark.parametrize("free", [[0, 1, 2, 3], [1, 4, 5, 8]])
def test_blocks_are_halves_of_what_may_change_and_halves_again_after_the_smallest(free):
    asked = []

    def watch(indices, points, logits):
        asked.append("".join("-+"[int(value)] for value in points[0, free].tolist()))

    inputs, mask = torch.full((1, 10), 0.5), torch.zeros(10, dtype=torch.bool)
    mask[free] = True
    settings = {"epsilon": 0.1, "mask": mask, "queries": 12, "callback": watch}
    rays(
        lambda x: torch.tensor([[5.0, 0.0]]).expand(len(x), 2),
        inputs,
        torch.tensor([0]),
        **settings,
    )
    assert asked[1:] == SIGNS.split()
