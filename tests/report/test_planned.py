"""A report's planned figures beside the measured ones."""

import shutil
from pathlib import Path

import pytest

from project.report import communication, gantt, memory, rank_map
from project.report.claims import claims
from project.report.run import Run
from project.report.run_page import key_figures, write_run_page
from project.spec.schedules.order import order_of
from tests.harness.browser import Browser
from tests.harness.reported_run import CASE, CLAIM


@pytest.fixture(scope="module")
def folder(planned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(planned_folder, tmp_path_factory.mktemp("planned") / "run")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return Run.read(folder)


def test_the_planned_chart_stands_above_the_measured_one(run: Run) -> None:
    chart = gantt.figure(run)
    assert chart is not None
    titles = [title.text for title in chart.layout.annotations]
    assert titles[0] == "planned"
    assert titles[1].startswith("measured")
    assert chart.layout.yaxis.domain[0] > chart.layout.yaxis2.domain[1]
    planned = [name for bars in chart.data if bars.yaxis == "y" for name, *_ in bars.customdata if name != "idle"]
    assert sorted(planned) == sorted(str(action) for rank in order_of(CASE.layout) for action in rank)


def test_the_chart_s_measured_bars_are_the_trace_s(run: Run) -> None:
    (chart,) = [gantt.figure(run, step) for step in run.traced_steps[-1:]]
    assert chart is not None
    measured = sum(length for bars in chart.data if bars.yaxis == "y2" for length in bars.x)
    seconds = run.trace_step(run.traced_steps[-1])["seconds"]
    assert measured / 1000 == pytest.approx(4 * seconds, rel=0.02), "four ranks"


def test_key_figures_say_how_far_off_the_plan_was(run: Run) -> None:
    beside = {figure.name: figure.beside for figure in key_figures(run)}
    assert beside["step time"].startswith("planned ")
    assert "(+100%)" in beside["step time"]


def test_measured_memory_and_traffic_stand_beside_their_plans(run: Run) -> None:
    bars = memory.figure(run)
    assert bars is not None
    assert {one.offsetgroup for one in bars.data} == {"planned", "measured"}
    assert {"weights", "gradients", "optimizer", "activations", "everything else"} == {one.name for one in bars.data}
    axes = communication.figure(run)
    assert axes is not None
    assert {"tp planned", "tp measured"} <= set(axes.data[0].y)
    assert "<td>3</td><td>1 MB</td>" in communication.numbers(run), "calls and bytes as planned"


def test_memory_categories_add_up_to_the_measured_peak(run: Run) -> None:
    peaks = run.summary["peak_memory_bytes_per_rank"]
    assert [sum(categories.values()) for categories in memory.measured_categories(run).values()] == peaks


def test_the_rank_map_says_where_a_rank_is(run: Run) -> None:
    chart = rank_map.figure(run)
    assert chart is not None
    assert chart.data[0].text[1][0] == "<b>2</b><br>layers 2-3<br>experts 0-1"
    assert "node 0, GPU 2" in chart.data[0].hovertext[1][0]


def test_a_report_s_claims_carry_their_verdicts_in_words(run: Run, folder: Path, browser: Browser) -> None:
    table = claims(run)
    assert "<td>2 GB</td><td>117 MB</td>" in table, "with their units, as the plan's table"
    assert "✗ fails: 1/17</td>" in table
    browser.complaints()
    browser.open(write_run_page(folder))
    assert browser.ask("return document.querySelector('#claims td').textContent") == CLAIM["claim"]
    assert browser.ask("return document.querySelectorAll('.absent').length") == 0
    assert browser.complaints() == []
