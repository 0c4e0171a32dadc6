"""A run's page in a real browser."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from project.report.run_page import write_run_page
from project.spec.untrusted import Unreadable
from tests.harness.browser import FIGURES, SCHEMES, WIDTHS, Browser

MOST_BYTES = 6e6
FIGURES_OF_A_RUN = {
    *("gantt", "ranks", "losses", "throughput", "memory", "communication"),
    *("load", "imbalance", "entropy"),
}


@pytest.fixture(scope="module")
def page(run_folder: Path) -> Path:
    return write_run_page(run_folder)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_run_s_page_draws_every_figure_and_loads_nothing(
    page: Path, browser: Browser, width: int, scheme: str, tmp_path: Path
) -> None:
    browser.complaints(), browser.requests()
    browser.open(page, width, scheme)
    browser.screenshot(tmp_path / f"run_{width}_{scheme}.png")
    figures = browser.ask(FIGURES)
    assert figures.keys() == FIGURES_OF_A_RUN
    assert all(marks > 0 for marks in figures.values()), figures
    assert browser.ask("return document.documentElement.scrollWidth") <= width, "nothing to scroll sideways for"
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    red = browser.ask("return getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(red) < 60) == (scheme == "dark")


def test_hovering_over_an_action_says_what_it_is_and_shows_its_microbatch(page: Path, browser: Browser) -> None:
    browser.open(page)
    browser.hover("#figure-gantt .bars .point", 3)
    browser.until("document.querySelector('#figure-gantt .hoverlayer text') !== null")
    said = browser.ask("return document.querySelector('#figure-gantt .hoverlayer').textContent")
    assert "F" in said
    length, start = browser.ask(HOVERED)
    assert float(re.search(r"([\d.]+) ms, from", said)[1]) == pytest.approx(length), "its length, not its end"
    assert float(re.search(r"from ([\d.]+) ms", said)[1]) == pytest.approx(start)
    chosen = browser.ask(CHOSEN)
    assert len(chosen) == 8, "forward and backward on four ranks"
    assert len({name[-1] for name in chosen}) == 1


HOVERED = """
const bar = document.querySelectorAll("#figure-gantt .bars .point")[3];
const trace = bar.closest(".trace").__data__[0].trace;
return [trace.x[bar.__data__.i], trace.base[bar.__data__.i]];
"""
CHOSEN = """
const names = (bars) => [...bars.querySelectorAll(".point")].filter((bar) => bar.style.opacity === "")
  .map((bar) => bars.__data__[0].trace.customdata[bar.__data__.i][0]);
return [...document.querySelectorAll("#figure-gantt .barlayer .trace")].flatMap(names);
"""


def test_another_traced_step_is_chosen_with_the_keyboard(page: Path, browser: Browser) -> None:
    browser.open(page)
    title = "return document.querySelector('#figure-gantt .annotation-text').textContent"
    before = browser.ask(title)
    browser.ask("document.getElementById('choice-gantt').focus()")
    browser.ask(
        "const box = document.getElementById('choice-gantt'); box.value = '0'; box.dispatchEvent(new Event('input'))"
    )
    browser.until("document.querySelector('#figure-gantt .annotation-text').textContent.includes('step 1')")
    assert browser.ask(title) != before


def test_the_slider_goes_through_the_run_with_the_arrow_keys(page: Path, browser: Browser) -> None:
    browser.open(page)
    first = browser.ask("return document.getElementById('figure-load').data[0].z[0]")
    browser.ask("document.getElementById('choice-load').focus()")
    browser.press("ArrowLeft", 3)
    browser.until("document.querySelector('output[for=choice-load]').value === 'step 5'")
    assert browser.ask("return document.getElementById('figure-load').data[0].z[0]") != first
    outline = browser.ask("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "whoever uses the keyboard sees where it is"


def test_a_run_s_page_is_small_enough_to_send(page: Path) -> None:
    assert page.stat().st_size < MOST_BYTES


def test_text_from_the_run_is_escaped_in_its_page(page: Path, browser: Browser) -> None:
    browser.open(page)
    assert browser.ask("return document.querySelectorAll('main b, header b').length") == 0


def test_the_page_of_an_empty_run_folder_says_so(browser: Browser, tmp_path: Path) -> None:
    browser.complaints()
    folder = tmp_path / "<i>new"
    folder.mkdir()
    browser.open(write_run_page(folder))
    assert browser.ask("return document.querySelectorAll('.absent').length") >= 2
    assert browser.ask("return document.querySelector('h1').firstChild.textContent") == "<i>new"
    assert browser.complaints() == []


def test_making_a_report_imports_no_torch() -> None:
    code = "import sys, project.report.run_page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def changed(folder: Path, name: str, change: Callable[[dict], object]) -> Path:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("trace.json", lambda c: c["traceEvents"][-1].pop("ts"), "a span of a step needs pid, ts, dur, name and cat"),
        ("trace.json", lambda c: c["metadata"]["steps"].clear(), "metadata.steps lacks the step"),
        ("trace.json", lambda c: c["metadata"]["steps"].update(x=c["metadata"]["steps"].popitem()[1]), "steps.x"),
        ("plan.json", lambda c: c["timeline"][0].update(action="Z"), "timeline.0.action=Z"),
        ("plan.json", lambda c: c["ranks"][0].update(rank=[]), "ranks.0.rank"),
        ("plan.json", lambda c: c["claims"][0].update(verdict="fails", difference=None), "needs its difference"),
        ("plan.json", lambda c: c["ranks"][0].update(tp=None), "ranks.0.tp=None"),
        ("summary.json", lambda c: c["layout"].update(pp=None), "layout.pp=None"),
        ("summary.json", lambda c: c["layout"].update(pp=3), "world_size is not pp x dp x tp"),
        ("summary.json", lambda c: c["layout"].update(schedule="\x1b[2J"), "is not known"),
        ("summary.json", lambda c: c["layout"].update(virtual_stages=2), "is not what schedule=1F1B has"),
        ("summary.json", lambda c: c["activation_bytes_peak_per_stage"].pop(), "not of the layout's 2 stages"),
    ],
)
def test_a_page_of_a_file_that_no_run_writes_is_refused_by_its_key(
    planned_folder: Path, tmp_path: Path, name: str, change: Callable[[dict], object], said: str
) -> None:
    folder = changed(shutil.copytree(planned_folder, tmp_path / "run"), name, change)
    with pytest.raises(Unreadable, match=re.escape(said)) as refused:
        write_run_page(folder)
    assert refused.value.path == folder / name
    assert "\x1b" not in str(refused.value)


def test_a_stage_whose_activations_were_not_measured_leaves_them_out(planned_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(planned_folder, tmp_path / "run")
    write_run_page(changed(folder, "summary.json", lambda c: c["activation_bytes_peak_per_stage"].__setitem__(1, None)))


def test_a_trace_of_another_program_s_events_makes_a_page(planned_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(planned_folder, tmp_path / "run")
    write_run_page(changed(folder, "trace.json", lambda c: c["traceEvents"].append({"ph": "X", "name": "theirs"})))
