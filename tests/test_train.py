"""`python project/train.py` from outside: its run folder, and the ways in which a run ends."""

import csv
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from project.run_folder import hold
from tests.harness.command import RANKS_4, TORCHRUN, TRAIN, environment, losses, run, summary, wait_for
from tests.harness.terminal import in_terminal, press_ctrl_c


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forked")
    run(*RANKS_4, "trainer.max_steps=4", f"hydra.run.dir={folder}")
    return folder


def test_a_run_folder_holds_what_the_contract_says(forked: Path) -> None:
    held = {path.name for path in forked.iterdir()}
    assert {".hydra", "config.yaml", "run.log", "metrics.csv", "summary.json", "wandb"} <= held
    told = summary(forked)
    assert (told["status"], told["error"], told["steps"], told["tokens"]) == ("completed", None, 4, 4 * 8 * 32)
    assert told["layout"] == {
        "pp": 2,
        "dp": 1,
        "tp": 2,
        "ep": 2,
        "etp": 1,
        "world_size": 4,
        "schedule": "1F1B",
        "microbatches": 2,
        "virtual_stages": 1,
    }
    assert len(told["parameters_per_rank"]) == len(told["peak_memory_bytes_per_rank"]) == 4
    assert told["step_time_s"] > 0
    assert told["val_loss"] > 0
    assert [sum(layer) for layer in told["expert_load"]] == pytest.approx([1.0] * 8)


def test_metrics_are_written_at_full_precision_a_row_a_step(forked: Path) -> None:
    with (forked / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    promised = {"train/loss", "train/aux_loss", "train/grad_norm", "train/tokens_per_second", "train/step_time_s"}
    assert promised <= rows[0].keys()
    assert float(rows[-1]["train/loss"]) == summary(forked)["train_loss_last"]
    assert rows[-1]["val/loss"]


def test_torchrun_gives_the_forked_run_s_losses_bit_for_bit(forked: Path, tmp_path: Path) -> None:
    torchrun = [*TORCHRUN, "--nproc-per-node", "4", TRAIN[1]]
    run(*RANKS_4, "trainer.max_steps=4", "logger=csv", f"hydra.run.dir={tmp_path}", command=torchrun)
    assert losses(tmp_path) == losses(forked)


def test_torchrun_restarts_after_a_worker_was_killed_and_the_losses_are_the_same(forked: Path, tmp_path: Path) -> None:
    torchrun = [*TORCHRUN, "--nproc-per-node", "4", "--max-restarts", "1", TRAIN[1]]
    bomb = ["+callbacks.bomb._target_=tests.harness.failures.Bomb", "+callbacks.bomb.rank=3", "+callbacks.bomb.batch=2"]
    saving = ["+callbacks.bomb.kind='kill once'", "callbacks.checkpoint.every_n_train_steps=1", "resume=auto"]
    arguments = [*RANKS_4, *bomb, *saving, "trainer.max_steps=4", "logger=csv", f"hydra.run.dir={tmp_path}"]
    assert run(*arguments, command=torchrun).stdout.count("bomb") == 1
    assert losses(tmp_path) == losses(forked)
    assert summary(tmp_path)["status"] == "completed"


def test_a_run_told_to_end_saves_and_the_next_goes_on_from_there(forked: Path, tmp_path: Path) -> None:
    arguments = [*RANKS_4, "logger=csv", "trainer.max_steps=4", f"hydra.run.dir={tmp_path}", "resume=auto"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "env": environment()}
    first = subprocess.Popen([*TRAIN, *arguments], **quiet)
    wait_for(tmp_path / "metrics.csv")
    first.send_signal(signal.SIGTERM)  # to the parent alone, as `kill` does
    _, stderr = first.communicate(timeout=60)
    assert first.returncode == 0
    assert b"resume=auto goes on" in stderr
    assert summary(tmp_path)["status"] == "interrupted"
    assert 1 <= summary(tmp_path)["steps"] < 4
    with hold(tmp_path):
        refused = run(*arguments, status=2)
    assert "another run that is not over yet writes there" in refused.stderr
    run(*arguments)
    assert losses(tmp_path) == losses(forked)


@pytest.mark.alone
@pytest.mark.parametrize(
    ("kind", "said"),
    [("raise", "ZeroDivisionError: planted in a callback"), ("kill", "rank 3 failed: killed by SIGKILL")],
)
def test_one_rank_s_death_ends_the_run_with_its_own_error_once(kind: str, said: str, tmp_path: Path) -> None:
    bomb = [
        "+callbacks.bomb._target_=tests.harness.failures.Bomb",
        "+callbacks.bomb.rank=3",
        f"+callbacks.bomb.kind={kind}",
    ]
    done = run(*RANKS_4, *bomb, "logger=csv", "trainer.max_steps=5", f"hydra.run.dir={tmp_path}", status=1)
    planted = next(float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("bomb"))
    assert time.time() - planted < 5
    assert done.stderr.count(said) == 1
    assert "Connection closed" not in done.stderr
    told = summary(tmp_path)
    assert told["status"] == "failed"
    assert "rank 3 failed" in told["error"]
    assert told["steps"] == 1


@pytest.mark.alone
def test_a_rank_that_hangs_is_named_with_what_it_began_last(tmp_path: Path) -> None:
    bomb = [
        "+callbacks.bomb._target_=tests.harness.failures.Bomb",
        "+callbacks.bomb.rank=3",
        "+callbacks.bomb.kind=hang",
    ]
    arguments = [*RANKS_4, *bomb, "watchdog.timeout_s=10", "logger=csv", "trainer.max_steps=5"]
    done = run(*arguments, f"hydra.run.dir={tmp_path}", status=1)
    said = (
        "rank 3 failed: did not arrive where the others wait (watchdog.timeout_s); began last: rank 3: step 1, the sums"
    )
    assert said in done.stderr
    assert "; the others: rank " in summary(tmp_path)["error"]


@pytest.mark.alone
def test_a_rank_that_hangs_under_torchrun_is_named_too(tmp_path: Path) -> None:
    torchrun = [*TORCHRUN, "--nproc-per-node", "4", TRAIN[1]]
    bomb = [
        "+callbacks.bomb._target_=tests.harness.failures.Bomb",
        "+callbacks.bomb.rank=3",
        "+callbacks.bomb.kind=sleep",
    ]
    arguments = [*RANKS_4, *bomb, "watchdog.timeout_s=5", "logger=csv", "trainer.max_steps=5"]
    done = run(*arguments, f"hydra.run.dir={tmp_path}", command=torchrun, status=1)
    error = summary(tmp_path)["error"]
    assert (
        "rank 3 failed: did not arrive where the others wait (watchdog.timeout_s); began last: rank 3: step 1," in error
    )
    assert re.search(r"; the others: rank 0: step 2, action 0F\d; rank 1: step 2, action 0F\d; rank 2: ", error)
    assert error.removeprefix("NotArrived: ") in done.stderr


@pytest.mark.alone
def test_ctrl_c_ends_all_ranks_at_once(tmp_path: Path) -> None:
    arguments = [*RANKS_4, "logger=csv", "trainer.max_steps=1000", f"hydra.run.dir={tmp_path}"]
    with in_terminal([*TRAIN, *arguments], environment()) as process:
        wait_for(tmp_path / "summary.json")
        press_ctrl_c(process)
        start = time.monotonic()
        _, stderr = process.communicate(timeout=30)
        assert time.monotonic() - start < 5
        assert process.returncode == 130
        assert "Traceback" not in stderr
        assert re.search(r"\nInterrupted; (its last checkpoint is step=\d+|no checkpoint was saved)", stderr)
        assert summary(tmp_path)["status"] == "interrupted"
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


def test_a_corpus_too_short_for_a_batch_is_refused_before_any_rank_starts(tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("a few words\n" * 200)
    done = run("model=tiny", "data=text", f"data.files=[{text}]", f"hydra.run.dir={tmp_path / 'run'}", status=2)
    assert "data.files" in done.stderr
    assert "give more text" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_start_says_what_it_does_and_where_it_goes_on(tmp_path: Path) -> None:
    arguments = [*RANKS_4, "logger=csv", f"hydra.run.dir={tmp_path}", "resume=auto"]
    first = run(*arguments, "trainer.max_steps=1").stdout.splitlines()
    assert first[:3] == [
        "The configuration is sound. Loads torch and Lightning.",
        "Begins at step 0: this experiment has no checkpoint yet.",
        "Starts the ranks, 4 in all.",
    ]
    second = run(*arguments, "trainer.max_steps=2").stdout.splitlines()
    assert second[1] == f"Resumes from {tmp_path}/checkpoints/step=1.ckpt"
    assert run(*arguments, "trainer.max_steps=3", "verbosity=quiet").stdout == ""
