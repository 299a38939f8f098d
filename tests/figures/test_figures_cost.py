"""The figures of costs draw the numbers that they are given."""

from __future__ import annotations

import pytest

from prune_core.figures.cost import short, sizes, speeds
from prune_core.figures.theme import Look

WORDS = {"title": "Sizes", "x": "MB", "exact": "exact", "estimate": "estimate"}
ROWS = [
    ("dense", "dense", 538_060_032.0, False),
    ("bitmask", "zeros", 340_339_056.0, True),
    ("shrunk", "shrunk", 424_800_000.0, False),
]


@pytest.mark.parametrize("dark", [True, False])
def test_sizes(dark: bool) -> None:
    look = Look(dark=dark)
    figure = sizes(ROWS, look, words=WORDS)
    drawn = {
        name: (value, text, color, bar.marker.pattern.shape)
        for bar in figure.data
        for name, value, text, color in zip(bar.y, bar.x, bar.text, bar.marker.color, strict=True)
    }
    assert drawn == {
        "dense": (538.060032, "538.1", look.dense, ""),
        "bitmask": (340.339056, "340.3", look.pruned, "/"),
        "shrunk": (424.8, "424.8", look.categories[2], ""),
    }
    assert list(figure.layout.yaxis.categoryarray) == ["shrunk", "bitmask", "dense"]
    assert len({color for _, _, color, _ in drawn.values()}) == 3
    assert len(sizes(ROWS[:1], look, words=WORDS).data) == 1  # no estimate, no hatching


def test_speeds() -> None:
    dense = {"median": 30.0, "low": 28.0, "high": 31.0, "values": [28.0, 30.0, 31.0]}
    zeros = {"median": 1234.5, "low": 1200.0, "high": 1300.0, "values": [1200.0, 1234.5, 1300.0]}
    models = {"dense": "Dense", "zeros": "Zeros"}
    figure = speeds(
        [("Prefill", {"dense": zeros, "zeros": dense}), ("Decode", {"dense": dense})],
        Look(),
        title="Speed",
        models=models,
    )
    medians = [trace for trace in figure.data if trace.mode == "markers+text"]
    assert [(t.x[0], t.y[0], t.text[0], t.xaxis) for t in medians] == [
        (1234.5, "Dense", "1,234", "x"),
        (30.0, "Zeros", "30.0", "x"),
        (30.0, "Dense", "30.0", "x2"),
    ]
    assert medians[1].error_x.array[0] == 1.0 and medians[1].error_x.arrayminus[0] == 2.0
    repeats = [trace for trace in figure.data if trace.mode == "markers"]
    assert [list(t.x) for t in repeats] == [zeros["values"], dense["values"], dense["values"]]
    assert len({t.marker.symbol for t in medians[:2]}) == 2  # color is never the only sign
    assert [a.text for a in figure.layout.annotations] == ["Prefill", "Decode"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.2643, "0.264"), (12.34, "12.3"), (1985.4, "1,985"), (33966.5, "33,966")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text
