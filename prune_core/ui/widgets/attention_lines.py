"""Attention as lines between two columns of tokens; hover or focus a token and only its lines stay.

After BertViz (Vig 2019, arXiv 1906.05714). Drawn by a small component: its node stays mounted, and
hovering costs no trip to the server. Token texts are set as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Sequence

from prune_core.ui.widgets.mounting import component

ROW = 26  # pixels of a token's row
TALLEST = 560  # rows of a longer sentence get narrower, down to the smallest legible
NARROWEST = 15


def attention_lines(
    pattern: Sequence[Sequence[float]],
    tokens: Sequence[str],
    key_tokens: Sequence[str],
    *,
    queries: str,
    keys: str,
    alt: str,
    scale: float = 1.0,
) -> None:
    """Draw one head's attention as lines from each query token to the keys it looks at.

    Args:
        pattern: queries x keys, rows summing to 1; shares below 1 % are left out.
        tokens: texts of the queries, made visible (``theme.visible``).
        key_tokens: texts of the keys.
        queries: heading of the left column.
        keys: heading of the right column.
        alt: says in words what is drawn.
        scale: factor on type and rows.
    """
    longest = max(len(tokens), len(key_tokens), 1)
    row = round(scale * max(NARROWEST, min(ROW, TALLEST / longest)))
    component("attention_lines")(
        key="_attention_lines",
        data={
            "queries": list(tokens),
            "keys": list(key_tokens),
            "shares": [[round(share, 4) for share in row] for row in pattern],
            "labels": {"queries": queries, "keys": keys, "alt": alt},
            "row": row,
            "type": min(15 * scale, 0.85 * row),
        },
    )
