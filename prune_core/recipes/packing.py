"""Several recipes in one short text that fits a link. No torch here."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from prune_core.criteria import CRITERIA
from prune_core.errors import RecipeError
from prune_core.recipes.recipe import Recipe

NAMES = "ABCD"
"""Slots of a comparison."""

MAX_PACKED = 6000
"""Characters: a link of this length still passes through chat programs, proxies and servers."""

MAX_JSON = 200_000
VERSION = "1"

# frequent text, most frequent last: never change it without a new VERSION
_FREQUENT = (
    b'"schema": 1, "drop_neurons":[[0,"drop_attention":[,"drop_mlp":[,"overrides":{"role:mlp.down":'
    b'"block:"layer:model.layers."criterion_args":{"value":0.0"allocation_args":"manual""per-role"'
    b'"block:4""nm:4:8""nm:2:4""reconstruction":"sparsegpt""sensitivity""owl""erk""global"'
    b'"calibration":{"seed":null,"seq_len":512,"skip":0,"text":{"kind":"preset","value":"andersen"}'
    b',"windows":32},"threshold""random""taylor""fisher""ria""sparsegpt""wanda""drop_blocks":['
    b'"drop_heads":[[0,"allocation":"per-layer""pattern":"per-row","sparsity":0.5},"A":{"criterion'
    b'":"magnitude","B":{"criterion":"wanda","C":{"D":{'
)
_TEXT = re.compile(rf"^{VERSION}[A-Za-z0-9_-]+$")


def pack(recipes: Mapping[str, Recipe]) -> str:
    """Recipes by slot as text for a link: letters, digits, ``-`` and ``_``; empty for none.

    Raises:
        RecipeError: more than :data:`MAX_PACKED` characters, or a name that is no slot.
    """
    if not recipes:
        return ""
    if not set(recipes) <= set(NAMES):
        raise RecipeError("a comparison has the slots {known:list}.", known=NAMES)
    content = {name: _short(recipes[name]) for name in sorted(recipes)}
    squeeze = zlib.compressobj(9, wbits=-15, zdict=_FREQUENT)
    text = json.dumps(content, separators=(",", ":"), sort_keys=True)
    data = squeeze.compress(text.encode()) + squeeze.flush()
    packed = VERSION + base64.urlsafe_b64encode(data).decode().rstrip("=")
    if len(packed) > MAX_PACKED:
        raise RecipeError(
            "These recipes take {count} characters of a link, at most {most} fit; compare them as "
            "files on the command line.",
            count=len(packed),
            most=MAX_PACKED,
        )
    return packed


def unpack(packed: str) -> dict[str, Recipe]:
    """Undo :func:`pack`: anything may have happened to a link on its way.

    Raises:
        RecipeError: too long, damaged, or a recipe that cannot be.
    """
    if not packed:
        return {}
    damaged = RecipeError("The link's comparison is damaged; copy the whole link again.")
    if len(packed) > MAX_PACKED or not _TEXT.match(packed):
        raise damaged
    try:
        data = base64.urlsafe_b64decode(packed[1:] + "=" * (-len(packed[1:]) % 4))
        expand = zlib.decompressobj(wbits=-15, zdict=_FREQUENT)
        text = expand.decompress(data, MAX_JSON)
        if not expand.eof or expand.unused_data:
            raise damaged
        content = json.loads(text)
    except (ValueError, zlib.error, RecursionError):
        raise damaged from None
    if not isinstance(content, dict) or not set(content) <= set(NAMES):
        raise damaged
    return {name: _recipe(content[name], damaged) for name in sorted(content)}


def _short(recipe: Recipe) -> dict[str, Any]:
    plain = Recipe().to_dict()
    return {k: v for k, v in recipe.to_dict().items() if k not in plain or plain[k] != v}


def _recipe(content: object, damaged: RecipeError) -> Recipe:
    if not isinstance(content, dict) or not isinstance(content.get("criterion", ""), str):
        raise damaged
    recipe = Recipe.from_dict({**Recipe().to_dict(), **content})
    CRITERIA[recipe.criterion]  # an unknown one is told now, not by a failed job
    return recipe
