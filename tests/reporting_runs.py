"""Finished runs with plausible numbers, for tests of reports: no model is needed."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.records import Cell, Run

DENSE = (3.0, 3.4, 2.9, 3.1, 3.2, 2.8, 3.3, 3.05)
PARAMETERS = 134_515_008


def finished(
    criterion: str,
    sparsity: float,
    delta: float,
    *,
    wobble: float = 0.002,
    source: str = "smollm2-135m",
    text: str = "grimm",
    **more: Any,
) -> Run:
    """A run whose loss is ``delta`` above dense, give or take ``wobble`` by window."""
    losses = [d + delta + wobble * (-1) ** i for i, d in enumerate(DENSE)]
    n, mean = len(DENSE), sum(DENSE) / len(DENSE)
    error = wobble / math.sqrt(n - 1)
    left = round(PARAMETERS * (1 - 0.79 * sparsity))
    numbers = {
        "sparsity": sparsity,
        "perplexity": math.exp(mean + delta),
        "perplexity_low": math.exp(mean + delta - 1.96 * error),
        "perplexity_high": math.exp(mean + delta + 1.96 * error),
        "perplexity_dense": math.exp(mean),
        "delta_nll": delta,
        "delta_nll_stderr": error,
        "window_nll": losses,
        "window_nll_dense": list(DENSE),
        "kl": 0.6 * abs(delta) + 0.001,
        "kl_stderr": 0.001,
        "top1": math.exp(-abs(delta)),
        "top1_stderr": 0.004,
        "parameters": PARAMETERS,
        "nonzero": left,
        "bytes_dense": 4 * PARAMETERS,
        "bytes_shrunk": 4 * PARAMETERS,
        "bytes_sparse": 4 * left + PARAMETERS // 8,
        "windows": n,
        "tokens": n * 255,
        "protocol": {
            "model": source,
            "model_fingerprint": "f00df00df00df00d",
            "text": text,
            "text_fingerprint": "beefbeefbeefbeef",
            "seq_len": 256,
            "windows": n,
            "tokens": n * 255,
            "dtype": "float32",
            "device": "cpu",
            "threads": 2,
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "python": "3.11.7",
        },
        **more,
    }
    kind = "preset" if text == "grimm" else "file"
    cell = Cell(
        source, Recipe(criterion=criterion, sparsity=sparsity), TextSpec(kind, text), 256, n
    )
    name = f"{criterion[:3]}{round(1000 * sparsity)}"
    return Run(name, "s", cell, "done", numbers, created=1.79e9, finished=1.79e9, attempts=1)


def sweep(
    source: str = "smollm2-135m",
    text: str = "grimm",
    criteria: tuple[str, str] = ("wanda", "magnitude"),
) -> list[Run]:
    """Two methods, one a little worse everywhere; the price climbs as in real sweeps."""
    price = {0.05: 0.001, 0.1: 0.004, 0.2: 0.02, 0.3: 0.06, 0.4: 0.17, 0.5: 0.45, 0.6: 1.2}
    found = []
    for criterion, factor in zip(criteria, (1.0, 1.6), strict=True):
        for sparsity, delta in price.items():
            found.append(finished(criterion, sparsity, factor * delta, source=source, text=text))
    return found


# where a system keeps fonts, and the names of Arial's equals and of Chinese ones, the best first
FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/System/Library/Fonts",
    "C:/Windows/Fonts",
)
FONTS = {
    "en": ("LiberationSans-Regular", "Arial", "arial", "DejaVuSans"),
    "zh": ("NotoSansCJK-Regular", "NotoSansSC-Regular", "msyh", "wqy-microhei"),
}


@cache
def font_file(language: str) -> Path | None:
    """A font of this machine for a language, or None."""
    files = {path.stem: path for folder in FOLDERS for path in Path(folder).rglob("*.[to]t[fc]")}
    return next((files[name] for name in FONTS[language] if name in files), None)
