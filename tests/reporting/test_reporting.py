"""What a report tells, and its files: opened again, measured with a real font, hostile texts."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import ImageFont
from pptx import Presentation
from pptx.util import Pt

from prune_core.errors import ReportError
from prune_core.evaluation.metrics import METRICS
from prune_core.jobs.base import LoadModel
from prune_core.recipes.recipe import Recipe
from prune_core.reporting.build import check_free, chosen_files, made, put
from prune_core.reporting.content import Content, Example, gather
from prune_core.reporting.examples import NEW_TOKENS, PROMPTS, QUESTIONS, collected, jobs, write
from prune_core.reporting.fonts import lines, width
from prune_core.reporting.slides import LEAST, LINE, Box, fitted
from prune_core.reporting.telling import model_name, tell
from prune_core.reporting.words import AUDIENCES
from prune_core.sweeps.axes import UnlikeRunsError
from prune_core.sweeps.names import method_names
from prune_core.words.catalogue import LANGUAGES, Words
from prune_core.words.numbers import NBSP
from tests.reporting_runs import finished, font_file, sweep

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\x00{{7*7}}<b>'\"&"
LONG = "A very long answer that goes on and on, as small models do. " * 12


def example(prompt: str = PROMPTS[0], said: str = LONG) -> Example:
    answers = {"small": said, "medium": f"{said[:30]}other", "large": "x"}
    return Example(prompt, said, answers)


@pytest.fixture
def content() -> Content:
    """A whole sweep with examples."""
    return replace(gather(sweep(), title="s"), examples=(example(), example("Zwei?", "Kurz.")))


# ---- what is chosen --------------------------------------------------------------------------


def test_options_and_what_is_said_of_them() -> None:
    found = gather(sweep())
    assert [o.name for o in found.options] == ["small", "medium", "large"]
    # exp(0.02) is 2 %, exp(0.17) 19 %, exp(0.45) 57 % above dense
    assert [o.point.sparsity for o in found.options] == [0.2, 0.4, 0.5]
    assert all(o.point.recipe.criterion == "wanda" for o in found.options)
    story = tell(found, Words("en"))
    for number in ("20", "+2.0", "40", "+18.5"):
        assert f"{number}{NBSP}%" in story.summary
    assert [card.verdict.count(f"5{NBSP}%") for card in story.cards] == [1, 1, 0]


def test_no_loss_is_said_only_where_the_interval_says_so() -> None:
    calm = [finished("wanda", 0.1, 0.0005), finished("wanda", 0.3, 0.2)]
    assert "measurable" in tell(gather(calm), Words("en")).summary
    assert "noise" in tell(gather(calm[:1]), Words("en")).cards[0].verdict
    wide = gather([finished("wanda", 0.5, 0.01, wobble=0.5)])  # proves nothing
    story = tell(wide, Words("en"))
    assert "cannot tell" in story.summary and "noise" not in story.cards[0].verdict


def test_where_all_is_beyond_the_bounds_the_least_price_is_told() -> None:
    found = gather([finished("wanda", 0.7, 1.5), finished("wanda", 0.6, 1.2)])
    assert [(o.name, o.point.sparsity) for o in found.options] == [("least", 0.6)]
    assert "beyond twice" in tell(found, Words("en")).cards[0].verdict


def test_unfinished_and_failed_runs_are_named_and_left_out() -> None:
    runs = sweep()
    runs[0] = replace(runs[0], state="failed", numbers={}, error="no memory")
    runs[1] = replace(runs[1], state="pending", numbers={})
    found = gather(runs)
    assert {one.id for one in found.left_out} == {runs[0].id, runs[1].id}
    assert runs[0].id in " ".join(tell(found, Words("en")).notices)
    with pytest.raises(ReportError, match=r"none of these 2 runs is finished \(1 failed, 1 pend"):
        gather(runs[:2])
    with pytest.raises(ReportError, match="no runs"):
        gather([])
    with pytest.raises(ReportError, match="nothing was removed"):
        gather([finished("magnitude", 0.0, 0.0)])


def test_unlike_runs_are_refused_by_id_and_parted_otherwise() -> None:
    mixed = [*sweep(), finished("wanda", 0.3, 0.1, text="other.txt")]
    with pytest.raises(UnlikeRunsError):
        gather(mixed, strict=True)
    found = gather(mixed)
    assert (len(found.runs), found.others) == (14, 1)


def test_encoders_have_a_report() -> None:
    none: dict[str, Any] = dict.fromkeys(
        ("perplexity", "delta_nll", "kl", "top1", "perplexity_dense")
    )
    runs = [
        finished(
            "wanda", s, 0.0, similarity=v, similarity_stderr=0.002, metric="similarity", **none
        )
        for s, v in ((0.1, 0.99), (0.3, 0.96), (0.5, 0.7))
    ]
    found = gather(runs)
    assert [o.point.sparsity for o in found.options] == [0.1, 0.3]
    for language in LANGUAGES:
        assert tell(found, Words(language)).summary


# ---- examples --------------------------------------------------------------------------------


def test_examples_are_asked_for_recipe_by_recipe() -> None:
    content = gather(sweep())
    wanted = jobs(content, PROMPTS)
    recipes = [job.recipe for job in wanted.values()]  # type: ignore[attr-defined]
    assert len(wanted) == 12 and recipes[0] == Recipe()
    assert sum(a != b for a, b in itertools.pairwise(recipes)) == 3
    asked: list[tuple[int, int]] = []

    def ask(job: Any) -> Any:
        if isinstance(job, LoadModel):
            return {"has_chat_template": True}
        assert job.chat and job.prompt in QUESTIONS
        return {"pruned": {"text": f"{job.recipe.sparsity}", "ids": [1]}}

    found = write(content, ask, told=lambda done, total: asked.append((done, total)))
    assert asked[-1] == (11, 12)
    assert found.examples[0].dense == "0.0"
    assert found.examples[2].pruned["large"] == "0.5"
    cut = {key: {"pruned": {"text": "a", "ids": [1] * NEW_TOKENS}} for key in wanted}
    assert collected(content, PROMPTS, cut).examples[0].dense == f"a{NBSP}…"


def test_a_model_that_is_gone_is_told() -> None:
    def ask(job: Any) -> Any:
        raise ReportError("there is no folder /gone.")

    found = write(gather(sweep()), ask)
    assert not found.examples
    assert "there is no folder /gone." in " ".join(tell(found, Words("en")).notices)


# ---- slides ----------------------------------------------------------------------------------


def boxes(data: bytes) -> list[tuple[Any, int]]:
    return [
        (shape, place)
        for place, slide in enumerate(Presentation(io.BytesIO(data)).slides, 1)
        for shape in slide.shapes
    ]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("audience", AUDIENCES)
def test_slides_fit(content: Content, language: str, audience: str) -> None:
    data = made(content.told_to(audience, language), "pptx")
    file = font_file(language)
    deck = Presentation(io.BytesIO(data))
    # title, picture, options, two examples, method, recipes; conditions and the table of runs
    assert len(deck.slides) == (9 if audience == "technical" else 7)
    texts = 0
    whole = " ".join(s.text_frame.text for s, _ in boxes(data) if s.has_text_frame)
    for card in tell(content.told_to(audience, language), Words(language)).cards:
        assert all(value in whole for _, value in card.facts)  # no number is ever cut
    for shape, place in boxes(data):
        where = f"slide {place}: {shape.name} {shape.has_text_frame and shape.text_frame.text}"
        assert shape.left >= 0 and shape.left + shape.width <= deck.slide_width + 1, where
        assert shape.top >= 0 and shape.top + shape.height <= deck.slide_height + 1, where
        if not shape.has_text_frame or not shape.text_frame.text:
            continue
        texts += 1
        sizes = {run.font.size for p in shape.text_frame.paragraphs for run in p.runs}
        assert None not in sizes and min(sizes) >= Pt(LEAST), where
        if file is not None and (language == "zh" or "Liberation" in file.name):
            assert measured(shape, str(file)) <= shape.height / Pt(1) + 0.5, where
    assert texts > 40


def measured(shape: Any, file: str) -> float:
    """Height of a box's text in points when it is set in a real font, word by word."""
    room, total = shape.width / Pt(1), 0.0
    for place, paragraph in enumerate(shape.text_frame.paragraphs):
        if not paragraph.runs:
            continue
        size = paragraph.runs[0].font.size / Pt(1)
        bold = any(run.font.bold for run in paragraph.runs)
        path = file.replace("Regular", "Bold") if bold else file
        font = ImageFont.truetype(path if Path(path).exists() else file, 100)
        total += (paragraph.space_before or 0) / Pt(1) if place else 0

        def wide(text: str, font: Any = font, size: float = size) -> float:
            return float(font.getlength(text)) * size / 100

        line, count = "", 1
        for word in pieces("".join(run.text for run in paragraph.runs)):
            if line and wide((line + word).rstrip()) > room:
                line, count = "", count + 1
            line += word
            while wide(line.rstrip()) > room and len(line) > 1:
                line, count = line[1:], count + (wide(line[1:].rstrip()) <= room)
        total += count * size * LINE
    return total


def pieces(text: str) -> list[str]:
    found, word = [], ""
    for character in text:
        word += character
        if character == " " or ord(character) > 0x2E80:
            found.append(word)
            word = ""
    return [*found, word]


def chart_of(data: bytes) -> Any:
    (found,) = [shape for shape, _ in boxes(data) if shape.has_chart]
    return found.chart


def cells(workbook: bytes) -> dict[str, float]:
    """The numbers of a workbook's first sheet by their cells, read as plain XML."""
    with zipfile.ZipFile(io.BytesIO(workbook)) as archive:
        sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    name = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    return {
        str(cell.get("r")): float(str(cell.findtext(f"{name}v")))
        for cell in sheet.iter(f"{name}c")
        if cell.get("t") != "s"
    }


def numbers(series: Any, path: str) -> list[float]:
    return [float(value.text) for value in series._element.xpath(f"./{path}//c:v")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_chart_holds_what_was_measured(content: Content, language: str) -> None:
    words = Words(language)
    chart = chart_of(made(content.told_to("technical", language), "pptx"))
    book = cells(chart.part.chart_workbook.xlsx_part.blob)
    by_name = {series.name: series for series in chart.plots[0].series}
    marks = [words.t(f"report.mark_{option.name}") for option in content.options]
    runs = {
        method: [r for r in content.runs if r.cell.recipe.criterion == method]
        for method in ("wanda", "magnitude")
    }
    names = method_names((point.method for point in content.found.points), words)
    assert set(by_name) == {
        *(words.t("report.fig_front"), words.t("report.fig_dense"), *marks, *names.values())
    }
    for method, label in names.items():
        series, mine = by_name[label], runs[method[0]]
        xs = [run.numbers["nonzero"] / 1e6 for run in mine]
        values = [run.numbers["perplexity"] for run in mine]
        assert numbers(series, "c:xVal") == pytest.approx(xs, rel=1e-12)
        assert numbers(series, "c:yVal") == pytest.approx(values, rel=1e-12)
        # the bars end where the interval does, the workbook that a reader edits says the same
        for side, end, sign in (("plus", "high", 1), ("minus", "low", -1)):
            lengths = [
                sign * (run.numbers[f"perplexity_{end}"] - run.numbers["perplexity"])
                for run in mine
            ]
            assert numbers(series, f"c:errBars/c:{side}") == pytest.approx(lengths, rel=1e-4)
        for path, wanted in (("c:xVal", xs), ("c:yVal", values)):
            column, first, last = re.fullmatch(
                r"Sheet1!\$([A-Z])\$(\d+):\$[A-Z]\$(\d+)",
                series._element.xpath(f"./{path}//c:f")[0].text,
            ).groups()
            held = [book[f"{column}{row}"] for row in range(int(first), int(last) + 1)]
            assert held == pytest.approx(wanted, rel=1e-12)
    for mark, option in zip(marks, content.options, strict=True):
        assert numbers(by_name[mark], "c:yVal") == [option.point.quality.value]
    x, y = chart.category_axis, chart.value_axis
    assert x.axis_title.text_frame.text == words.t("report.axis_nonzero")
    assert y.axis_title.text_frame.text == METRICS["perplexity"].phrase(
        "report_axis", words.language
    )
    worst = max(run.numbers["perplexity"] for run in content.runs)
    assert y.minimum_scale < content.runs[0].numbers["perplexity_dense"] and worst < y.maximum_scale
    # seven times the best: doublings are even steps
    assert y._element.xpath("./c:scaling/c:logBase")[0].get("val") == "2"
    hidden = {int(e.get("val")) for e in chart._chartSpace.xpath(".//c:legendEntry/c:idx")}
    series = list(chart.plots[0].series)
    assert {series[place].name for place in hidden} == {words.t("report.fig_dense"), *marks}
    counts = [len(numbers(one, "c:xVal")) for one in series]
    assert counts == sorted(counts, reverse=True)  # LibreOffice drops one before a longer one


# ECMA-376 part 1, the order of children: an office program offers to repair a file with another
ORDER = {
    "ser": "idx order tx spPr marker dPt dLbls trendline errBars xVal yVal smooth",
    "dLbl": "idx delete layout tx numFmt spPr txPr dLblPos showLegendKey showVal showCatName "
    "showSerName showPercent showBubbleSize separator",
    "errBars": "errDir errBarType errValType noEndCap plus minus val spPr",
    "scaling": "logBase orientation max min",
    "legend": "legendPos legendEntry layout overlay spPr txPr",
    "defRPr": "ln solidFill effectLst latin ea cs",
    "rPr": "ln solidFill effectLst latin ea cs",
    "dPt": "idx invertIfNegative marker bubble3D explosion spPr",
    "marker": "symbol size spPr",
    "valAx": "axId scaling delete axPos majorGridlines minorGridlines title numFmt majorTickMark "
    "minorTickMark tickLblPos spPr txPr crossAx crosses crossesAt crossBetween majorUnit minorUnit",
}


def test_the_charts_elements_stand_in_the_order_of_the_standard(content: Content) -> None:
    space = chart_of(made(content.told_to("technical", "en"), "pptx"))._chartSpace
    seen = set()
    for element in space.iter():
        name = element.tag.rpartition("}")[2]
        if name in ORDER:
            order = ORDER[name].split()
            places = [order.index(child.tag.rpartition("}")[2]) for child in element]
            assert places == sorted(places), name
            seen.add(name)
    assert seen >= set(ORDER) - {"rPr"}


def test_the_charts_axes_hold_any_numbers() -> None:
    none: dict[str, Any] = dict.fromkeys(
        ("perplexity", "delta_nll", "kl", "top1", "perplexity_dense")
    )
    alike = [
        finished(
            "wanda", s, 0.0, similarity=v, similarity_stderr=0.002, metric="similarity", **none
        )
        for s, v in ((0.1, 0.99), (0.3, 0.96), (0.5, 0.7))
    ]
    axis = chart_of(made(gather(alike), "pptx")).value_axis
    assert axis.minimum_scale <= 0.7 - 1.96 * 0.002 and axis.maximum_scale >= 0.99
    assert axis.tick_labels.number_format == "#,##0.00" and axis.major_unit == 0.05
    # an interval without an end has no upper bar, and the axis does not follow it
    endless = finished("wanda", 0.2, 0.02, delta_nll_stderr=1000.0)
    for runs in ([endless], [endless, finished("wanda", 0.3, 0.06)]):
        content = gather(runs)
        assert content.found.points[0].quality.high == math.inf
        chart = chart_of(made(content, "pptx"))
        axis = chart.value_axis
        assert axis.minimum_scale < endless.numbers["perplexity"] < axis.maximum_scale < 100
        bars = chart._chartSpace.xpath(".//c:errBars//c:v")
        assert len(bars) == 4 * (len(runs) - 1)
        assert all(math.isfinite(float(bar.text)) for bar in bars)
    # nor far: exp(11) is 60 thousand
    far = [finished("wanda", 0.2, 0.02, delta_nll_stderr=4.0), finished("wanda", 0.3, 0.06)]
    axis = chart_of(made(gather(far), "pptx")).value_axis
    assert axis.minimum_scale < far[0].numbers["perplexity"] < axis.maximum_scale < 100
    # four decades are marked at powers of ten
    wild = [finished("wanda", 0.2, 0.02), finished("wanda", 0.6, 9.0)]
    axis = chart_of(made(gather(wild).told_to("technical", "en"), "pptx")).value_axis
    assert (axis.minimum_scale, axis.maximum_scale) == (10.0, 1e6)
    assert axis._element.xpath("./c:scaling/c:logBase")[0].get("val") == "10"


def test_hostile_words_stay_words(content: Content) -> None:
    runs = sweep(source=f"/models/{HOSTILE}", text=f"/texts/{HOSTILE}")
    hostile = replace(gather(runs, title=HOSTILE), examples=(example(HOSTILE, HOSTILE),))
    html = made(hostile, "html").decode()
    body = html[html.index("<body>") : html.index("<script>")]
    assert "<img" not in body and "&lt;img" in body
    assert "\u202e" not in body and "\x00" not in html and "{{7*7}}" in body
    assert html.count("</script>") == 2
    texts = " ".join(s.text_frame.text for s, _ in boxes(made(hostile, "pptx")) if s.has_text_frame)
    assert "onerror=alert(1)" in texts and "\u202e" not in texts


@pytest.mark.parametrize("size", [14.0, 18.0, 30.0])
def test_widths_are_those_of_the_font(size: float) -> None:
    file = font_file("en")
    if file is None or "Liberation" not in file.name:
        pytest.skip("The machine has no font that is as wide as Arial.")
    font = ImageFont.truetype(str(file), 1000)
    for text in (
        PROMPTS[0],
        LONG,
        f"31.5{NBSP}% (4.2{NBSP}% to 10.7{NBSP}%)",
        "Wanda · per row",
        "IIlwWM@",
    ):
        real = font.getlength(text) * size / 1000  # kerning makes it a little narrower
        assert 0.98 * real <= width(text, size) <= 1.06 * real


def test_text_is_cut_at_a_word_only_when_it_must_be() -> None:
    box = Box(0, 0, 200, 4 * 14 * LINE)
    assert fitted("short", box, 18) == ("short", 18)
    text, size = fitted(LONG, box, 18)
    assert size == LEAST and text.endswith("…") and len(lines(text, size, box.w)) <= 4
    chinese, _ = fitted("模型" * 200, box, 18)
    assert len(lines(chinese, LEAST, box.w)) <= 4 and len(chinese) > 40


# ---- table, files ----------------------------------------------------------------------------


def test_the_table_holds_every_run_with_its_interval(content: Content) -> None:
    note = replace(content.runs[0], note="=cmd()")
    data = made(replace(content, runs=(note, *content.runs[1:])), "csv")
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert len(rows) == 14
    for row, run in zip(rows, content.runs, strict=True):
        assert float(row["perplexity"]) == run.numbers["perplexity"]
        assert float(row["perplexity_low"]) < float(row["perplexity"])
        assert (row["dtype"], row["seq_len"]) == ("float32", "256")
    assert sorted(row["option"] for row in rows if row["option"]) == ["large", "medium", "small"]
    assert rows[0]["note"] == "'=cmd()"


def test_recipes_can_be_read_again(content: Content) -> None:
    with zipfile.ZipFile(io.BytesIO(made(content, "recipes"))) as archive:
        for option in content.options:
            text = archive.read(f"{option.name}.json").decode()
            assert Recipe.from_json(text) == option.point.recipe
        assert len([n for n in archive.namelist() if n.startswith("all/")]) == 11
        assert b"python -m prune_core evaluate" in archive.read("commands.txt")


def test_files_are_put_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = chosen_files(str(tmp_path / "new"), None, lambda kind: f"r.{kind}")
    assert sorted(files) == ["csv", "html", "pptx", "recipes"]
    put({path: kind.encode() for kind, path in files.items()}, overwrite=False)
    assert (tmp_path / "new" / "r.csv").read_bytes() == b"csv"
    with pytest.raises(ReportError, match="exists"):
        check_free(files, overwrite=False)
    check_free(files, overwrite=True)
    with pytest.raises(ReportError, match="exists"):
        put({files["csv"]: b"other"}, overwrite=False)
    assert files["csv"].read_bytes() == b"csv"
    put({files["csv"]: b"other"}, overwrite=True)
    assert files["csv"].read_bytes() == b"other"

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ReportError, match="the disk is full"):
        put({files["csv"]: b"third"}, overwrite=True)
    with pytest.raises(ReportError, match="the disk is full"):
        put({tmp_path / "another" / "r.csv": b"third"}, overwrite=True)
    assert files["csv"].read_bytes() == b"other"
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "new",
        *sorted(p.name for p in files.values()),
    ]


@pytest.mark.parametrize(
    ("to", "format", "word"),
    [
        ("", None, "name a file"),
        ("a.pptx", "html", "not for html"),
        ("nowhere/a.pptx", None, "no folder"),
        ("nowhere/deeper/", "all", "no folder"),
        ("file.txt", None, "is a file and no report"),
    ],
)
def test_places_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, format: str | None, word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("mine")
    with pytest.raises(ReportError, match=word):
        chosen_files(to, format, lambda kind: kind)


def test_names_of_models() -> None:
    assert model_name("smollm2-135m") == "SmolLM2-135M-Instruct"
    assert model_name("/a/b/my-model") == "my-model"
    assert model_name("hub:org/name@main") == "org/name@main"


def test_json_in_the_page_is_finite(content: Content) -> None:
    html = made(content.told_to("technical", "zh"), "html").decode()
    line = next(x for x in html.splitlines() if x.startswith("const figures = "))
    figures = json.loads(line.removeprefix("const figures = ").rstrip(";").replace("<\\/", "</"))
    assert set(figures) == {"light", "dark"} and figures["light"]["data"]
