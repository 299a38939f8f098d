"""Figures: the numbers drawn are the numbers given, hostile names stay text, contrast holds."""

from __future__ import annotations

import json

import pytest

from prune_core.figures.attention import importance_map, pattern_grid
from prune_core.figures.layers import influence_bars
from prune_core.figures.overview import model_picture, tiles
from prune_core.figures.theme import Look, escape, log_ticks, visible
from prune_core.figures.weights import histogram, ridges
from prune_core.models.info import BlockInfo, LayerInfo, ModelInfo

LOOKS = [Look(), Look(dark=True), Look(scale=1.4)]


class Words(dict[str, str]):
    """Every text a figure asks for, as its own name."""

    def __missing__(self, key: str) -> str:
        return key


def model() -> ModelInfo:
    blocks = tuple(BlockInfo(i, "decoder", i, 4, 2, 8, 0, 48, 0) for i in range(3))
    sizes = {"attn.q": (32, 32), "attn.k": (16, 32), "attn.o": (32, 32), "mlp.up": (48, 32)}
    layers = tuple(
        LayerInfo(f"b{i}.{role}", i, role, *size) for i in range(3) for role, size in sizes.items()
    )
    prunable = sum(layer.rows * layer.columns for layer in layers)
    return ModelInfo(
        source="tiny-llama",
        title="Tiny",
        fingerprint="f",
        family="llama",
        kind="decoder",
        has_language_head=True,
        has_chat_template=False,
        parameters=prunable,
        prunable=prunable,
        bytes_in_memory=4 * prunable,
        dtype="float32",
        device="cpu",
        context=64,
        vocabulary=96,
        hidden_size=32,
        tied_embeddings=True,
        quantized=None,
        license="",
        provenance="",
        warnings=(),
        blocks=blocks,
        layers=layers,
        load_seconds=0.0,
    )


def layer(name: str, counts: list[int], removed: list[int], cut: float | None) -> dict[str, object]:
    return {
        "name": name,
        "block": 0,
        "role": "mlp.up",
        "counts": counts,
        "removed_counts": removed,
        "cut": cut,
        "numel": sum(counts),
        "removed": sum(removed),
    }


def test_tiles_hold_every_weight_once() -> None:
    info = model()
    found = tiles(info, {}, {})
    assert sum(tile.parameters for tile in found) == info.prunable
    assert [tile.part for tile in found[:5]] == ["self"] * 4 + ["mlp"]
    widths = {tile.part: tile.width / tile.parameters for tile in found}
    assert widths["self"] == pytest.approx(widths["mlp"])


def test_tiles_show_what_is_removed() -> None:
    found = tiles(
        model(), {"b1.mlp.up": 48 * 32 // 4, "b1.attn.q": 2560 // 10}, {"self": ((2, 3),)}
    )
    removed = {(tile.block, tile.part, tile.head): tile.removed for tile in found}
    assert removed[1, "mlp", -1] == 0.25
    assert removed[1, "self", 0] == pytest.approx(0.1)
    assert removed[2, "self", 3] == 1.0
    assert removed[2, "self", 2] == removed[0, "mlp", -1] == 0.0


@pytest.mark.parametrize("tint", ["parameters", "sparsity"])
def test_picture_has_a_bar_per_tile(tint: str) -> None:
    info = model()
    found = tiles(info, {}, {})
    figure = model_picture(info, found, Look(), tint=tint, words=Words())
    assert sum(len(trace.x) for trace in figure.data) == len(found)


def test_histogram_stacks_to_the_counts() -> None:
    counts, removed = [5, 4, 3, 1], [5, 2, 0, 0]
    figure = histogram(
        [0, 1, 2, 3, 4], layer("x", counts, removed, 1.5), Look(), log=False, words=Words()
    )
    drawn = {trace.name: list(trace.y) for trace in figure.data}
    assert drawn["removed"] == removed
    assert [a + b for a, b in zip(drawn["removed"], drawn["kept"], strict=True)] == counts
    assert figure.layout.shapes[0].x0 == 1.5
    assert figure.layout.xaxis.title.text == "x"


def test_dense_histogram_has_no_cut() -> None:
    figure = histogram([0, 1, 2], layer("x", [3, 1], [0, 0], None), Look(), log=True, words=Words())
    assert not figure.layout.shapes
    assert figure.layout.yaxis.type == "log"


def test_a_layer_that_goes_whole_has_no_cut() -> None:
    """Of a dropped block: its largest weight is no threshold."""
    row = layer("x", [3, 1], [3, 1], 1.4)
    figure = histogram([0, 1, 2], row, Look(), log=False, words=Words())
    assert not figure.layout.shapes
    figure = ridges([0, 1, 2], [row], Look(), selected="", log=False, words=Words())
    assert "cut" not in figure.data[-1].hovertext[0]


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.12, 0.16), (0.031, 0.28), (0.004, 0.7), (0.9, 1.1), (1e-9, 2.0), (2e-8, 9e-8), (3e4, 8e6)],
)
def test_a_logarithmic_axis_has_readable_ticks(low: float, high: float) -> None:
    values, texts = log_ticks(low, high)
    assert 3 <= len(values) <= 9
    assert all(low <= value <= high for value in values)
    assert len(set(texts)) == len(values)
    assert max(len(text.replace("<sup>", "").replace("</sup>", "")) for text in texts) <= 7


def test_a_logarithmic_axis_says_its_numbers_plainly() -> None:
    assert log_ticks(0.02, 0.3)[1] == ["0.02", "0.05", "0.1", "0.2"]
    assert log_ticks(1e-6, 1.0)[1][:3] == ["10<sup>-6</sup>", "10<sup>-5</sup>", "0.0001"]
    assert log_ticks(3e-7, 6e-7)[1][0] == "3\u00d710<sup>-7</sup>"
    assert log_ticks(0.7, 0.7)[1] == ["0.7"]


@pytest.mark.parametrize("influence", [[0.11, 0.12, 0.13], [0.2, 0.2], [0.0, 0.4, 0.002], [0.3]])
def test_every_influence_has_a_bar_and_an_axis(influence: list[float]) -> None:
    axis = influence_bars(influence, [], Look(), words=Words()).layout.yaxis
    low, high = (10**end for end in axis.range)
    assert low < max(min(influence), 1e-9) and high > max(influence)
    assert len([tick for tick in axis.tickvals if low <= tick <= high]) >= 3


def test_ridges_are_clickable_and_ordered() -> None:
    rows = [layer(f"layer{i}", [9, 3, 1], [0, 0, 0], None) for i in range(3)]
    figure = ridges([0, 1, 2, 3], rows, Look(), selected="layer1", log=False, words=Words())
    targets = figure.data[-1]
    assert {point[0] for point in targets.customdata} == {"layer0", "layer1", "layer2"}
    heights = {point[0]: y for point, y in zip(targets.customdata, targets.y, strict=True)}
    assert heights["layer0"] > heights["layer1"] > heights["layer2"]
    assert sum(trace.line.color == Look().text for trace in figure.data) == 1


def test_importance_map_keeps_every_head_in_its_place() -> None:
    site = {"scores": [[1.0, 2.0], [3.0]], "blocks": [4, 5], "group_size": 1, "kind": "self"}
    figure = importance_map(site, Look(), selected=(5, 0), dropped=[(4, 1)], words=Words())
    heat = figure.data[0]
    assert [list(row) for row in heat.z] == [[1.0, 2.0], [3.0, None]]
    cells = figure.data[1]
    assert [list(point) for point in cells.customdata] == [[4, 0], [4, 1], [5, 0]]
    crosses = figure.data[-1]
    assert (list(crosses.x), list(crosses.y)) == ([1], [0])


def test_dropped_heads_of_other_blocks_are_not_marked() -> None:
    site = {"scores": [[1.0, 2.0]], "blocks": [4], "group_size": 1, "kind": "cross"}
    figure = importance_map(site, Look(), selected=None, dropped=[(3, 1)], words=Words())
    assert len(figure.data) == 2


def test_the_important_heads_have_the_bright_end_of_the_scale() -> None:
    site = {"scores": [[1.0, 2.0]], "blocks": [0], "group_size": 1, "kind": "self"}
    for low in (False, True):
        figure = importance_map(
            site, Look(), selected=None, dropped=[], words=Words(), low_matters=low
        )
        assert figure.data[0].reversescale is low


def test_groups_are_named() -> None:
    site = {"scores": [[1.0] * 6], "blocks": [0], "group_size": 3, "kind": "self"}
    figure = importance_map(site, Look(), selected=None, dropped=[], words=Words())
    assert [a.text for a in figure.layout.annotations] == ["group 0", "group 1"]


@pytest.mark.parametrize("look", LOOKS)
def test_hostile_tokens_stay_text(look: Look) -> None:
    token = '<a href="javascript:alert(1)">x</a>'
    figure = pattern_grid([[1.0]], [token], [token], look, words=Words())
    assert "<a" not in json.dumps(json.loads(figure.to_json()), ensure_ascii=False)
    row = layer("<img src=x>", [2, 1], [0, 0], None)
    figure = ridges([0, 1, 2], [row], look, selected="", log=False, words=Words())
    assert "<img" not in "".join(figure.data[-1].hovertext)


def test_hidden_characters_become_visible() -> None:
    assert visible("a\u202eb\x00") == "a·b·"
    assert visible("  ") == "␣␣"
    assert visible(" the") == " the"
    assert visible("x" * 70, 5) == "xxxxx…"
    assert escape("a<b&\n") == "a&lt;b&amp;⏎"


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("look", LOOKS[:2], ids=["light", "dark"])
def test_type_has_contrast(look: Look) -> None:
    for ground in (look.paper, look.surface):
        for color in (look.text, look.muted):
            low, high = sorted((luminance(ground), luminance(color)))
            assert (high + 0.05) / (low + 0.05) >= 4.5


def test_fine_bins_are_joined_and_no_weight_is_lost() -> None:
    bins = 1000
    counts = [bins - index for index in range(bins)]
    removed = [count if index < 300 else 0 for index, count in enumerate(counts)]
    edges = [index / bins for index in range(bins + 1)]
    figure = histogram(edges, layer("x", counts, removed, 0.3), Look(), log=False, words=Words())
    drawn = {trace.name: list(trace.y) for trace in figure.data}
    assert len(drawn["kept"]) <= 128
    assert sum(drawn["removed"]) == sum(removed)
    assert sum(drawn["kept"]) == pytest.approx(sum(counts) - sum(removed), rel=0.002)


def test_many_cuts_draw_no_line() -> None:
    """N:M removes a part of every bin: its largest removed magnitude is no threshold."""
    counts, removed = [8, 6, 4, 2], [6, 3, 1, 1]
    edges = [0.0, 1.0, 2.0, 3.0, 4.0]
    figure = histogram(edges, layer("x", counts, removed, 3.5), Look(), log=False, words=Words())
    assert not figure.layout.shapes
