"""Under which conditions a report's numbers were measured, in words."""

from __future__ import annotations

from pathlib import PurePath

from prune_core.figures.theme import visible
from prune_core.models.weight_counts import counts_of
from prune_core.reporting.content import Content
from prune_core.words.catalogue import Words
from prune_core.words.numbers import DASH, count, counted_share, day


def text_name(content: Content, words: Words) -> str:
    """What the runs were measured on."""
    spec = content.runs[0].cell.text
    if spec.kind == "inline":
        return words.t("runs.own_text")
    known = words.t_or(f"report.text_{spec.value}", "")
    return known or visible(PurePath(spec.value.replace("\\", "/")).name, 48)


def conditions_line(content: Content, words: Words) -> str:
    """In one line: text, passages, date."""
    protocol, run = content.protocol, content.runs[0]
    return words.t(
        "report.conditions_line",
        text=text_name(content, words),
        windows=protocol.get("windows") or run.cell.windows,
        seq_len=protocol.get("seq_len") or run.cell.seq_len,
        date=_dates(content),
    )


def _dates(content: Content) -> str:
    first, last = (day(moment) for moment in content.measured)
    return first if first == last else f"{first} {DASH} {last}"


def _shares(content: Content, words: Words) -> list[tuple[str, str]]:
    """Of what the shares are, where the runs hold the counts."""
    counts = next((c for run in content.runs if (c := counts_of(run.numbers))), None)
    if counts is None:
        return []
    text = words.t(
        "report.shares",
        prunable=count(counts.prunable),
        total=count(counts.parameters),
        share=counted_share(counts.of_model(counts.prunable)),
        zeros=counted_share(counts.of_prunable(counts.zeros_before)),
    )
    return [(words.t("report.row_shares"), text)]


def conditions(content: Content, words: Words) -> tuple[tuple[str, str], ...]:
    """As rows of (label, value)."""
    t, protocol, run = words.t, content.protocol, content.runs[0]
    unknown = t("report.unknown")
    tokens = protocol.get("tokens")
    rows = [
        (t("report.row_model"), f"{visible(content.source, 70)}"),
        (t("report.row_text"), text_name(content, words)),
        (
            t("report.row_amount"),
            t(
                "report.amount" if tokens != 0 else "report.amount_windows",
                windows=protocol.get("windows") or run.cell.windows,
                seq_len=protocol.get("seq_len") or run.cell.seq_len,
                tokens=f"{int(tokens):,}" if tokens else unknown,
            ),
        ),
        (t("report.row_numbers"), str(protocol.get("dtype") or unknown)),
        (t("report.row_machine"), _machine(content, words)),
        *_shares(content, words),
        (t("report.row_date"), _dates(content)),
        (t("report.row_runs"), str(len(content.runs))),
    ]
    if content.audience == "technical":
        versions = [
            f"{name} {protocol[name]}"
            for name in ("torch", "transformers", "python")
            if protocol.get(name)
        ]
        rows += [
            (t("report.row_versions"), ", ".join(versions) or unknown),
            (t("report.row_fingerprint"), str(protocol.get("model_fingerprint") or unknown)[:16]),
            (
                t("report.row_text_fingerprint"),
                str(protocol.get("text_fingerprint") or unknown)[:16],
            ),
        ]
    return tuple(rows)


def _machine(content: Content, words: Words) -> str:
    device, threads = content.protocol.get("device"), content.protocol.get("threads")
    if not device:
        return words.t("report.unknown")
    told = str(device).upper() if device in ("cpu", "mps") else str(device)
    return words.t("report.machine", device=told, threads=threads) if threads else told
