"""The table of allowed waits and copies, which may only shrink."""

from pathlib import Path

from tests.gpu_check import budget
from tests.gpu_check.event import Event
from tests.harness.paths import ROOT

READ = Event("wait", "project/a.py:f", "aten._local_scalar_dense")
SENT = Event("copy", "project/b.py:g", "host to device, aten._to_copy")


def test_an_event_that_is_not_allowed_so_often_is_told() -> None:
    assert budget.beyond({READ: 2, SENT: 1}, {READ: 2, SENT: 1}) == []
    assert budget.beyond({READ: 3}, {READ: 2}) == [
        "wait in project/a.py:f (aten._local_scalar_dense): 3 times, allowed 2"
    ]
    assert budget.beyond({SENT: 1}, {READ: 2}) == [
        "copy in project/b.py:g (host to device, aten._to_copy): 1 times, allowed 0"
    ]


def test_the_most_of_any_rank_counts() -> None:
    assert budget.most([{READ: 1, SENT: 5}, {READ: 2}]) == {READ: 2, SENT: 5}


def test_the_table_gets_lower_and_never_higher() -> None:
    assert budget.lowered({READ: 1, SENT: 9}, {READ: 2, SENT: 1}) == {READ: 1, SENT: 1}
    assert budget.lowered({SENT: 1}, {READ: 2}) == {}


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    budget.write({READ: 2, SENT: 1}, tmp_path / "table.csv")
    assert budget.read(tmp_path / "table.csv") == {READ: 2, SENT: 1}


def test_each_row_names_a_file_that_is_there() -> None:
    allowed = budget.read()
    assert allowed
    files = {event.place.partition(":")[0] for event in allowed if event.place.startswith("project/")}
    assert files
    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []
