"""The Studio's figure and how it rounds: what is drawn is what was counted."""

from __future__ import annotations

import math

import pytest

from prune_core.figures.studio import sparsity_map
from prune_core.figures.theme import Look
from prune_core.models.info import LayerInfo
from prune_core.words.numbers import finite

WORDS = {"title": "map", "x": "block", "y": "layer", "share": "removed", "dense": "left dense"}
ROLES = {"attn.q": "Query", "mlp.up": "Up"}
LAYERS = [
    LayerInfo("b0.q", 0, "attn.q", 4, 5),
    LayerInfo("b0.up", 0, "mlp.up", 8, 5),
    LayerInfo("b2.q", 2, "attn.q", 4, 5),
]


@pytest.mark.parametrize("look", [Look(), Look(dark=True)], ids=["light", "dark"])
def test_the_map_holds_each_layers_share_in_its_place(look: Look) -> None:
    figure = sparsity_map(LAYERS, {"b0.q": 5, "b2.q": 20}, [], look, words=WORDS, roles=ROLES)
    heat = figure.data[0]
    assert list(heat.x) == ["0", "2"]
    assert list(heat.y) == ["Query", "Up"]
    # a layer that is not there is a gap, a layer that keeps everything is 0
    assert [list(row) for row in heat.z] == [[0.25, 1.0], [0.0, None]]
    assert (heat.zmin, heat.zmax) == (0, 1)
    assert len(figure.data) == 1


def test_layers_left_dense_are_crossed() -> None:
    figure = sparsity_map(LAYERS, {}, ["b0.up"], Look(), words=WORDS, roles=ROLES)
    crosses = figure.data[1]
    assert (list(crosses.x), list(crosses.y)) == (["0"], ["Up"])
    assert "left dense" in crosses.hovertemplate


def test_a_hostile_layer_name_stays_text() -> None:
    layer = LayerInfo("<a href='x'>q</a>", 0, "attn.q", 2, 2)
    figure = sparsity_map([layer], {}, [], Look(), words=WORDS, roles=ROLES)
    assert "<a" not in figure.data[0].customdata[0][0]


def test_json_gets_no_infinity() -> None:
    assert finite(None) is None
    assert finite(math.nan) is None
    assert finite(2.5) == 2.5
    assert math.isfinite(finite(math.inf) or math.nan)
    assert (finite(math.inf) or 0) > 1e6
