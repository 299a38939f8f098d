"""What every registered criterion must do; a new one is covered by being registered."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from prune_core.criteria import CRITERIA, LayerStats
from prune_core.errors import RecipeError, UnknownNameError
from prune_core.models.handle import ModelHandle


def stats(columns: int, rows: int = 6) -> LayerStats:
    """Statistics of inputs that differ in size, one of them dead."""
    norm = torch.rand(columns, generator=torch.Generator().manual_seed(columns)) * 3
    norm[0] = 0
    gradient = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    return LayerStats(norm, norm + 0.5, gradient.square())


@pytest.mark.parametrize("name", list(CRITERIA))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_have_shape_type_and_sense(name: str, dtype: torch.dtype) -> None:
    weight = torch.randn(6, 10, generator=torch.Generator().manual_seed(3)).to(dtype)
    weight[2] = 0
    before = weight.clone()
    scores = CRITERIA[name].fn(weight, stats(10))
    assert scores.shape == weight.shape
    assert scores.dtype == torch.float32
    assert bool(torch.isfinite(scores).all())
    assert bool((scores >= 0).all())
    assert torch.equal(weight, before)
    assert torch.equal(scores, CRITERIA[name].fn(weight, stats(10)))


@pytest.mark.parametrize("name", list(CRITERIA))
def test_a_model_is_only_read(name: str, handles: Mapping[str, ModelHandle]) -> None:
    for handle in handles.values():
        before = {n: (p, p.clone()) for n, p in handle.model.state_dict(keep_vars=True).items()}
        for layer in handle.structure.layers.values():
            CRITERIA[name].fn(
                layer.weight(handle.model), stats(layer.in_features, layer.out_features)
            )
        for key, now in handle.model.state_dict(keep_vars=True).items():
            assert now is before[key][0]
            assert torch.equal(now, before[key][1])


def test_magnitude_by_hand() -> None:
    weight = torch.tensor([[-3.0, 1.0, 0.0], [2.0, -0.5, 4.0]])
    expected = torch.tensor([[3.0, 1.0, 0.0], [2.0, 0.5, 4.0]])
    assert torch.equal(CRITERIA["magnitude"].fn(weight, LayerStats()), expected)


def test_wanda_by_hand() -> None:
    # by |w| the first of row 0 would go first, by |w| * norm the second
    weight = torch.tensor([[-1.0, 2.0, 0.0], [4.0, -0.5, 3.0]])
    norms = LayerStats(input_norm=torch.tensor([9.0, 2.0, 1.0]))
    expected = torch.tensor([[9.0, 4.0, 0.0], [36.0, 1.0, 3.0]])
    assert torch.equal(CRITERIA["wanda"].fn(weight, norms), expected)


def test_ria_by_hand() -> None:
    weight = torch.tensor([[-1.0, 3.0], [3.0, -1.0], [0.0, 0.0]])
    norms = LayerStats(input_norm=torch.tensor([4.0, 9.0]))
    # rows and columns sum to 4: shares 1/4 + 1/4 and 3/4 + 3/4, times the root of the norm
    expected = torch.tensor([[0.5 * 2, 1.5 * 3], [1.5 * 2, 0.5 * 3], [0.0, 0.0]])
    assert torch.equal(CRITERIA["ria"].fn(weight, norms), expected)
    flat = CRITERIA["ria"].fn(weight, norms, power=0.0)
    assert flat[0].tolist() == [0.5, 1.5]


def test_sparsegpt_taylor_and_fisher_by_hand() -> None:
    weight = torch.tensor([[-1.0, 2.0, 0.0], [4.0, -0.5, 3.0]])
    diagonal = LayerStats(obs_diagonal=torch.tensor([0.5, 2.0, 1.0]))
    expected = torch.tensor([[4.0, 1.0, 0.0], [64.0, 0.0625, 9.0]])
    assert torch.equal(CRITERIA["sparsegpt"].fn(weight, diagonal), expected)
    gradient = LayerStats(gradient=torch.tensor([[3.0, -1.0, 5.0], [0.5, 8.0, 0.0]]))
    expected = torch.tensor([[3.0, 2.0, 0.0], [2.0, 4.0, 0.0]])
    assert torch.equal(CRITERIA["taylor"].fn(weight, gradient), expected)
    square = LayerStats(gradient=torch.tensor([[4.0, 1.0, 5.0], [0.5, 8.0, 2.0]]))
    expected = torch.tensor([[2.0, 2.0, 0.0], [4.0, 1.0, 9.0]])
    assert torch.equal(CRITERIA["fisher"].fn(weight, square), expected)


def test_taylor_reads_what_its_argument_asks_for() -> None:
    entry = CRITERIA["taylor"]
    assert entry.needs == {"gradient_abs"}
    assert entry.needs_for({"signed": 1}) == {"gradient_mean"}


@pytest.mark.parametrize("name", [n for n in CRITERIA if CRITERIA[n].needs])
def test_missing_statistics_are_one_sentence(name: str) -> None:
    with pytest.raises(RecipeError, match="calibration text"):
        CRITERIA[name].fn(torch.ones(2, 3), LayerStats())


def test_random_differs_by_layer_and_by_seed() -> None:
    one, other = torch.ones(4, 5), torch.full((4, 5), 2.0)
    random = CRITERIA["random"].fn
    assert not torch.equal(random(one, LayerStats()), random(other, LayerStats()))
    assert not torch.equal(random(one, LayerStats(), seed=1), random(one, LayerStats(), seed=2))


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'magnitude'"):
        CRITERIA["magnitud"]
