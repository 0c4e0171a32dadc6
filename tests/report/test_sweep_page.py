"""A sweep's page in a real browser."""

from pathlib import Path

import pytest

from project.report.sweep_figures import parallel_coordinates, time_against_memory
from project.report.sweep_page import write_sweep_page
from project.sweep.jobs import Job, jobs, read_sweep, write_sweep
from tests.harness.browser import FIGURES, SCHEMES, WIDTHS, Browser
from tests.harness.sweep_folders import finished_job, refused_job

FAULT = "parallel.tp=3: <b>does not divide</b> model.num_heads=8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "sweep"
    for job, (schedule, microbatches, seconds, size) in enumerate(
        [("1F1B", 4, 0.4, 700), ("1F1B", 8, 0.3, 800), ("GPipe", 4, 0.5, 900), ("GPipe", 8, 0.2, 1200)]
    ):
        layout = {"schedule": schedule, "microbatches": microbatches}
        override = f"parallel.schedule={schedule}"
        memory = [size * 2**20] * 4
        finished_job(folder / str(job), override, layout=layout, step_time_s=seconds, peak_memory_bytes_per_rank=memory)
    refused_job(folder / "4", "parallel.tp=3", error=FAULT)
    write_sweep(folder, jobs(folder))
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return write_sweep_page(folder)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_sweep_s_page_draws_every_figure_and_loads_nothing(
    page: Path, browser: Browser, width: int, scheme: str, tmp_path: Path
) -> None:
    browser.complaints(), browser.requests()
    browser.open(page, width, scheme)
    browser.screenshot(tmp_path / f"sweep_{width}_{scheme}.png")
    figures = browser.ask(FIGURES)
    assert figures.keys() == {"coordinates", "pareto"}
    assert all(marks > 0 for marks in figures.values()), figures
    assert browser.ask("return document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]


def test_a_job_s_row_in_a_sweep_s_page_opens_its_run(page: Path, browser: Browser) -> None:
    browser.open(page)
    links = browser.ask("return [...document.querySelectorAll('#jobs a')].map((link) => link.href)")
    assert links == [(page.parent / str(job) / "report.html").as_uri() for job in range(5)]


def test_a_sweep_s_page_says_why_a_job_was_refused_as_text(page: Path, browser: Browser) -> None:
    browser.open(page)
    assert browser.ask("return document.querySelector('#jobs .error').textContent") == FAULT
    assert browser.ask("return document.querySelectorAll('#jobs b').length") == 0


def test_hovering_over_a_job_s_line_brings_it_alone_to_the_front(page: Path, browser: Browser) -> None:
    browser.open(page)
    browser.hover("#figure-coordinates .scatterlayer .point", 1)
    browser.until(f"[...document.querySelectorAll('#figure-coordinates .trace')].filter({SHOWN}).length === 1")
    browser.until("document.querySelector('#figure-coordinates .hoverlayer text') !== null")


SHOWN = "(one) => one.style.opacity === ''"


def test_a_sweep_s_page_has_planned_figures_under_measured_ones(page: Path, browser: Browser) -> None:
    browser.open(page)
    cell = "return document.querySelector('#jobs tbody tr td:nth-of-type(4)').innerText"
    assert browser.ask(cell).split() == ["400", "ms", "200", "ms"]


def test_a_sweep_s_pareto_front_has_the_jobs_that_none_beats_in_both(folder: Path) -> None:
    chart = time_against_memory(read_sweep(folder)[0])
    assert chart is not None
    names = {points.name: [one["name"] for one in points.customdata] for points in chart.data if points.customdata}
    assert names == {"on the front": ["3", "1", "0"], "others": ["2"]}


def test_a_column_that_is_the_same_for_all_jobs_is_no_axis(folder: Path) -> None:
    chart = parallel_coordinates(read_sweep(folder)[0])
    assert chart is not None
    headings = [words.text for words in chart.layout.annotations if "<b>" in words.text]
    assert headings == [f"<b>{name}</b>" for name in ("schedule", "microbatches", "memory", "step time")]


def test_a_folder_s_name_is_quoted_in_a_sweep_page_s_links() -> None:
    assert Job({"job": "a b/#1"}).link == "a%20b/%231/report.html"


def test_the_page_of_runs_that_were_too_short_for_a_median_says_what_is_missing(tmp_path: Path) -> None:
    for job, microbatches in enumerate((4, 8)):
        layout = {"schedule": "1F1B", "microbatches": microbatches}
        finished_job(
            tmp_path / str(job), "trainer.max_steps=2", layout=layout, step_time_s=None, tokens_per_second=None
        )
    write_sweep(tmp_path, jobs(tmp_path))
    said = write_sweep_page(tmp_path).read_text()
    assert "2 of 2 jobs completed" in said
    assert "No completed job has a step time, the median without the first 2 steps." in said
    assert "No job was completed." not in said
    assert "quickest" not in said, "no colour for a step time that there is not"


def test_a_narrow_screen_shows_a_job_s_numbers(page: Path, browser: Browser, tmp_path: Path) -> None:
    browser.open(page, width=390)
    browser.screenshot(tmp_path / "narrow.png")
    cells = "document.querySelectorAll('.jobs tbody tr:first-child td[data-column]')"
    assert browser.ask(f"return {cells}.length") > 4
    assert browser.ask(f"return Math.max(...[...{cells}].map((one) => one.getBoundingClientRect().right))") <= 390
    named = f"return [...{cells}].map((one) => getComputedStyle(one, '::before').content)"
    assert '"step time"' in browser.ask(named)
