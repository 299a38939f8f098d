"""A part switched off live: what is computed again, what cannot be, and the figures of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prune_core.errors import RecipeError
from prune_core.figures.layers import cost_bars, greedy_curve, influence_bars
from prune_core.figures.theme import Look
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.models.handle import ModelHandle
from prune_core.models.tiny import TINY
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.evaluate import measure
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out
from prune_core.ui.layers.blocks import least_run

pytestmark = pytest.mark.usefixtures("own_cache")
TEXT = TextSpec("inline", "A hare was one day making fun of a tortoise for being so slow. " * 20)
WINDOWS = 3
SPEAKING = sorted(set(TINY) - {"tiny-bert"})
"""Measured with a pass for the exact KL, which counts too."""


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path))


def run(loaded: LoadedModel, recipe: Recipe) -> dict[str, Any]:
    job = Evaluate("x", recipe, TEXT, 48, WINDOWS)
    return measure(loaded, job)


def without(part: str, block: int) -> Recipe:
    """Half of the weights gone, and one part of a block."""
    recipe = Recipe(sparsity=0.5)
    if part == "head":
        return replace(recipe, drop_heads=((block, 1),))
    if part == "cross-attention head":
        return replace(recipe, drop_cross_heads=((block, 1),))
    if part == "neuron":
        return replace(recipe, drop_neurons=((block, 3),))
    return replace(recipe, drop_blocks=(block,))


@pytest.mark.parametrize("part", ["head", "cross-attention head", "neuron", "block"])
@pytest.mark.parametrize("name", SPEAKING)
def test_only_blocks_from_the_part_on_run_again(
    name: str, part: str, handles: Mapping[str, ModelHandle]
) -> None:
    loaded = LoadedModel(handles[name])
    blocks, copied = len(loaded.handle.structure.blocks), loaded.copy.model
    for block in range(blocks):
        if "cross" in part and loaded.handle.structure.blocks[block].cross_attention is None:
            continue
        whole = run(loaded, Recipe(sparsity=0.5))
        start = loaded.copy.runner.blocks_run
        found = run(loaded, without(part, block))
        computed = loaded.copy.runner.blocks_run - start
        assert loaded.copy.model is copied, "nothing is loaded anew"
        assert found["first_block"] == block
        assert computed == WINDOWS * (blocks - block)  # every window from the block on
        assert found["nll"] != whole["nll"]
        alone = run(LoadedModel(handles[name]), without(part, block))
        assert found["window_nll"] == pytest.approx(alone["window_nll"], rel=1e-6)


def test_the_first_block_may_go_but_not_every_one(handles: Mapping[str, ModelHandle]) -> None:
    for name in sorted(TINY):
        handle = handles[name]
        every = tuple(block.index for block in handle.structure.blocks)
        loaded = LoadedModel(handle)
        loaded.copy.apply(work_out(loaded, Recipe(drop_blocks=(0,))))
        with pytest.raises(RecipeError, match="every block") as caught:
            work_out(loaded, Recipe(drop_blocks=every))
        assert "\n" not in str(caught.value)


def test_the_only_block_stays(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    first = handle.structure.blocks[0]
    layers = {n: x for n, x in handle.structure.layers.items() if n in first.layers}
    short = replace(handle.structure, blocks=(first,), layers=layers)
    with pytest.raises(RecipeError, match="every block"):
        work_out(LoadedModel(replace(handle, structure=short)), Recipe(drop_blocks=(0,)))


def test_a_block_without_attention_or_mlp_has_none_to_drop(
    handles: Mapping[str, ModelHandle],
) -> None:
    handle = handles["tiny-llama"]
    for half, recipe in (
        (".mlp.", Recipe(drop_mlp=(1,))),
        ("attn.", Recipe(drop_attention=(1,))),
        ("attn.", Recipe(drop_heads=((1, 0),))),
    ):
        blocks = tuple(
            replace(
                block,
                layers=tuple(n for n in block.layers if half not in n),
                attention=None if half == "attn." else block.attention,
                intermediate_size=0 if half == ".mlp." else block.intermediate_size,
            )
            for block in handle.structure.blocks
        )
        layers = {n: x for n, x in handle.structure.layers.items() if half not in n}
        bare = replace(handle.structure, blocks=blocks, layers=layers)
        with pytest.raises(RecipeError) as caught:
            work_out(LoadedModel(replace(handle, structure=bare)), recipe)
        assert "block 1" in str(caught.value) or "another" in str(caught.value)
        assert "\n" not in str(caught.value)


# ---- figures -----------------------------------------------------------------------------------

WORDS = dict.fromkeys(("title", "x", "y", "kept", "dropped", "dense", "chosen"), "w")


def test_costs_keep_their_sign_and_unknown_ones_stay_open() -> None:
    drawn = cost_bars([0.5, -0.25, None, 1.5], [0.1, None, None, 0.2], [3], Look(), words=WORDS)
    kept, dropped = drawn.data
    assert (list(kept.x), list(kept.y)) == ([0, 1], [0.5, -0.25])
    assert (list(dropped.x), list(dropped.y)) == ([3], [1.5])
    assert list(kept.error_y.array) == [0.1, 0.0] and list(dropped.error_y.array) == [0.2]
    assert [row[0] for row in kept.customdata] == [0, 1], "a click names the block"
    assert dropped.marker.pattern.shape, "colour is not the only sign"
    assert len(cost_bars([None], [None], [], Look(), words=WORDS).data) == 0


def test_bars_of_blocks_that_lie_apart_hide_no_neighbour() -> None:
    for figure in (
        influence_bars([0.5] * 30, [9, 14], Look(), words=WORDS),
        cost_bars([0.5] * 30, [None] * 30, [9, 14], Look(), words=WORDS),
    ):
        assert [list(bar.x) for bar in figure.data][1] == [9, 14]
        assert all(0 < bar.width < 1 for bar in figure.data)


def test_a_path_marks_the_step_that_is_the_recipe() -> None:
    path = [
        {"block": 2, "blocks": [2], "value": 20.0, "low": 19.0, "high": 22.0},
        {"block": 1, "blocks": [1, 2], "value": 30.0, "low": None, "high": None},
    ]
    drawn = greedy_curve(path, 18.0, (2, 1), Look(), words=WORDS)
    (curve,) = drawn.data
    assert list(curve.y) == [20.0, 30.0] and list(curve.x) == [1, 2]
    assert list(curve.error_y.array) == [2.0, 0.0]
    assert list(curve.error_y.arrayminus) == [1.0, 0.0]
    assert list(curve.marker.symbol) == ["circle", "star"]
    assert [text.strip() for text in curve.text] == ["2", "1"]
    assert drawn.layout.shapes[0].y0 == 18.0


def test_the_run_of_the_least_angle() -> None:
    one = [0.1, 0.5, 0.4, 0.2, 0.05]
    two = [0.1, 0.6, 0.3, 0.2, None]
    assert least_run([5, 6, 7, 8, 9], [one, two], 1, True) == ((9,), 0.05)
    assert least_run([5, 6, 7, 8, 9], [one, two], 1, False) == ((8,), 0.2)
    assert least_run([5, 6, 7, 8, 9], [one, two], 2, True) == ((5, 6), 0.1)
    assert least_run([5, 6, 7, 8, 9], [one, two], 2, False) == ((7, 8), 0.3)
    assert least_run([5], [[0.1]], 1, False) is None
