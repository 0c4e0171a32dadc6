"""The recorded comparison with this machine's steps is that of the cluster file that is committed beside it."""

from pathlib import Path

import pytest

import benchmarks.planner_layouts as benchmark
from benchmarks.planner_record import CALIBRATED, RECORD, Row, checksum, read, row, spearman, table, write
from project.planner.machine.cluster_file import load_cluster

RECORDED = pytest.mark.skipif(not RECORD.exists(), reason="no run of benchmarks.planner_layouts is recorded yet")
ROWS = [row("1", 1, 0.9, 1.0, "cpu_here"), row("pp2", 2, 0.8, 0.9, "cpu_here"), row("pp4", 4, 2.2, 2.0, "cpu_here")]


@RECORDED
def test_the_planner_record_is_what_the_committed_cluster_file_plans():
    rows = read()
    assert [one.layout for one in rows] == list(benchmark.LAYOUTS)
    for one in rows:
        layout = benchmark.LAYOUTS[one.layout]
        assert one.sha256 == checksum(one.cluster), f"{one.cluster}.yaml is not the file of the recorded run"
        assert (one.ranks, one.planned_s) == (
            layout.world_size,
            round(benchmark.predicted(layout, load_cluster(one.cluster, CALIBRATED)), 6),
        )


@RECORDED
def test_the_results_page_shows_the_planner_record():
    results = (RECORD.parent / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    assert set(table(read()).splitlines()) <= set(results)


def test_a_written_planner_record_is_read_back_unchanged(tmp_path):
    write(ROWS, tmp_path / "record.csv")
    assert read(tmp_path / "record.csv") == ROWS


def test_another_cluster_file_has_another_checksum(tmp_path):
    file = tmp_path / "cpu_here.yaml"
    file.write_text("name: cpu_here\n")
    before = checksum("cpu_here", tmp_path)
    file.write_text("name: cpu_here \n")
    assert checksum("cpu_here", tmp_path) != before


def test_the_planner_record_s_table_names_its_cluster_file_and_date():
    heading, *lines = table(ROWS).splitlines()
    for said in ("cpu_here.yaml", checksum("cpu_here"), ROWS[0].date, ROWS[0].commit):
        assert said in heading
    assert lines[3:] == [
        "| 1 | 1 | 0.90 | 1.00 | -10% |",
        "| pp2 | 2 | 0.80 | 0.90 | -11% |",
        "| pp4 | 4 | 2.20 | 2.00 | +10% |",
        "",
        "Spearman 1.00, mean error 10%",
    ]


def test_planned_and_measured_orders_are_compared_by_rank():
    assert spearman([1.0, 2.0, 3.0], [10.0, 20.0, 90.0]) == 1
    assert spearman([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == -1


@pytest.fixture
def nothing_runs(monkeypatch, tmp_path):
    """Makes training and calibrating an error."""

    def refused(*arguments: object, **options: object) -> float:
        raise AssertionError("nothing is to be run")

    monkeypatch.setattr(benchmark, "measured", refused)
    monkeypatch.setattr(benchmark.processors, "calibrate", refused)
    return tmp_path


def test_a_recorded_run_is_planned_anew_without_another(nothing_runs, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "read", lambda: ROWS)
    benchmark.main(["--recorded"])
    printed = capsys.readouterr().out
    for one in ROWS:
        plan = benchmark.predicted(benchmark.LAYOUTS[one.layout], load_cluster("cpu_here", CALIBRATED))
        assert f"| {one.layout} | {one.ranks} | {plan:.2f} | {one.measured_s:.2f} |" in printed


def test_a_run_calibrates_into_the_file_that_is_committed_and_records_by_it(monkeypatch, tmp_path, capsys):
    """Replaces the measured steps by one second a rank, and the calibration by the committed one."""
    written: dict[Path, object] = {}
    recorded: list[Row] = []
    cluster = load_cluster("cpu_here", CALIBRATED)
    monkeypatch.setattr(benchmark.processors, "calibrate", lambda name, progress: cluster)
    monkeypatch.setattr(benchmark, "write_cluster", lambda what, path, heading: written.update({path: what}))
    monkeypatch.setattr(benchmark, "write", recorded.extend)
    monkeypatch.setattr(benchmark, "measured", lambda layout, steps: float(layout.world_size))
    benchmark.main(["--calibrate"])
    assert written == {CALIBRATED / "cpu_here.yaml": cluster}
    assert [(one.layout, one.measured_s) for one in recorded] == [
        (name, layout.world_size) for name, layout in benchmark.LAYOUTS.items()
    ]
    assert {one.sha256 for one in recorded} == {checksum("cpu_here")}
    assert table(recorded) in capsys.readouterr().out
