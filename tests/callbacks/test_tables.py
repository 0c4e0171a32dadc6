"""The tables at the start and at the end, at 80 columns and without colour."""

import io

from rich.console import Console

from project.callbacks.layout_table import Placement, layout_table
from project.planner.document.sheet import spans
from project.spec.layout import ParallelLayout
from tests.harness.tiny_module import DenseFirst


def test_the_layout_table_says_what_each_rank_holds():
    layout = ParallelLayout(pp=4, tp=4, ep=4, microbatches=8)
    ranks = [
        Placement(
            rank, rank // 4, 0, rank % 4, rank % 4, [2 * (rank // 4), 2 * (rank // 4) + 1], [rank % 4], 25_000_000
        )
        for rank in range(16)
    ]
    screen = io.StringIO()
    Console(file=screen, width=80).print(layout_table(layout, ranks, "bf16-mixed"))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    last = [cell.strip() for cell in lines[-2].strip("│").split("│")]
    assert last == ["15", "3", "6-7", "0", "3", "3", "25,000,000"]


def test_consecutive_numbers_are_named_by_their_ends():
    assert [spans(numbers) for numbers in ([], [3], [0, 1, 2], [0, 1, 4, 5, 7])] == ["-", "3", "0-2", "0-1, 4-5, 7"]


def test_layers_without_experts_have_no_line_of_expert_load_in_the_summary_table(fit, capsys):
    fit(steps=1, module=DenseFirst(2))
    assert "expert load" not in capsys.readouterr().out


def test_the_summary_table_is_printed_at_the_end(fit, capsys, tmp_path):
    fit(steps=3)
    out = capsys.readouterr().out
    for text in ("pp1 x dp1 x tp1", "3, 48 tokens", "validation loss", "2.5000", "B on the largest rank"):
        assert text in out
    assert "20.0% to 40.0% of a layer's tokens" in out
    assert "MFU" not in out  # unknown on a CPU
    assert str(tmp_path) in out.replace("\n", "")
    assert "\x1b" not in out
