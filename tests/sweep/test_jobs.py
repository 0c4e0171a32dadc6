"""A sweep's results, read from its jobs' folders."""

import csv
import json
from pathlib import Path

import pytest

from project.run_folder import write_summary
from project.sweep.jobs import jobs, write_sweep
from project.sweep.table import best, sweep_table
from tests.harness.sweep_folders import FINISHED, finished_job, printed, refused_job


def test_sweep_jobs_are_listed_by_number_with_what_sets_them_apart(tmp_path: Path) -> None:
    for number in (10, 9, 0):
        finished_job(tmp_path / str(number), f"parallel.tp={number}", "model=tiny")
    found = jobs(tmp_path)
    assert [job.name for job in found] == ["0", "9", "10"]
    assert [job.row["overrides"] for job in found] == [["parallel.tp=0"], ["parallel.tp=9"], ["parallel.tp=10"]]


def test_a_single_job_has_nothing_in_common_with_others(tmp_path: Path) -> None:
    finished_job(tmp_path / "0", "model=tiny")
    assert jobs(tmp_path)[0].row["overrides"] == ["model=tiny"]


def test_sweep_csv_and_sweep_json_hold_the_same_rows(tmp_path: Path) -> None:
    finished_job(tmp_path / "0", "parallel.tp=2", "parallel.pp=1", step_time_s=0.1 + 0.2)
    refused_job(tmp_path / "1", "parallel.tp=3", "parallel.pp=1", error="parallel.tp=3: does not divide, or so")
    write_sweep(tmp_path, jobs(tmp_path))
    rows = json.loads((tmp_path / "sweep.json").read_text())["jobs"]
    with (tmp_path / "sweep.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [list(row) for row in cells]
    assert float(cells[0]["step_time_s"]) == rows[0]["step_time_s"] == 0.1 + 0.2
    assert rows[0] | {"status": "completed", "pp": 2, "schedule": "1F1B", "peak_memory_bytes": 7} == rows[0]
    assert (rows[0]["communication_bytes"], rows[0]["planned_step_time_s"]) == (30, 0.2)
    assert cells[1]["error"] == rows[1]["error"] == "parallel.tp=3: does not divide, or so"
    assert (rows[1]["status"], rows[1]["pp"], cells[1]["pp"]) == ("failed", None, "")


def test_a_job_that_has_written_nothing_yet_has_a_row(tmp_path: Path) -> None:
    finished_job(tmp_path / "0", "parallel.tp=1")
    (tmp_path / "0/summary.json").unlink()
    write_sweep(tmp_path, jobs(tmp_path))
    assert json.loads((tmp_path / "sweep.json").read_text())["jobs"][0]["status"] == "started"


def test_the_sweep_table_fits_80_columns_with_planned_below_measured(tmp_path: Path) -> None:
    finished_job(tmp_path / "0", "parallel=a", step_time_s=1.5)
    layout = {"pp": 16, "dp": 2, "tp": 16, "ep": 16, "etp": 2, "schedule": "InterleavedZeroBubble", "microbatches": 128}
    finished_job(tmp_path / "1", "parallel=b", layout=layout, step_time_s=123.4567, tokens_per_second=12_345_678.9)
    refused_job(tmp_path / "2", "parallel.tp=3", error="parallel.tp=3: does not divide")
    text = printed(sweep_table(jobs(tmp_path)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text
    first = next(i for i, line in enumerate(lines) if line.split()[:1] == ["0"])
    assert "1.5 s" in lines[first]
    assert "200 ms" in lines[first + 1]
    assert any("parallel.tp=3" in line and "failed" in line for line in lines)


def test_a_sweep_names_the_best_of_its_completed_jobs(tmp_path: Path) -> None:
    finished_job(tmp_path / "0", "parallel=a", tokens_per_second=100.0)
    finished_job(tmp_path / "1", "parallel=b", tokens_per_second=200.0)
    finished_job(tmp_path / "2", "parallel=c", tokens_per_second=300.0)
    write_summary(tmp_path / "2", FINISHED | {"status": "failed"})
    fastest = next(iter(best(jobs(tmp_path))))
    assert fastest.startswith("fastest: job 1 (pp2 tp2 ep2, 1F1B")


@pytest.mark.parametrize("beginning", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_that_a_spreadsheet_would_compute_is_text(beginning: str, tmp_path: Path) -> None:
    refused_job(tmp_path / "0", f"{beginning}cmd|' /C calc'!A0", error=f"{beginning}1+1")
    refused_job(tmp_path / "1", "a=1", error="no")
    write_sweep(tmp_path, jobs(tmp_path))
    with (tmp_path / "sweep.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert first["error"] == ("\\r1+1" if beginning == "\r" else f"'{beginning}1+1")
    assert first["overrides"][0] in "'\\"


def test_an_interpolation_in_a_job_s_overrides_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "told")
    refused_job(tmp_path / "0", "a=1", error="no")
    refused_job(tmp_path / "1", "b=2", error="no")
    (tmp_path / "1/.hydra/overrides.yaml").write_text("- b=${oc.env:SECRET}\n")
    assert jobs(tmp_path)[1].row["overrides"] == ["b=${oc.env:SECRET}"]
