"""Exit status and output of whole commands."""

import time
from pathlib import Path

from project.command_line.help import command_help, key_help
from project.commands.train.command import TRAIN
from tests.harness.command import environment, run
from tests.harness.script import run_script, script_of

SCRIPT = script_of("""
check_job(cfg, TRAIN, os.environ)
print("ran tp", cfg.parallel.tp, "torch" in sys.modules)
""")


def test_a_fault_ends_training_with_status_2_and_no_traceback(tmp_path: Path) -> None:
    started = time.monotonic()
    result = run("parallel.tp=3", "parallel.tpp=1", cwd=tmp_path, env=environment(NO_COLOR="1"), status=2)
    assert time.monotonic() - started < 8
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr
    assert "parallel.tp=3: does not divide" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_is_still_hydras_and_ends_with_the_legal_values(tmp_path: Path) -> None:
    result = run("--help", cwd=tmp_path, env=environment(NO_COLOR="1"))
    assert "model: llama3_8b, mixtral_8x22b" in result.stdout
    assert key_help() in result.stdout
    assert command_help(TRAIN) in result.stdout


def test_a_sound_command_runs_and_has_imported_no_torch_to_get_there(tmp_path: Path) -> None:
    result = run_script(tmp_path, SCRIPT, "data=synthetic", "trainer.accelerator=cpu")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "ran tp 1 False\n"


def test_a_faulty_job_does_not_end_the_others_of_a_sweep(tmp_path: Path) -> None:
    result = run_script(tmp_path, SCRIPT, "-m", "data=synthetic", "trainer.accelerator=cpu", "parallel.tp=1,3,2")
    assert result.returncode == 1
    assert "ran tp 1" in result.stdout
    assert "ran tp 2" in result.stdout
    assert "Job 1 was not started" in result.stderr
    assert "parallel.tp=3: does not divide" in result.stderr
    assert "Traceback" not in result.stderr
