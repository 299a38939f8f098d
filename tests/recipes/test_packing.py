"""Recipes in a link: there and back exactly, short, and nothing damaged gets through."""

from __future__ import annotations

import base64
import json
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from prune_core.errors import PruneCoreError, RecipeError
from prune_core.recipes import packing
from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.packing import MAX_PACKED, pack, unpack
from prune_core.recipes.recipe import Recipe

RECIPES = {
    "A": Recipe(sparsity=0.29999999999999993),
    "B": Recipe("wanda", "per-row", "owl", 0.5, allocation_args={"m": 7.0}),
    "C": Recipe(
        "threshold",
        criterion_args={"value": 0.0421},
        drop_heads=((0, 1), (3, 0)),
        drop_blocks=(4, 5),
        calibration=Calibration(TextSpec("inline", "Äpfel 苹果 \"'<b>"), 8, 128, 7, 10, "dense"),
    ),
    "D": Recipe(sparsity=0.1, overrides={"role:mlp.down": 0.3}).with_pattern("nm:2:4"),
}


def test_there_and_back_exactly() -> None:
    for names in ("A", "AB", "BD", "ABCD", "D"):
        chosen = {name: RECIPES[name] for name in names}
        found = unpack(pack(chosen))
        assert found == chosen
        assert [r.fingerprint for r in found.values()] == [r.fingerprint for r in chosen.values()]


def test_nothing_is_nothing() -> None:
    assert pack({}) == ""
    assert unpack("") == {}


def test_four_usual_recipes_are_short() -> None:
    usual = {
        name: Recipe(criterion, "per-row", sparsity=0.5)
        for name, criterion in zip("ABCD", ("magnitude", "wanda", "ria", "random"), strict=True)
    }
    packed = pack(usual)
    assert len(packed) < 160
    assert packed.replace("-", "").replace("_", "").isalnum()


@settings(max_examples=60)
@given(some.data())
def test_damage_is_told_never_a_crash(data: some.DataObject) -> None:
    packed = pack(RECIPES)
    at = data.draw(some.integers(0, len(packed) - 1))
    other = data.draw(some.sampled_from("AZaz09-_ %\x00é"))
    cut = data.draw(some.integers(0, len(packed)))
    for text in (packed[:at] + other + packed[at + 1 :], packed[:cut], packed + other):
        found: dict[str, Recipe] = {}
        with suppress(PruneCoreError):  # any other exception fails
            found = unpack(text)
        # a change that still reads must read as recipes that can be packed again
        assert unpack(pack(found)) == found


def squeezed(content: bytes) -> str:
    squeeze = zlib.compressobj(9, wbits=-15, zdict=packing._FREQUENT)
    data = squeeze.compress(content) + squeeze.flush()
    return packing.VERSION + base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"E":{}}',
        b'{"A":[]}',
        b'{"A":{"sparsity":7}}',
        b'{"A":{"sparsity":NaN}}',
        b'{"A":{"criterion":"wishful"}}',
        b'{"A":{"criterion":5}}',
        b'{"A":{"unknown":1}}',
        b'{"A":{"schema":9}}',
        b"[" * 100_000,
        json.dumps({"A": {"overrides": {f"layer:{i}": 0.5 for i in range(20_000)}}}).encode(),
    ],
)
def test_what_is_no_comparison_is_refused(content: bytes) -> None:
    with pytest.raises(PruneCoreError):
        unpack(squeezed(content))


def test_a_bomb_is_not_blown_up() -> None:
    bomb = squeezed(b'{"A":"' + b"x" * 3_000_000 + b'"}')
    assert len(bomb) < MAX_PACKED
    with pytest.raises(RecipeError, match="damaged"):
        unpack(bomb)


def test_what_does_not_fit_a_link_is_refused_with_its_size() -> None:
    neurons = tuple((i % 30, i * 7919 % 1536) for i in range(6000))
    with pytest.raises(RecipeError, match="at most 6000 fit"):
        pack({"A": Recipe(drop_neurons=neurons)})
    with pytest.raises(RecipeError, match="damaged"):
        unpack("1" + "A" * MAX_PACKED)
    with pytest.raises(RecipeError, match="slots"):
        pack({"E": Recipe()})
