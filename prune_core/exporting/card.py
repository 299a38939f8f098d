"""The model card of an exported checkpoint: what it came from, what was done, what it measures."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from prune_core.evaluation.metrics import metrics_of
from prune_core.exporting.compressed import loading_code
from prune_core.exporting.formats import FORMATS
from prune_core.models.info import ModelInfo
from prune_core.models.weight_counts import WeightCounts, removed_in_words, zeros_in_words
from prune_core.recipes.recipe import Recipe
from prune_core.words.numbers import error_in, with_error
from prune_core.words.numbers import measured as written

_PAGE = """---
base_model: {base}
license: {spdx}
library_name: transformers
tags: [pruned, prunescope]
---

# {title}, pruned

**This is a modified copy of {title}**{source}, made with Prunescope on {date}: {removed}.
{license}

{how}

{table}

{conditions}

## How to load it

```python
{code}```

## Recipe

```json
{recipe}
```
"""

_PLAIN = """from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
"""


def model_card(info: ModelInfo, recipe: Recipe, measured: Mapping[str, Any], auto: str) -> str:
    """Markdown for README.md.

    Args:
        info: of the dense model.
        recipe: what was removed.
        measured: see ``engine.jobs.Export``.
        auto: name of the transformers class that loads it.
    """
    form, library_format = measured["format"], measured["library_format"]
    title = _markdown_text(info.title)
    code = _PLAIN.format(auto=auto)
    if library_format:
        code = loading_code(library_format, auto, info.dtype)
    is_license_id = info.license and " " not in info.license
    how = FORMATS[form].text("en", "card").format(form=library_format)
    if measured["cut"] and form == "compressed":
        how += " Dropped heads, neurons and blocks are physically gone."
    return _PAGE.format(
        base=json.dumps(_base(info)),
        spdx=info.license.lower() if is_license_id else "other",
        title=title,
        source=_source(info),
        date=datetime.date.today().isoformat(),
        removed=_removed(recipe, measured),
        license=_license(info),
        how=how,
        table=_table(measured),
        conditions=_conditions(measured),
        code=code,
        recipe=json.dumps(shared_recipe(recipe), indent=2),
    )


def _markdown_text(text: str) -> str:
    """A name from a file on one line, without what Markdown or YAML would act upon."""
    clean = "".join(c if c.isprintable() else " " for c in text)[:120].strip()
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", clean) or "a model"


def _base(info: ModelInfo) -> str:
    """Where it came from, without a path of this machine."""
    if info.source.startswith("hub:"):
        return info.source.removeprefix("hub:").partition("@")[0]
    return "".join(c if c.isprintable() else " " for c in info.title)[:120]


def _source(info: ModelInfo) -> str:
    """What names it again; nothing where that is a folder of this machine."""
    return f" (`{info.source}`)" if shared_source(info.source) == info.source else ""


def shared_source(source: str) -> str:
    """A model's source without the folders of this machine, which are nobody else's business."""
    return source if source.startswith("hub:") else re.split(r"[/\\\\]", source)[-1]


def _license(info: ModelInfo) -> str:
    origin = f" Its weights came from: {_markdown_text(info.provenance)}" if info.provenance else ""
    if not info.license:
        return f"The license of the base model is not known here; find it before sharing.{origin}"
    return f"It stands under the license of the base model, {_markdown_text(info.license)}.{origin}"


def _removed(recipe: Recipe, measured: Mapping[str, Any]) -> str:
    counts = WeightCounts(**measured["screen"]["counts"])
    parts = [f"{removed_in_words(counts)} are gone"]
    if zeros_in_words(counts):
        parts.append(f"of the prunable weights {zeros_in_words(counts)}")
    if recipe.removes_weights:
        parts.append(f"single weights by {recipe.criterion}, {recipe.pattern}")
    for one in ("head", "neuron", "block"):
        count = measured["parts"][one]
        if count:
            parts.append(f"{count} {one}{'s' if count > 1 else ''}")
    for field, one in (("drop_attention", "attention"), ("drop_mlp", "MLP")):
        blocks = getattr(recipe, field)
        if blocks:
            parts.append(f"the {one} of block{'s' if len(blocks) > 1 else ''} {_joined(blocks)}")
    return "; ".join(parts)


def _joined(numbers: tuple[int, ...]) -> str:
    return ", ".join(str(n) for n in numbers)


def _table(measured: Mapping[str, Any]) -> str:
    dense, ours, screen = measured["dense"], measured["exported"], measured["screen"]
    rows = [
        ("parameters", f"{dense['parameters']:,}", f"{ours['parameters']:,}"),
        ("of them not zero", f"{dense['nonzero']:,}", f"{ours['nonzero']:,}"),
        ("bytes of the weight file", f"{dense['bytes']:,}", f"{ours['bytes']:,}"),
        ("FLOPs per token", f"{dense['flops_per_token']:,}", f"{ours['flops_per_token']:,}"),
    ]
    if ours["perplexity"] is not None:
        within = ""
        low, high = screen["perplexity_low"], screen["perplexity_high"]
        error = error_in(low, high)
        if error is not None:
            within = f" (95 %: {written(low, error)} to {written(high, error)})"
        before, after = (written(x["perplexity"], error) for x in (dense, ours))
        rows.append(("perplexity", before, f"{after}{within}"))
    for metric in metrics_of("headline", "beside"):
        value, unchanged = screen.get(metric.name), metric.unchanged
        if value is not None and unchanged is not None:
            name = metric.phrase("card", classes=ours["perplexity"] is None)
            rows.append((name, f"{unchanged:g}", with_error(value, screen.get(metric.error))))
    for key, name in (
        ("prefill", "prefill, tokens per second"),
        ("decode", "decode, tokens per second"),
    ):
        if ours[key]:
            rows.append((name, _speed(dense[key]), _speed(ours[key])))
    if ours["peak_memory"] is not None:
        pair = (f"{dense['peak_memory'] / 1e6:,.0f} MB", f"{ours['peak_memory'] / 1e6:,.0f} MB")
        rows.append(("peak memory, above the bare libraries", *pair))
    lines = [f"| {a} | {b} | {c} |" for a, b, c in rows]
    return "\n".join(["| | dense | this model |", "| --- | --- | --- |", *lines])


def _conditions(measured: Mapping[str, Any]) -> str:
    protocol = measured["screen"]["protocol"]
    name = "a pasted text" if protocol["text"] == "inline" else f"`{_file_name(protocol['text'])}`"
    predictions = f"{protocol['tokens']:,} predictions, " if protocol["tokens"] else ""
    text = (
        f"Quality: {protocol['windows']} windows of {protocol['seq_len']} tokens of {name} "
        f"(text {protocol['text_fingerprint'][:12]}), {predictions}{protocol['dtype']} on "
        f"{protocol['device']}; the interval is that of the paired difference to "
        "the dense model, ± is one standard error over windows."
    )
    if measured["repeats"]:
        text += (
            f" Speed and memory: median and range of {measured['repeats']} repeats, dense and this "
            f"model in turn, each in a process of its own, {protocol['threads']} threads, "
            f"{measured['prompt_tokens']} tokens of prompt, torch {protocol['torch']}, "
            f"transformers {protocol['transformers']}."
        )
    return text


def _file_name(text: str) -> str:
    return _markdown_text(text.replace("\\", "/").rsplit("/", 1)[-1])


def _speed(values: Mapping[str, float]) -> str:
    return f"{values['median']:.1f} ({values['low']:.1f} to {values['high']:.1f})"


def shared_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe without what is nobody else's business: pasted texts and folders."""
    content = recipe.to_dict()
    text = content.get("calibration", {}).get("text")
    if text and text["kind"] == "inline":
        digest = hashlib.sha256(str(text["value"]).encode()).hexdigest()[:12]
        text["value"] = f"a pasted text, {digest}"
    elif text and text["kind"] == "file":
        text["value"] = _file_name(text["value"])
    return content
