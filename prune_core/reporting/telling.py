"""A report's content in words, for one audience and one language; nothing of how it is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from prune_core.criteria import CRITERIA
from prune_core.evaluation.evaluation import Evaluation
from prune_core.evaluation.metrics import METRICS, Metric, metrics_of
from prune_core.figures.theme import visible
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.evaluate import Evaluate
from prune_core.models.sources import source_choices
from prune_core.models.weight_counts import SPARSE, counts_of, headline_share
from prune_core.reporting.conditions import conditions, conditions_line, text_name
from prune_core.reporting.content import Content
from prune_core.sweeps.axes import dense_cost, smallest_file
from prune_core.sweeps.names import method_name
from prune_core.sweeps.options import BOUNDS, Option
from prune_core.sweeps.records import Run
from prune_core.words.catalogue import Words
from prune_core.words.numbers import (
    counted_share,
    error_in,
    figures,
    measured,
    percent,
    percent_measured,
    signed,
    with_error,
)

MOST_NOISE = 0.05
"""Upper end of an interval that can still be called no loss."""

OPTIONS = {1: "report.options_title_one", 2: "report.options_title_two"}


@dataclass(frozen=True, slots=True)
class Card:
    """One option: its label, what goes, facts as (label, value), and a verdict in a sentence."""

    label: str
    removed: str
    method: str
    facts: tuple[tuple[str, str], ...]
    verdict: str
    command: str


@dataclass(frozen=True, slots=True)
class Story:
    """All texts of a report; user-given parts have hidden characters made visible, no markup."""

    model: str
    title: str
    summary: str
    conditions_line: str
    picture: str
    options_title: str
    cards: tuple[Card, ...]
    how: tuple[str, ...]
    limits: tuple[str, ...]
    notices: tuple[str, ...]
    conditions: tuple[tuple[str, str], ...]


def tell(content: Content, words: Words) -> Story:
    """Put a content into words."""
    t = words.t
    model = model_name(content.source)
    cards = tuple(_card(content, option, words) for option in content.options)
    return Story(
        model,
        t("report.headline", model=model),
        _summary(content, words),
        conditions_line(content, words),
        _picture(content, words),
        words.t(OPTIONS.get(len(cards), "report.options_title")),
        cards,
        _how(content, words),
        _limits(content, words),
        _notices(content, words),
        conditions(content, words),
    )


def model_name(source: str) -> str:
    """A model as people call it: a preset's proper name, a hub id, a folder's last part."""
    for preset in source_choices():
        if preset["name"] == source:
            return str(preset["title"])
    name = source.removeprefix("hub:")
    if name == source and ("/" in name or "\\" in name):
        name = PurePath(name.replace("\\", "/")).name or name
    return visible(name, 48)


def _summary(content: Content, words: Words) -> str:
    """The one sentence: what can be had for what."""
    t, quality = words.t, content.found.quality
    first, last = content.options[0], content.options[-1]
    chosen = next((o for o in content.options if o.name == "medium"), last)
    share = gone(chosen, words)
    if quality == "similarity":
        similar = figures(chosen.point.quality.value)
        return t("report.summary_similarity", share=share, similarity=similar)
    if harmless(chosen):
        return t("report.summary_free", share=share)
    if chosen.low <= 0:
        return t("report.summary_unclear", share=share)
    price = _price(chosen)
    if chosen is first:
        return t("report.summary", share=share, worse=price)
    small = gone(first, words)
    if harmless(first):
        return t("report.summary_both_free", small=small, share=share, worse=price)
    return t("report.summary_both", small=small, first=_price(first), share=share, worse=price)


def _price(option: Option) -> str:
    """In a headline: one decimal at most."""
    error = error_in(option.low, option.high)
    return percent_measured(option.lost, error, sign=True, most=1)


def gone(option: Option, words: Words) -> str:
    """What an option adds to the zeros: ``40 % of the prunable weights (32 % of the model)``."""
    share = headline_share(option.point.sparsity, option.point.added)
    counts = counts_of(option.run.numbers)
    if counts is None:  # a run of an older version
        return words.t("report.share", share=counted_share(share))
    model = counted_share(share * counts.prunable / counts.parameters)
    return words.t("report.share_both", share=counted_share(share), model=model)


def removed_label(option: Option, words: Words) -> str:
    """The same in two words; of a model that was sparse, what is added and what is zero in all."""
    sparsity, added = option.point.sparsity, option.point.added
    after = option.run.numbers.get("zeros_after")
    if headline_share(sparsity, added) == sparsity or after is None:
        return words.t("report.removed", share=counted_share(headline_share(sparsity, added)))
    return words.t("report.added", share=counted_share(added), after=counted_share(after))


def harmless(option: Option) -> bool:
    """No loss could be told from the noise, and the interval is narrow enough to say so."""
    return option.low < option.high and option.low <= 0 and option.high <= MOST_NOISE


def _picture(content: Content, words: Words) -> str:
    """The headline of the picture."""
    knee = content.found.knee
    if knee is not None and knee.added > 0:
        share = counted_share(headline_share(knee.sparsity, knee.added))
        return words.t("report.picture_knee", share=share)
    return words.t("report.picture_plain")


# ---- options ---------------------------------------------------------------------------------


def _card(content: Content, option: Option, words: Words) -> Card:
    t, numbers = words.t, option.run.numbers
    plain = content.audience == "stakeholder"
    headline = METRICS[content.found.quality]
    facts = [(t("report.fact_file"), _file(option.run, words))]
    value = (
        _headline_change(option, words)
        if headline.unchanged is None
        else _headline_value(option, words)
    )
    facts.append((headline.phrase("fact", words.language), value))
    evaluation = Evaluation.from_dict(numbers)
    beside = sorted(metrics_of("beside"), key=lambda metric: metric.technical)
    for metric in beside:
        wanted = content.audience == "technical" or not metric.technical
        if wanted and evaluation.value(metric).value is not None:
            text = _share if metric.percent else _plus_minus
            facts.append((metric.phrase("fact", words.language), text(evaluation, metric, words)))
    decode = numbers.get("decode")
    if isinstance(decode, Mapping):
        value = t("report.per_second", count=figures(decode["median"]))
        facts.append((t("report.fact_speed"), value))
    return Card(
        t(f"report.option_{option.name}"),
        removed_label(option, words),
        visible(method_name(option.point.method, words, plain=plain), 90),
        tuple(facts),
        _verdict(option, words, similar=headline.unchanged is not None),
        command(option.run),
    )


def _verdict(option: Option, words: Words, *, similar: bool) -> str:
    """Why this one: the rule that chose it, and whether its loss is one at all."""
    if option.name == "least":
        return words.t("report.verdict_least")
    if similar:
        return words.t("report.verdict_similar", bound=figures(1 - option.bound))
    if harmless(option):
        return words.t("report.verdict_free")
    if option.bound == 1:
        return words.t("report.verdict_twice")
    return words.t("report.verdict_bound", bound=percent(option.bound))


def command(run: Run) -> str:
    """The command that measures a run again."""
    cell = run.cell
    return command_line(Evaluate(cell.source, cell.recipe, cell.text, cell.seq_len, cell.windows))


def _file(run: Run, words: Words) -> str:
    after, before = smallest_file(run.numbers), dense_cost(run.numbers, "bytes")
    if after is None or not before:
        return words.t("report.unknown")
    return words.t(
        "report.file",
        before=words.megabytes(before.value, estimated=before.is_estimate),
        after=words.megabytes(after.value, estimated=after.is_estimate),
    )


def _headline_change(option: Option, words: Words) -> str:
    error = error_in(option.low, option.high)
    change = signed(option.lost, error)
    if error is None:
        return words.t("report.no_interval", value=change)
    interval = words.interval(signed(option.low, error), signed(option.high, error))
    return words.t("report.with_interval", value=change, interval=interval)


def _headline_value(option: Option, words: Words) -> str:
    value = option.point.quality
    error = error_in(value.low, value.high)
    mine = measured(value.value, error)
    if error is None:
        return words.t("report.no_interval", value=mine)
    interval = words.interval(measured(value.low, error), measured(value.high, error))
    return words.t("report.with_interval", value=mine, interval=interval)


def _share(evaluation: Evaluation, metric: Metric, words: Words) -> str:
    mine = evaluation.value(metric)
    value, error = mine.value or 0.0, mine.error
    if error is None:
        return words.t("report.no_interval", value=percent(value))
    ends = max(0.0, value - 1.96 * error), min(1.0, value + 1.96 * error)
    low, high = (percent_measured(end, error, most=1) for end in ends)
    interval = words.interval(low, high)
    return words.t(
        "report.with_interval", value=percent_measured(value, error, most=1), interval=interval
    )


def _plus_minus(evaluation: Evaluation, metric: Metric, words: Words) -> str:
    mine = evaluation.value(metric)
    half = None if mine.error is None else 1.96 * mine.error
    return with_error(mine.value or 0.0, half, most=metric.digits)


# ---- method, limits, conditions --------------------------------------------------------------


def _how(content: Content, words: Words) -> tuple[str, ...]:
    t = words.t
    recipes = [option.point.recipe for option in content.options]
    said = []
    for name in dict.fromkeys(r.criterion for r in recipes if r.removes_weights):
        own = CRITERIA[name].text(words.language, "how") if name in CRITERIA else ""
        said.append(own or t("report.how_other", name=visible(name, 30)))
    if any(r.removes_structure for r in recipes):
        said.append(t("report.how_parts"))
    if any(r.reconstruction != "none" for r in recipes):
        said.append(t("report.how_repaired"))
    encoder = content.found.quality == "similarity"
    bounds = [percent(b) if not encoder else figures(1 - b) for b in BOUNDS[content.found.quality]]
    said.append(t("report.how_similarity" if encoder else "report.how_measured"))
    chosen = "report.how_chosen_similarity" if encoder else "report.how_chosen"
    said.append(t(chosen, small=bounds[0], medium=bounds[1], large=bounds[2]))
    return tuple(said)


def _limits(content: Content, words: Words) -> tuple[str, ...]:
    t = words.t
    said = [t("report.limit_text", text=text_name(content, words))]
    if any(o.point.recipe.removes_weights for o in content.options):
        said.append(t("report.limit_zeros"))
    counts = next((c for o in content.options if (c := counts_of(o.run.numbers))), None)
    if counts is not None and counts.of_prunable(counts.zeros_before) >= SPARSE:
        before = counted_share(counts.of_prunable(counts.zeros_before))
        said.append(t("report.limit_sparse", share=before))
    if any((f := smallest_file(o.run.numbers)) and f.is_estimate for o in content.options):
        said.append(t("report.limit_estimate"))
    said += [t("report.limit_trained"), t("report.limit_tasks")]
    return tuple(said)


def _notices(content: Content, words: Words) -> tuple[str, ...]:
    t = words.t
    said = []
    if content.left_out:
        shown = [f"{one.id} ({t_state(words, one.state)})" for one in content.left_out[:6]]
        more = len(content.left_out) - len(shown)
        names = ", ".join(shown) + (t("report.and_more", count=more) if more else "")
        said.append(t("report.left_out", count=len(content.left_out), names=names))
    if content.others:
        said.append(t("report.others", count=content.others))
    if content.found.left_out:
        said.append(t("report.no_place", count=len(content.found.left_out)))
    if content.no_examples:
        said.append(t("report.no_examples", reason=visible(content.no_examples, 300)))
    if len(content.options) < 3:
        said.append(t("report.few_options", count=len(content.options)))
    if content.audience == "technical":
        for method, others in list(content.found.dominated.items())[:6]:
            names = ", ".join(visible(method_name(other, words), 60) for other in others[:3])
            said.append(
                t("report.dominated", method=visible(method_name(method, words), 60), others=names)
            )
    return tuple(said)


def t_state(words: Words, state: str) -> str:
    """A run's state in words."""
    return words.t_or(f"report.state_{state}", state)
