"""What the pages show can be read: by contrast, on a narrow screen, on paper."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go
import pytest
from plotly.colors import sample_colorscale

from project.report import curves, experts, gantt, memory
from project.report.page import read
from project.report.run import Run
from project.report.run_page import write_run_page
from project.report.style import AMOUNTS, FAINT, GROUNDS, KINDS, contrast, ink, size
from tests.harness.browser import Browser

TEXT, MARKS = 4.5, 3.0  # the least contrasts of WCAG 2.2, level AA


@pytest.fixture(scope="module")
def run(planned_folder: Path) -> Run:
    return Run.read(planned_folder)


def test_the_grounds_of_the_figures_are_the_page_s() -> None:
    assert tuple(re.findall(r"--card: (#\w+)", read("page.css"))) == GROUNDS


def test_lines_and_markers_stand_out_on_both_grounds(run: Run) -> None:
    figures = [curves.losses(run), curves.throughput(run), experts.imbalance(run), experts.entropy(run)]
    colours = {colour for figure in figures if figure for colour in lines_of(figure)}
    assert len(colours) > 4
    for colour in colours:
        assert min(contrast(colour, ground) for ground in GROUNDS) >= MARKS, colour


def lines_of(figure: go.Figure) -> Iterator[str]:
    for trace in figure.data:
        yield from (colour for colour in (trace.line.color, trace.marker.color) if colour)
    yield from (shape.line.color for shape in figure.layout.shapes)


def test_text_on_colours_is_read(run: Run) -> None:
    for place in range(101):
        ground = sample_colorscale(AMOUNTS, [place / 100])[0]
        assert contrast(ink(ground), ground) >= TEXT
    assert all(contrast(ink(colour), colour) >= TEXT for colour in KINDS.values() if colour != FAINT)
    load = next(iter(experts.load_over_time(run).values())).data[0]
    assert {re.search("#......", text)[0] for row in load.text for text in row} <= {"#000000", "#ffffff"}
    figure = gantt.figure(run)
    assert all(bar.textfont.color == ink(bar.marker.color) for bar in figure.data if bar.marker.color != FAINT)


def test_the_memory_figure_says_what_it_leaves_out_of_the_peak(run: Run) -> None:
    measured = memory.measured_categories(run)
    if memory.dwarfed(measured):
        assert size(max(sum(one.values()) for one in measured.values())) in memory.remark(run)
    else:
        assert memory.remark(run) == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_printed_page_shows_its_figures_whole_on_white(
    run_folder: Path, browser: Browser, scheme: str, tmp_path: Path
) -> None:
    browser.open(write_run_page(run_folder), scheme=scheme)
    browser.ask("dispatchEvent(new Event('beforeprint'))")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    widths = browser.ask("return [...document.querySelectorAll('.main-svg')].map((one) => one.clientWidth)")
    assert max(widths) <= 703, "186 mm: an A4 sheet between its margins"
    ground = "return getComputedStyle(document.querySelector('#figure-gantt .main-svg')).backgroundColor"
    assert browser.ask(ground) in ("rgb(255, 255, 255)", "rgba(255, 255, 255, 1)")
    printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
    (tmp_path / f"run_{scheme}.pdf").write_bytes(base64.b64decode(printed["data"]))
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.ask("dispatchEvent(new Event('afterprint'))")
    browser.until("document.querySelector('#figure-gantt .main-svg').clientWidth > 703")
