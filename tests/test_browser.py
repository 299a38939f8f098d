"""What only a browser can see: dragging, streaming, links, clicks, console and layout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from prune_core.assets.fetch import fetch_asset
from prune_core.models.load import load_model
from prune_core.paths import PROJECT_ROOT
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.store.journal import RunStore
from tests.browser import Tab, chromium, require_browser, serve, visitor
from tests.reporting_runs import sweep

pytestmark = [pytest.mark.browser, pytest.mark.real]

PRUNED = '[data-testid="answer-pruned"]'
# the session's own rerun and a figure's first drawing come after the text
FIGURE = ".js-plotly-plot .main-svg"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    require_browser()
    # fetching and converting a model is tested elsewhere, and takes as long as the network likes
    load_model("smollm2-135m")
    fetch_asset("grimm")
    with serve() as address:
        yield address


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[object]:
    with chromium() as running:
        yield running


@pytest.fixture
def tab(browser: object) -> Iterator[Tab]:
    with visitor(browser) as one:
        yield one
        assert one.complaints == []


def by_command_line(recipe: Recipe) -> float:
    """Perplexity by another process, without a browser or a worker."""
    run = subprocess.run(
        [
            *(sys.executable, "-m", "prune_core", "evaluate", "smollm2-135m", "--json"),
            *("--sparsity", f"{recipe.sparsity:g}", "--text", "grimm"),
            *("--seq-len", "256", "--windows", "8"),
        ],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(run.stdout)["perplexity"])


def test_a_cold_start_opens_the_overview_with_its_picture(address: str, tab: Tab) -> None:
    tab.open(f"{address}/")
    tab.page.get_by_test_id("stMetric").first.wait_for()
    tab.page.locator(FIGURE).first.wait_for()
    assert tab.page.get_by_role("heading", name="Overview").is_visible()
    assert "/overview" in tab.page.url
    assert tab.overflow() <= 0


def test_the_slider_by_keyboard_gives_what_the_command_line_gives(address: str, tab: Tab) -> None:
    tab.open(f"{address}/studio?sparsity=0.3")
    before = tab.perplexity(Recipe(sparsity=0.3).fingerprint)
    thumb = tab.slider().get_by_role("slider")
    thumb.focus()
    thumb.press("ArrowRight")
    thumb.press("ArrowRight")
    recipe = Recipe(sparsity=0.32)
    after = tab.perplexity(recipe.fingerprint)
    assert after != before
    assert after == pytest.approx(by_command_line(recipe), rel=1e-6)
    assert tab.overflow() <= 0

    link = tab.share_link()
    with visitor(tab.page.context.browser) as other:
        other.open(link)
        assert other.perplexity(recipe.fingerprint) == after
        assert other.sparsity() == 0.32
        assert other.complaints == []


def test_the_slider_by_mouse(address: str, tab: Tab) -> None:
    tab.open(f"{address}/studio")
    tab.settled(Recipe().fingerprint)
    label = tab.slider().get_by_test_id("stSliderThumbValue").bounding_box()
    track = tab.slider().get_by_role("group").bounding_box()
    assert label is not None and track is not None
    y = label["y"] + label["height"] + 6  # the thumb is just below the number it carries
    tab.page.mouse.move(track["x"] + 2, y)
    tab.page.mouse.down()
    for step in range(1, 6):
        tab.page.mouse.move(track["x"] + step * 0.1 * track["width"], y)
    tab.page.mouse.up()
    now = tab.sparsity()
    assert 0.4 < now < 0.55  # the middle of the track
    recipe = Recipe(sparsity=now)
    tab.settled(recipe.fingerprint)
    removed = tab.page.locator('[data-testid="gauge-sparsity"]').get_attribute("data-value")
    assert float(removed or "nan") == pytest.approx(now, abs=1e-4)
    tab.page.wait_for_function(f"location.search.includes('sparsity={now:g}')")


def test_the_answer_streams(address: str, tab: Tab) -> None:
    # a prompt of its own, so that no earlier answer is found
    tab.open(f"{address}/studio?sparsity=0.2&prompt=The%20lighthouse%20keeper&new_tokens=48")
    lengths, finished = [], ""
    answer = tab.page.locator(PRUNED)
    answer.wait_for()
    for _ in range(600):
        # one look: between two the text may change
        text, finished, empty = answer.evaluate(
            "el => [el.querySelector('.body').textContent, el.dataset.finished,"
            " el.querySelector('.empty') !== null]"
        )
        if not empty and (not lengths or len(text) != lengths[-1]):
            lengths.append(len(text))
        if finished == "true":
            break
        tab.page.wait_for_timeout(100)
    assert finished == "true"
    # seen growing: at least twice unfinished and shorter than in the end
    assert len(lengths) >= 3
    assert lengths == sorted(lengths)


def test_weights_draws_ridges_and_a_histogram(address: str, tab: Tab) -> None:
    tab.open(f"{address}/weights?sparsity=0.3")
    histogram = tab.page.locator(".js-plotly-plot").nth(1)
    histogram.wait_for()
    assert "30 % of the weights removed" in (histogram.locator(".gtitle").text_content() or "")
    # many bars kept, at least one removed
    assert histogram.locator(".bars path").count() > 20
    assert tab.page.locator(".js-plotly-plot").first.locator("path").count() > 30
    assert tab.overflow() <= 0


def test_a_click_on_a_head_shows_its_pattern(address: str, tab: Tab) -> None:
    tab.open(f"{address}/attention")
    cell = tab.page.locator(".js-plotly-plot").first.locator("path.point").nth(5 * 9 + 4)
    tab.page.locator(".js-plotly-plot").nth(1).wait_for()  # the strongest head's pattern
    heading = tab.page.get_by_role("heading", name="block 5, head 4")
    assert heading.count() == 0
    box = cell.bounding_box()
    assert box is not None
    tab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    heading.wait_for()
    tab.page.locator(".js-plotly-plot").nth(1).wait_for()
    tab.page.wait_for_function("location.search.includes('head=')")
    assert tab.overflow() <= 0


def test_a_model_that_cannot_be_read_is_one_sentence(
    address: str, tab: Tab, tmp_path: Path
) -> None:
    tab.open(f"{address}/studio?model={tmp_path}")
    alert = tab.page.get_by_test_id("stAlert")
    alert.first.wait_for()
    assert alert.count() == 1
    assert "Traceback" not in alert.inner_text()
    tab.page.get_by_role("link", name="Overview").click()
    tab.page.get_by_role("heading", name="Overview").wait_for()
    tab.page.get_by_role("button", name="Use", exact=False).first.click()
    tab.page.locator(FIGURE).first.wait_for()


def test_a_click_on_a_point_of_the_trade_off_opens_it_in_the_studio(address: str, tab: Tab) -> None:
    store = RunStore(os.environ["PRUNE_STORE"])  # the server's too
    for run in sweep(source="smollm2-135m", criteria=("magnitude", "random")):
        store.save_run(run.cell, run.numbers)
    store.close()
    tab.open(f"{address}/tradeoff")
    figure = tab.page.locator(".js-plotly-plot").first
    figure.locator(".points path.point").first.wait_for()
    tab.rest()  # a figure's first layout comes after its points
    wanted = figure.evaluate(
        """(figure) => {
            const trace = figure.data.findIndex(t => (t.customdata || []).length > 3);
            const place = figure.data[trace].x.length - 3;
            const drawn = figure.querySelectorAll('.scatterlayer .trace');
            for (const group of drawn) {
                if (group.__data__[0].trace.index !== trace) continue;
                const box = group.querySelectorAll('.point')[place].getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }
        }"""
    )
    tab.page.mouse.click(*wanted)
    tab.page.wait_for_url("**/studio?**")
    tab.page.get_by_role("heading", name="Studio").wait_for()
    tab.page.wait_for_function("location.search.includes('sparsity=0.')")
    tab.page.locator('[data-testid="gauge-perplexity"][data-state="settled"]').wait_for()
    assert tab.overflow() <= 0


def test_clicks_drop_heads_and_keep_them_again(address: str, tab: Tab) -> None:
    tab.open(f"{address}/attention")
    tab.page.locator(".js-plotly-plot").nth(1).wait_for()
    tab.page.get_by_text("A click drops a head", exact=False).click()
    tab.rest()  # no figure is being replaced

    def click(block: int, head: int, left: int) -> None:
        tab.page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")
        cell = tab.page.locator(".js-plotly-plot").first.locator("path.point").nth(9 * block + head)
        box = cell.bounding_box()
        assert box is not None
        tab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.page.get_by_text(f"{left} of 270").first.wait_for()
        tab.rest()
        # nothing that the browser repeats afterwards undoes it
        assert tab.page.get_by_text(f"{left} of 270").first.is_visible()
        assert parse_qs(urlsplit(tab.page.url).query)["head"] == [f"self:{block}:{head}"]

    click(5, 4, 269)
    click(6, 1, 268)
    click(5, 4, 269)  # the same square again
    click(5, 4, 268)
    assert parse_qs(urlsplit(tab.page.url).query)["heads"] == ["5:4,6:1"]


def test_clicks_drop_blocks_and_keep_them_again(address: str, tab: Tab) -> None:
    tab.open(f"{address}/layers")
    tab.page.get_by_text("30 of 30 blocks kept").wait_for()
    tab.page.locator(".js-plotly-plot .bars .point path").first.wait_for()
    gone: set[int] = set()
    for block in (4, 9, 9, 14, 4):
        tab.page.wait_for_timeout(1500)
        bars = tab.page.locator(".js-plotly-plot").first.locator(".bars .point path")
        bars.first.wait_for()
        # a dropped bar is two paths, one of them its hatching
        boxes = [box for bar in bars.all() if (box := bar.bounding_box()) is not None]
        middles = {box["x"] + box["width"] / 2: box["y"] for box in boxes}
        assert max(box["width"] for box in boxes) < (max(middles) - min(middles)) / 29
        wanted = min(middles) + block * (max(middles) - min(middles)) / 29
        middle = min(middles, key=lambda x: abs(x - wanted))
        # on its logarithmic axis a bar ends far below the figure
        tab.page.mouse.click(middle, middles[middle] + 4)
        gone ^= {block}
        tab.page.get_by_text(f"{30 - len(gone)} of 30 blocks kept").wait_for()
    tab.page.wait_for_timeout(1500)
    assert parse_qs(urlsplit(tab.page.url).query)["drop_blocks"] == ["14"]


def test_back_to_dense_is_dense(address: str, tab: Tab) -> None:
    tab.open(f"{address}/studio?model=tiny-gpt2")
    dense = tab.perplexity(Recipe().fingerprint)
    thumb = tab.slider().get_by_role("slider")
    thumb.focus()
    thumb.press("End")
    assert tab.perplexity(Recipe(sparsity=1.0).fingerprint) != dense
    tab.page.go_back()
    assert tab.perplexity(Recipe().fingerprint) == dense
    assert tab.sparsity() == 0


def test_a_reset_is_one_step_back(address: str, tab: Tab) -> None:
    recipe = Recipe(sparsity=0.04, drop_blocks=(1,), drop_mlp=(0,), drop_heads=((0, 0),))
    tab.open(f"{address}/studio?model=tiny-llama&drop_blocks=1&drop_mlp=0&heads=0:0&sparsity=0.04")
    before = tab.perplexity(recipe.fingerprint)
    entries = tab.page.evaluate("history.length")
    tab.page.get_by_role("button", name="Reset").click()
    tab.perplexity(Recipe().fingerprint)
    assert "drop" not in tab.page.url and "heads" not in tab.page.url
    assert tab.page.evaluate("history.length") <= entries + 1
    tab.page.go_back()
    assert tab.perplexity(recipe.fingerprint) == before


def test_another_prompt_is_answered_and_linked(address: str, tab: Tab) -> None:
    tab.open(f"{address}/studio?model=tiny-gpt2")
    tab.settled(Recipe().fingerprint)
    done = tab.page.locator(f"{PRUNED}[data-finished='true']:not(.stale)")
    done.wait_for()
    box = tab.page.get_by_role("textbox", name="Prompt")
    box.fill("A prompt that nobody has asked before")
    box.press("Enter")
    tab.page.wait_for_url("**prompt=A*prompt*")
    tab.page.get_by_role("button", name="Write", exact=True).wait_for()
    done.wait_for()
