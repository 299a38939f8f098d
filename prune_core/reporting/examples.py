"""Example answers: the dense model's and each option's continuation of a few prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from prune_core.errors import Cancelled, PruneCoreError
from prune_core.jobs.base import Job, LoadModel
from prune_core.jobs.evaluate import Generate
from prune_core.recipes.recipe import Recipe
from prune_core.reporting.content import Content, Example
from prune_core.words.numbers import NBSP

PROMPTS = (
    "Once upon a time, in a small village at the edge of the forest,",
    "The capital of France is",
    "To make good bread, you need",
)
"""English in every language: they are given to the model, and the presets read English."""

QUESTIONS = (
    "What is the capital of France?",
    "How do I make good bread? Answer in two sentences.",
    "Tell me a short story about a village at the edge of a forest.",
)
"""In place of :data:`PROMPTS` for a model that was tuned to answer."""

MAX_PROMPTS = 6
NEW_TOKENS = 48

Ask = Callable[[Job], Mapping[str, Any]]
Told = Callable[[int, int], None]


def usual(*, chat: bool) -> tuple[str, ...]:
    """What is asked where the user names nothing."""
    return QUESTIONS if chat else PROMPTS


def jobs(
    content: Content, prompts: Sequence[str], *, chat: bool = False
) -> dict[tuple[int, str], Job]:
    """What has to be asked, by prompt and option (``dense`` first), recipe by recipe.

    One recipe's jobs follow one another, so that each is applied once. ``chat``: the model answers
    in its chat template.
    """
    recipes = {"dense": Recipe()} | {o.name: o.point.recipe for o in content.options}
    return {
        (place, name): Generate(
            content.source,
            recipe,
            prompt=prompt,
            max_new_tokens=NEW_TOKENS,
            greedy=True,
            chat=chat,
            with_dense=False,
        )
        for name, recipe in recipes.items()
        for place, prompt in enumerate(prompts)
    }


def collected(
    content: Content, prompts: Sequence[str], answers: Mapping[tuple[int, str], Mapping[str, Any]]
) -> Content:
    """The content with the examples whose answers are all there."""
    names = [option.name for option in content.options]
    found = []
    for place, prompt in enumerate(prompts):
        if all((place, name) in answers for name in ("dense", *names)):
            texts = {n: _text(answers[place, n]["pruned"]) for n in ("dense", *names)}
            found.append(Example(prompt, texts.pop("dense"), texts))
    return replace(content, examples=tuple(found), no_examples="")


def _text(answer: Mapping[str, Any]) -> str:
    """An answer, with an ellipsis where it was cut off."""
    cut = len(answer.get("ids") or ()) >= NEW_TOKENS
    return f"{answer['text']}{NBSP + '…' if cut else ''}"


def without(content: Content, reason: str) -> Content:
    """The content without examples, and why."""
    return replace(content, examples=(), no_examples=reason)


def write(
    content: Content,
    ask: Ask,
    prompts: Sequence[str] = (),
    *,
    count: int = len(PROMPTS),
    told: Told | None = None,
) -> Content:
    """Have the examples written; a model that is gone is told in the report, not raised.

    Args:
        content: see ``content.gather``.
        ask: works a job of the engine out.
        prompts: what is asked or continued; the usual ones where empty.
        count: of the usual ones.
        told: given how many answers are there and how many there will be.

    Raises:
        Cancelled: the user stopped it.
    """
    answers: dict[tuple[int, str], Mapping[str, Any]] = {}
    try:
        chat = bool(ask(LoadModel(content.source))["has_chat_template"])
        prompts = prompts or usual(chat=chat)[:count]
        wanted = jobs(content, prompts, chat=chat)
        for key, job in wanted.items():
            if told is not None:
                told(len(answers), len(wanted))
            answers[key] = ask(job)
    except Cancelled:
        raise
    except (PruneCoreError, OSError) as error:
        return without(content, str(error) or type(error).__name__)
    return collected(content, prompts, answers)
