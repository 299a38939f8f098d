"""One head step by step equals what the model itself computes, on every tiny family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from prune_core.analysis.heads.scores import all_sites, attention_pattern
from prune_core.analysis.heads.steps import attention_steps
from prune_core.engine.core import Core
from prune_core.errors import RecipeError, TextError
from prune_core.jobs.heads import AttentionSteps
from prune_core.models.handle import ModelHandle
from prune_core.models.layers import describe
from prune_core.models.tiny import TINY, tiny_model

TOKENS = torch.randint(5, 200, (1, 12), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", sorted(TINY))
def test_steps_are_the_models_own(name: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    model: Any = handle.model
    for block, attention in all_sites(handle.structure):
        inputs: list[torch.Tensor] = []
        hook = model.get_submodule(attention.o).register_forward_pre_hook(
            lambda _module, args, kept=inputs: kept.append(args[0])
        )
        two = handle.structure.kind == "encoder-decoder"
        with torch.no_grad():
            model(input_ids=TOKENS, **({"decoder_input_ids": TOKENS} if two else {}))
        hook.remove()
        pattern = attention_pattern(model, handle.structure, TOKENS, block.index, attention.kind)
        for head in (0, attention.num_heads - 1):
            for query in (0, 7, 11):
                found = attention_steps(
                    model, handle.structure, TOKENS, block.index, head, query, attention.kind
                )
                # each step from the one before, by hand
                products = [
                    sum(q * k for q, k in zip(found["query"], key, strict=True))
                    for key in found["keys"]
                ]
                assert found["products"] == pytest.approx(products, abs=1e-4)
                scaled = [found["scale"] * x for x in found["products"]]
                assert found["scaled"] == pytest.approx(scaled, abs=1e-4)
                powers = [0.0 if x is None else math.exp(x) for x in found["scores"]]
                shares = [power / sum(powers) for power in powers]
                assert found["shares"] == pytest.approx(shares, abs=1e-5)
                output = [
                    sum(p * v[i] for p, v in zip(shares, found["values"], strict=True))
                    for i in range(found["width"])
                ]
                assert found["output"] == pytest.approx(output, abs=1e-5)
                # and the model's own attention
                assert found["shares"] == pytest.approx(pattern[head, query].tolist(), abs=1e-5)
                own = inputs[0][0, query, attention.columns(head)].tolist()
                assert found["output"] == pytest.approx(own, rel=1e-4, abs=3e-5)
                if handle.structure.kind == "decoder":
                    assert found["scores"][query + 1 :] == [None] * (11 - query)
                if name not in ("tiny-t5", "tiny-opt"):  # OPT scales its queries beforehand
                    assert found["scale"] == pytest.approx(found["width"] ** -0.5, rel=1e-3)


def test_the_job_names_the_tokens() -> None:
    job = AttentionSteps("tiny-llama", "a cat sat", 1, 2, 1)
    found = Core().run(job)
    assert len(found["tokens"]) == len(found["shares"])
    assert sum(found["shares"]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("block", "head", "query", "kind", "said"),
    [
        (0, 0, 0, "cross", "no cross-attention"),
        (99, 0, 0, "self", "Block 99"),
        (0, 99, 0, "self", "no head 99"),
        (0, 0, 99, "self", "no token 99"),
    ],
)
def test_what_is_not_there_is_one_sentence(
    block: int, head: int, query: int, kind: str, said: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles["tiny-llama"]
    with pytest.raises((RecipeError, TextError), match=said):
        attention_steps(handle.model, handle.structure, TOKENS, block, head, query, kind)


def test_an_empty_sentence_is_one_sentence() -> None:
    with pytest.raises(TextError):
        Core().run(AttentionSteps("tiny-llama", ""))


def test_a_soft_cap_is_a_step_too() -> None:
    """Gemma 2 squeezes scores before the softmax."""
    model = tiny_model("gemma2", attn_logit_softcapping=1.5)
    structure = describe(model)
    pattern = attention_pattern(model, structure, TOKENS, 1, "self")
    found = attention_steps(model, structure, TOKENS, 1, 2, 9)
    assert found["shares"] == pytest.approx(pattern[2, 9].tolist(), abs=1e-6)
    capped = [1.5 * math.tanh(x / 1.5) for x in found["scaled"][:10]]
    assert found["scores"][:10] == pytest.approx(capped, abs=1e-5)
    assert max(abs(a - b) for a, b in zip(capped, found["scaled"], strict=False)) > 0.01
