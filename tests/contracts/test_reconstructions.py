"""What every registered reconstruction must do with weights, a Hessian and masks."""

from __future__ import annotations

import pytest
import torch

from prune_core.criteria import CRITERIA
from prune_core.patterns import parse_pattern
from prune_core.recipes.recipe import RECONSTRUCTIONS, Recipe

every_one = pytest.mark.parametrize("name", list(RECONSTRUCTIONS))


def layers() -> tuple[list[torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    """Two layers, the Hessian of what both read, a mask of half of each."""
    draw = torch.Generator().manual_seed(2)
    weights = [torch.randn(rows, 8, generator=draw) for rows in (5, 3)]
    inputs = torch.randn(64, 8, generator=draw, dtype=torch.float64)
    masks = [torch.rand(weight.shape, generator=draw) > 0.5 for weight in weights]
    return weights, inputs.T @ inputs, masks


@every_one
def test_masks_are_kept_and_nothing_given_is_changed(name: str) -> None:
    weights, hessian, masks = layers()
    given = [weight.clone() for weight in weights], hessian.clone(), [m.clone() for m in masks]
    pattern, entry = parse_pattern("per-layer"), RECONSTRUCTIONS[name]
    new, keep, raised = entry.fn(weights, hessian, pattern, [20, 12], masks)
    again, _, _ = entry.fn(weights, hessian, pattern, [20, 12], masks)
    assert type(raised) is bool
    for index, weight in enumerate(weights):
        assert new[index].shape == weight.shape
        assert torch.equal(keep[index], masks[index])
        assert not new[index][~masks[index]].any() and bool(torch.isfinite(new[index]).all())
        assert torch.equal(new[index], again[index])
        assert torch.equal(weight, given[0][index]) and torch.equal(masks[index], given[2][index])
    assert torch.equal(hessian, given[1])


@every_one
def test_a_repair_lowers_the_error_and_no_repair_leaves_the_weights(name: str) -> None:
    weights, hessian, masks = layers()
    entry = RECONSTRUCTIONS[name]
    new, _, _ = entry.fn(weights, hessian, parse_pattern("per-layer"), [20, 12], masks)
    for weight, mask, repaired in zip(weights, masks, new, strict=True):
        lost, left = (repaired - weight).double(), (weight * mask - weight).double()
        before, after = (float((x @ hessian * x).sum()) for x in (left, lost))
        assert after < before if entry.needs else torch.equal(repaired, weight * mask)


@every_one
def test_a_recipe_takes_it(name: str) -> None:
    entry = RECONSTRUCTIONS[name]
    recipe = Recipe(entry.criterion or "magnitude", sparsity=0.5, reconstruction=name)
    assert recipe.computes_weights == recipe.reads_calibration == bool(entry.needs)
    assert not entry.criterion or entry.criterion in CRITERIA
