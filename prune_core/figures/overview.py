"""The model as a picture: one row per block, its attention heads and its MLP as tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from prune_core.figures.theme import Look, color_bar, escape, style
from prune_core.models.info import BlockInfo, ModelInfo

WIDTH = 100.0  # of the widest block, on the picture's own axis
GAP = 1.2
ROW, TALL_ROW = 15, 30  # pixels of a block's row in models of many and of few blocks
PARTS = ("self", "cross", "mlp")
_PART_OF = {"attn": "self", "cross": "cross", "mlp": "mlp"}


@dataclass(frozen=True, slots=True)
class Tile:
    """One head or MLP of the picture: its width shows its number of weights.

    Attributes:
        block: flat index.
        part: ``self``, ``cross`` or ``mlp``.
        head: -1 for an MLP.
        start, width: on the picture's own axis.
        parameters: weights; of a head its attention's weights shared evenly.
        removed: share of 1.
    """

    block: int
    part: str
    head: int
    start: float
    width: float
    parameters: float
    removed: float


def tiles(
    model: ModelInfo,
    removed: Mapping[str, int],
    dropped: Mapping[str, Sequence[tuple[int, int]]],
) -> list[Tile]:
    """Cut a model into tiles, in block order.

    Args:
        model: the loaded model.
        removed: layer name to weights removed; layers left out lose nothing.
        dropped: by part, (block, head) pairs whose output is removed; shown as wholly removed.
    """
    sums: dict[tuple[int, str], list[int]] = {}
    for layer in model.layers:
        entry = sums.setdefault((layer.block, _PART_OF[layer.role.split(".")[0]]), [0, 0])
        entry[0] += layer.rows * layer.columns
        entry[1] += removed.get(layer.name, 0)
    totals: dict[int, int] = {}
    for (index, _), (weights, _) in sums.items():
        totals[index] = totals.get(index, 0) + weights
    unit = WIDTH / max([*totals.values(), 1])
    removed_parts = {(part, *pair) for part, pairs in dropped.items() for pair in pairs}
    result = []
    for block in model.blocks:
        start = 0.0
        for part in PARTS:
            weights, lost = sums.get((block.index, part), (0, 0))
            if not weights:
                continue
            heads = {"self": block.heads, "cross": block.cross_heads}.get(part, 0)
            each = weights * unit / max(1, heads)
            for head in range(heads) if heads else (-1,):
                whole = (part, block.index, head) in removed_parts
                result.append(
                    Tile(
                        block=block.index,
                        part=part,
                        head=head,
                        start=start + max(0, head) * each,
                        width=each,
                        parameters=weights / max(1, heads),
                        removed=1.0 if whole else lost / weights,
                    )
                )
            start += weights * unit + GAP
    return result


def model_picture(
    model: ModelInfo, pieces: Sequence[Tile], look: Look, *, tint: str, words: Mapping[str, str]
) -> go.Figure:
    """Draw the tiles, colored by what they are or by the share removed.

    Args:
        model: for the names of blocks.
        pieces: from :func:`tiles`.
        look: colors and scale.
        tint: ``parameters`` (a color per part; the width is the number) or ``sparsity``.
        words: ``title``, ``block``, ``head``, ``mlp``, ``self``, ``cross``, ``encoder``,
            ``decoder``, ``parameters``, ``removed``, ``color`` in the reader's language.
    """
    rows = _rows(model)
    figure = go.Figure()
    for part, color in zip(PARTS, look.categories, strict=False):
        mine = [tile for tile in pieces if tile.part == part]
        if not mine:
            continue
        inset = [0.3 if tile.width > 1 else 0.1 * tile.width for tile in mine]
        figure.add_bar(
            orientation="h",
            base=[tile.start + gap / 2 for tile, gap in zip(mine, inset, strict=True)],
            x=[tile.width - gap for tile, gap in zip(mine, inset, strict=True)],
            y=[rows[tile.block] for tile in mine],
            width=0.76,
            name=words[part],
            marker=_removed_colors(mine, look, words) if tint == "sparsity" else {"color": color},
            hovertext=[_hover(model, tile, words) for tile in mine],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    by_sparsity = tint == "sparsity"
    row = ROW if len(model.blocks) > 16 else TALL_ROW
    height = 110 + row * round(max(rows.values(), default=0) + 1)
    style(figure, look, title=words["title"], height=max(200, height), legend=not by_sparsity)
    figure.update_traces(marker_cornerradius=2, marker_line_width=0, opacity=0.9)
    figure.update_layout(barmode="overlay", bargap=0, margin={"t": round(76 * look.scale)})
    figure.update_layout(margin={"b": round(24 * look.scale)}, yaxis_title_text=words["block"])
    ticks = [b for b in model.blocks if len(model.blocks) <= 16 or b.number % 5 == 0]
    figure.update_yaxes(
        autorange="reversed",
        showgrid=False,
        showline=False,
        tickvals=[rows[b.index] for b in ticks],
        ticktext=[_block_name(model, b, words) for b in ticks],
    )
    widest = max((tile.start + tile.width for tile in pieces), default=1.0)
    figure.update_xaxes(showgrid=False, showticklabels=False, range=[0, widest], showline=False)
    if by_sparsity:
        _headings(figure, pieces, look, words)
    return figure


def _removed_colors(mine: Sequence[Tile], look: Look, words: Mapping[str, str]) -> dict[str, Any]:
    return {
        "color": [100 * tile.removed for tile in mine],
        "colorscale": look.intensity,
        "cmin": 0,
        "cmax": 100,
        "showscale": mine[0].part == "mlp",
        "colorbar": color_bar(words["color"], look, ticksuffix=" %", tickvals=[0, 50, 100]),
    }


def _rows(model: ModelInfo) -> dict[int, float]:
    """Row of each block; a gap parts encoder and decoder."""
    stacks = list(dict.fromkeys(block.stack for block in model.blocks))
    return {block.index: block.index + 1.2 * stacks.index(block.stack) for block in model.blocks}


def _block_name(model: ModelInfo, block: BlockInfo, words: Mapping[str, str]) -> str:
    if model.kind == "encoder-decoder":
        return f"{words[block.stack]} {block.number}"
    return str(block.number)


def _hover(model: ModelInfo, tile: Tile, words: Mapping[str, str]) -> str:
    where = f"{words['block']} {_block_name(model, model.blocks[tile.block], words)}"
    what = words[tile.part]
    if tile.head >= 0:
        what += f" · {words['head']} {tile.head}"
    facts = f"{tile.parameters:,.0f} {words['parameters']}"
    lost = f"{100 * tile.removed:.1f} % {words['removed']}"
    return f"<b>{escape(where)}</b> · {escape(what)}<br>{facts}<br>{lost}"


def _headings(
    figure: go.Figure, pieces: Sequence[Tile], look: Look, words: Mapping[str, str]
) -> None:
    """Names of the parts under the lowest row, where no legend says them."""
    for part in PARTS:
        ends = [(tile.start, tile.start + tile.width) for tile in pieces if tile.part == part]
        if ends:
            figure.add_annotation(
                x=(min(start for start, _ in ends) + max(end for _, end in ends)) / 2,
                y=0,
                yref="paper",
                yanchor="top",
                text=words[part],
                showarrow=False,
                font={"size": look.size(12), "color": look.muted},
            )
