"""The progress display of a training run."""

import io
import re

import pytest
from rich.console import Console

from project.callbacks.progress import BarProgress, PlainProgress, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_in_a_pipe_is_plain_lines_now_and_then(fit, capsys):
    fit(steps=5)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines[:-1]] == ["1/5", "2/5", "4/5", "5/5"]
    assert lines[-1] == "step 5  validation loss 2.5000"
    for name in ("loss ", " tokens/s", " s/step", "grad norm 1.500", "imbalance "):
        assert name in lines[0]
    assert all("\x1b" not in line for line in lines)


def test_progress_figures_fit_in_80_columns(fit, capsys):
    fit(steps=20)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert max(map(len, lines)) <= 90  # the step's count included, which the bar shows elsewhere


def test_progress_in_a_terminal_is_a_bar(fit):
    screen = Terminal()
    console = Console(file=screen, force_terminal=True, width=80)
    fit(steps=3, display=BarProgress(console))
    first_row, second_row = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.getvalue()).splitlines()[-2:]
    assert first_row.split("step", 1)[1].split()[0] == "3/3"
    assert first_row.endswith("val loss 2.5000")
    assert "grad norm 1.500" in second_row


def test_a_failed_run_s_progress_bar_gives_the_cursor_back(fit):
    screen = Terminal()
    bar = BarProgress(Console(file=screen, force_terminal=True, width=80))
    bar.on_exception(None, None, ValueError())  # in the parent of forked ranks no bar was ever started
    assert screen.getvalue().endswith("\x1b[?25h")


@pytest.mark.parametrize(("stream", "display"), [(Terminal, BarProgress), (io.StringIO, PlainProgress)])
def test_standard_output_decides_between_progress_bar_and_lines(stream, display, monkeypatch):
    monkeypatch.setattr("sys.stdout", stream())
    assert isinstance(progress(every_n_steps=10), display)
