"""Prunescope's library: prune a transformer language model, measure it, write it down.

>>> import prune_core as pc
>>> model = pc.load("tiny-llama")
>>> pruned = model.prune(pc.Recipe(criterion="magnitude", sparsity=0.5))

See ``prune_core.api`` for what a model does. Never imports Streamlit, and nothing at all until a
name is asked for: the web process uses ``prune_core.engine.client`` and ``prune_core.figures``,
which must not pull in torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_core.api import CRITERIA, Calibration, Recipe, TextSpec, load, sweep

__version__ = "0.1.0"

__all__ = ["CRITERIA", "Calibration", "Recipe", "TextSpec", "load", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from prune_core import api

    value = globals()[name] = getattr(api, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
