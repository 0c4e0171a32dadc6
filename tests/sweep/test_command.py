"""`python project/train.py -m` from outside: a sweep with failing jobs, started again, and interrupted."""

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.harness.command import MOMENT, ONE_CORE, TRAIN, environment, run, summary, wait_for
from tests.harness.terminal import in_terminal, press_ctrl_c

SWEEP = [*ONE_CORE, *TRAIN, "-m", *MOMENT, "logger=csv"]
MICROBATCHES = [1, 2, 3, 4, 5, 6]  # of a batch of 12, which 5 does not divide


def rows(folder: Path) -> list[dict]:
    return json.loads((folder / "sweep.json").read_text())["jobs"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def command(folder: Path) -> list[str]:
    dies = [
        "+callbacks.dies._target_=tests.harness.failures.Dies",
        "+callbacks.dies.microbatches=4",
        f"+callbacks.dies.unless={folder / 'mended'}",
    ]
    jobs = ["data.batch_size=12", "parallel.microbatches=range(1,7)", "trainer.max_steps=1", *dies]
    return [*SWEEP, *jobs, f"hydra.sweep.dir={folder}"]


@pytest.fixture(scope="module")
def first(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    return run(command=command, status=1)


def test_an_illegal_job_of_a_sweep_and_one_that_dies_leave_the_others_alone(folder: Path, first: object) -> None:
    found = rows(folder)
    assert [row["job"] for row in found] == ["0", "1", "2", "3", "4", "5"]
    assert [row["microbatches"] for row in found if row["status"] == "completed"] == [1, 2, 3, 6]
    assert all(row["val_loss"] > 0 and row["time_to_first_step_s"] > 0 for row in found if row["val_loss"])
    died, illegal = (row for row in found if row["status"] == "failed")
    assert (died["overrides"], died["error"]) == (["parallel.microbatches=4"], "rank 0 failed: killed by SIGKILL")
    assert illegal["overrides"] == ["parallel.microbatches=5"]
    assert illegal["error"].startswith("data.batch_size=12: is not divisible")
    with (folder / "sweep.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == [row["status"] for row in found]


def test_a_sweep_reports_failures_when_they_happen_and_again_at_the_end(
    first: subprocess.CompletedProcess[str],
) -> None:
    assert first.stderr.count("rank 0 failed: killed by SIGKILL") == 1
    assert first.stderr.count("data.batch_size=12: is not divisible") == 1
    assert "Traceback" not in first.stderr
    end = " ".join(first.stdout[first.stdout.index("measured, and below it planned") :].split())
    assert "job 3 failed: rank 0 failed: killed by SIGKILL" in end
    assert "job 4 failed: data.batch_size=12: is not divisible" in end
    assert "4 of 6 jobs completed" in end
    assert "\x1b" not in first.stdout + first.stderr


def test_a_job_s_first_step_is_counted_from_the_job_s_start(folder: Path, first: object) -> None:
    waited = [row["time_to_first_step_s"] for row in rows(folder) if row["status"] == "completed"]
    ended = [(folder / name / "summary.json").stat().st_mtime for name in ("0", "5")]
    assert waited[-1] < ended[1] - ended[0]  # from the sweep's start it would be more than that


def test_a_sweep_s_second_start_runs_only_what_is_not_done(folder: Path, first: object, command: list[str]) -> None:
    before = {name: (folder / name / "summary.json").stat().st_mtime_ns for name in "01235"}
    (folder / "mended").touch()
    second = run("resume=auto", command=command, status=1)
    after = {name: (folder / name / "summary.json").stat().st_mtime_ns for name in "01235"}
    assert [name for name in before if before[name] != after[name]] == ["3"]
    assert second.stdout.count("Done already") == 4
    assert [row["status"] for row in rows(folder)] == [*["completed"] * 4, "failed", "completed"]
    assert "5 of 6 jobs completed" in second.stdout


def test_ctrl_c_ends_the_sweep_whole(tmp_path: Path) -> None:
    jobs = ["trainer.max_steps=1000000", "seed=1,2,3", f"hydra.sweep.dir={tmp_path}"]
    with in_terminal([*SWEEP, *jobs], environment()) as process:
        wait_for(tmp_path / "0/summary.json")
        press_ctrl_c(process)
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in stderr
        assert summary(tmp_path / "0")["status"] == "interrupted"
        assert [row["status"] for row in rows(tmp_path)] == ["interrupted"]
        assert "0 of 3 jobs completed, 2 not begun; resume=auto with this hydra.sweep.dir runs" in stdout
        assert "0 of 3 jobs completed" in (tmp_path / "report.html").read_text()
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
