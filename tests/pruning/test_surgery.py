"""Surgery gives what masking gives: every family, heads, key/value groups, neurons, blocks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from prune_core.engine.core import Core
from prune_core.errors import RecipeError
from prune_core.exporting.cost import parameter_counts, plain_copy
from prune_core.exporting.formats import format_problem
from prune_core.exporting.shrink import shrink, skeleton
from prune_core.models.families import FAMILIES, SUPPORTED
from prune_core.models.handle import ModelHandle, build_handle
from prune_core.models.reading import quiet
from prune_core.models.tiny import tiny_model, tiny_tokenizer
from prune_core.recipes.parts import NeuronShare
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out

WHAT = ("heads", "groups", "neurons", "blocks", "all")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def every() -> Mapping[str, ModelHandle]:
    """One small model of each family that can be read, with four heads and three blocks."""
    found = {}
    for family in sorted(SUPPORTED):
        found[family] = build_handle(
            tiny_model(family),
            tiny_tokenizer(),
            source=family,
            title=family,
            fingerprint=f"{family} for surgery",
        )
    return found


def recipe_for(handle: ModelHandle, what: str) -> Recipe:
    """Equal in every block; heads are one of each key/value group where groups have several."""
    blocks = handle.structure.blocks
    attention = blocks[0].attention
    assert attention is not None
    size = attention.group_size
    one_each = range(0, attention.num_heads, size) if size > 1 else (1,)
    heads = one_each if what == "heads" else range(size) if what in ("groups", "all") else ()
    return Recipe(
        sparsity=0.2,
        drop_heads=tuple((b.index, h) for b in blocks for h in heads),
        drop_cross_heads=tuple(
            (b.index, b.cross_attention.num_heads - 1 - h)
            for b in blocks
            if b.cross_attention is not None
            for h in heads
        ),
        drop_neurons=tuple((b.index, n) for b in blocks for n in (0, 5, 11))
        if what in ("neurons", "all")
        else (),
        drop_blocks=(blocks[-1].index,) if what in ("blocks", "all") else (),
    )


def answer(handle: ModelHandle, model: Any) -> Tensor:
    ids = torch.randint(5, 200, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        if handle.structure.kind == "encoder-decoder":
            found = model(input_ids=ids[:, :12], decoder_input_ids=ids[:, 12:])
        else:
            found = model(input_ids=ids)
    values: Tensor = found.logits if hasattr(found, "logits") else found.last_hidden_state
    return values


def masked(handle: ModelHandle, recipe: Recipe) -> LoadedModel:
    loaded = LoadedModel(handle)
    loaded.copy.apply(work_out(loaded, recipe))
    return loaded


# no place in the configuration for the width of a head, and a norm over all heads
NO_HEADS = {name for name, f in FAMILIES.items() if f.stacks[0].head_dim is None} | {"olmo2"}
NO_NEURONS = {"bloom", "mpt"}  # their MLPs are four times as wide as the model, come what may


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("family", sorted(SUPPORTED))
def test_cutting_answers_as_masking(
    family: str, what: str, every: Mapping[str, ModelHandle], tmp_path: Path
) -> None:
    handle = every[family]
    recipe = recipe_for(handle, what)
    loaded = masked(handle, recipe)
    if (what in ("heads", "groups", "all") and family in NO_HEADS) or (
        what in ("neurons", "all") and family in NO_NEURONS
    ):
        with pytest.raises(RecipeError, match="masked") as refused:
            shrink(loaded.copy.model, handle.structure, recipe)
        assert format_problem("shrunk", handle.info, recipe) == str(refused.value)
        return
    assert format_problem("shrunk", handle.info, recipe) is None
    small = shrink(loaded.copy.model, handle.structure, recipe)
    assert parameter_counts(small)["parameters"] < handle.info.parameters
    with quiet():
        small.save_pretrained(tmp_path / "out")
        again = type(handle.model).from_pretrained(tmp_path / "out").eval()
    ours, theirs = answer(handle, loaded.copy.model), answer(handle, again)
    assert float((ours - theirs).abs().max()) < 1e-4
    assert float((ours - answer(handle, handle.model)).abs().max()) > 1e-3
    shapes = skeleton(handle.model, handle.structure, recipe)
    assert sum(p.numel() for p in shapes.parameters()) == parameter_counts(again)["parameters"]


def test_cutting_leaves_the_model_alone(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    before = {k: v.clone() for k, v in handle.model.state_dict().items()}
    config = copy.deepcopy(handle.model.config.to_dict())
    recipe = recipe_for(handle, "all")
    small = shrink(masked(handle, recipe).copy.model, handle.structure, recipe)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(v, before[k]) for k, v in handle.model.state_dict().items())
    assert handle.model.config.to_dict() == config


def all_of(handle: ModelHandle, what: str, blocks: list[int]) -> tuple[tuple[int, int], ...]:
    structure = handle.structure
    found = []
    for index in blocks:
        block = structure.blocks[index]
        assert block.attention is not None
        count = block.attention.num_heads if what == "heads" else block.intermediate_size
        found += [(index, part) for part in range(count)]
    return tuple(found)


@pytest.mark.parametrize("what", ["heads", "neurons"])
@pytest.mark.parametrize("where", ["block", "model"])
def test_nothing_left_of_a_block_or_of_the_model(
    what: str, where: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles["tiny-llama"]
    blocks = [0] if where == "block" else [b.index for b in handle.structure.blocks]
    recipe = Recipe(**{f"drop_{what}": all_of(handle, what, blocks)})  # type: ignore[arg-type]
    loaded = masked(handle, recipe)
    assert torch.isfinite(answer(handle, loaded.copy.model)).all()
    with pytest.raises(RecipeError, match=f"no {what[:-1]} would be left .*masked"):
        shrink(loaded.copy.model, handle.structure, recipe)


def test_a_model_of_one_block() -> None:
    model = tiny_model("llama", num_hidden_layers=1)
    handle = build_handle(
        model, tiny_tokenizer(), source="one", title="one", fingerprint="one block"
    )
    with pytest.raises(RecipeError, match="every block of the model; keep at least one"):
        shrink(model, handle.structure, Recipe(drop_blocks=(0,)))
    assert "no block of the model" in str(
        format_problem("shrunk", handle.info, Recipe(drop_blocks=(0,)))
    )
    recipe = recipe_for(handle, "neurons")
    loaded = masked(handle, recipe)
    small = shrink(loaded.copy.model, handle.structure, recipe)
    difference = answer(handle, small) - answer(handle, loaded.copy.model)
    assert float(difference.abs().max()) < 1e-4


def test_the_encoder_of_two_stacks_is_not_emptied(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-t5"]
    encoder = tuple(b.index for b in handle.structure.blocks if b.stack == "encoder")
    with pytest.raises(RecipeError, match="no block of the encoder would be left"):
        shrink(handle.model, handle.structure, Recipe(drop_blocks=encoder))


@pytest.mark.parametrize(
    ("own", "cross", "reason"),
    [
        (
            [(0, 1), (1, 1), (2, 0), (3, 1), (4, 0)],
            [(2, 0), (3, 0), (4, 0)],
            "share one position bias",
        ),
        ([(0, 1), (1, 1), (2, 0), (3, 0), (4, 0)], [(2, 0), (3, 0)], "drop as many of both"),
        ([], [(2, 0), (3, 0), (4, 0)], "drop as many of both"),
        ([], [(2, 0), (2, 1), (2, 2), (2, 3)], "no head would be left in block 2"),
    ],
)
def test_heads_of_two_stacks_go_together(
    own: list[tuple[int, int]],
    cross: list[tuple[int, int]],
    reason: str,
    handles: Mapping[str, ModelHandle],
) -> None:
    handle = handles["tiny-t5"]
    recipe = Recipe(drop_heads=tuple(own), drop_cross_heads=tuple(cross))
    with pytest.raises(RecipeError, match=reason) as refused:
        shrink(handle.model, handle.structure, recipe)
    assert format_problem("shrunk", handle.info, recipe) == str(refused.value)


def test_heads_that_do_not_divide() -> None:
    model = tiny_model("llama", num_attention_heads=8, num_key_value_heads=8, head_dim=4)
    handle = build_handle(
        model, tiny_tokenizer(), source="eight", title="eight", fingerprint="eight heads"
    )
    for gone, fits in ((5, False), (4, True)):
        heads = tuple((b.index, h) for b in handle.structure.blocks for h in range(gone))
        recipe = Recipe(drop_heads=heads)
        problem = format_problem("shrunk", handle.info, recipe)
        if fits:
            assert problem is None
            shrink(model, handle.structure, recipe)
            continue
        assert problem is not None and "cannot have 3 heads, which do not divide it" in problem
        with pytest.raises(RecipeError, match="do not divide"):
            shrink(model, handle.structure, recipe)


def test_a_share_over_all_blocks_is_no_shape(handles: Mapping[str, ModelHandle]) -> None:
    info = handles["tiny-llama"].info
    for scope, fits in (("block", True), ("global", False)):
        problem = format_problem("shrunk", info, Recipe(neurons=NeuronShare(0.2, scope=scope)))
        assert (problem is None) is fits
        assert fits or "share of each block, or export it as masked" in str(problem)


@pytest.mark.parametrize(
    "recipe", [Recipe(drop_blocks=(99,)), Recipe(drop_heads=((0, 99),)), Recipe(drop_mlp=(7,))]
)
def test_a_recipe_made_for_another_model(
    recipe: Recipe, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles["tiny-llama"]
    with pytest.raises(RecipeError, match=r"this model has no .* made for another one"):
        shrink(handle.model, handle.structure, recipe)


def in_double(model: Any) -> Any:
    """All in float64, the norms as well: transformers' own compute those in float32."""
    model = model.double()
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = partial(exact_norm, module)
    return model


def exact_norm(norm: Any, x: Tensor) -> Tensor:
    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
    return cast(Tensor, norm.weight * x * scale)


@pytest.fixture(scope="module")
def real() -> LoadedModel:
    return Core().loaded("smollm2-135m")


@pytest.mark.real
@pytest.mark.parametrize("what", WHAT)
def test_cutting_answers_as_masking_in_the_real_model(what: str, real: LoadedModel) -> None:
    """The working copy leaves out the products of columns that are gone, as the smaller model does.

    A checkpoint with zeros (``masked``) sums in another order, and massive activations magnify the
    rounding: up to 2e-3 of a logit on random tokens, where the model's float32 answer is up to 4e-3
    away from its float64 answer. There the two are the same function, to 1e-8.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PRUNE_CACHE_DIR")
        recipe = recipe_for(real.handle, "groups" if what == "heads" else what)
        if what == "heads":  # one of three in each group
            pairs = tuple((b, h) for b in range(30) for h in (0, 3, 6))
            recipe = Recipe(drop_heads=pairs)
        real.copy.apply(work_out(real, recipe))
    small = shrink(real.copy.model, real.handle.structure, recipe)
    ours, theirs = answer(real.handle, real.copy.model), answer(real.handle, small)
    assert float((ours - theirs).abs().max()) < 1e-4
    assert float((ours - answer(real.handle, real.handle.model)).abs().max()) > 1
    theirs = answer(real.handle, in_double(small))
    del small
    ours = answer(real.handle, in_double(plain_copy(real.handle, real.copy.model)))
    assert float((ours - theirs).abs().max()) < 1e-8


@pytest.mark.parametrize("gone", [(0,), (4,), (0, 4), (0, 1, 4)])
def test_the_position_bias_of_t5_moves_to_the_first_block_left(gone: tuple[int, ...]) -> None:
    """It lies in the first block of each stack and serves them all, on screen too."""
    model = tiny_model("t5", num_layers=4, num_decoder_layers=2)
    handle = build_handle(
        model, tiny_tokenizer(), source="t5", title="t5", fingerprint=f"t5 {gone}"
    )
    recipe = Recipe(drop_blocks=gone, sparsity=0.1)  # 4 is the decoder's first
    assert format_problem("shrunk", handle.info, recipe) is None
    loaded = masked(handle, recipe)
    small = shrink(loaded.copy.model, handle.structure, recipe)
    difference = answer(handle, small) - answer(handle, loaded.copy.model)
    assert float(difference.abs().max()) < 1e-4
    heads = tuple((b.index, 1) for b in handle.structure.blocks)
    cross = tuple((b.index, 3) for b in handle.structure.blocks if b.stack == "decoder")
    both = Recipe(drop_blocks=recipe.drop_blocks, drop_heads=heads, drop_cross_heads=cross)
    loaded = masked(handle, both)
    small = shrink(loaded.copy.model, handle.structure, both)
    difference = answer(handle, small) - answer(handle, loaded.copy.model)
    assert float(difference.abs().max()) < 1e-4
    assert small.generate(torch.tensor([[7, 8, 9]]), max_new_tokens=3).shape[1] > 1


def test_a_t5_that_could_not_write_is_refused() -> None:
    model = tiny_model("t5", num_layers=3, num_decoder_layers=3)
    handle = build_handle(model, tiny_tokenizer(), source="t5", title="t5", fingerprint="t5 3+3")
    recipe = Recipe(drop_blocks=(1,))
    with pytest.raises(
        RecipeError, match=r"2 encoder and 3 decoder blocks .* drop as many of both"
    ):
        shrink(model, handle.structure, recipe)
    assert "2 encoder and 3 decoder" in str(format_problem("shrunk", handle.info, recipe))
    assert format_problem("shrunk", handle.info, Recipe(drop_blocks=(1, 4))) is None


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "bart", "marian"])
def test_a_block_of_zeros_is_not_a_dropped_one_where_norms_follow(
    family: str, every: Mapping[str, ModelHandle]
) -> None:
    handle = every[family]
    recipe = Recipe(drop_blocks=(1,))
    assert "norms still act" in str(format_problem("masked", handle.info, recipe))
    ours = answer(handle, masked(handle, recipe).copy.model)
    zeros = answer(handle, plain_copy(handle, masked(handle, recipe).copy.model))
    assert float((ours - zeros).abs().max()) > 1e-3  # that is why
    halves = Recipe(drop_attention=(1,), drop_mlp=(1,))
    assert format_problem("masked", handle.info, halves) is None
    loaded = masked(handle, halves)
    difference = answer(handle, plain_copy(handle, loaded.copy.model)) - answer(
        handle, loaded.copy.model
    )
    assert float(difference.abs().max()) < 1e-4
