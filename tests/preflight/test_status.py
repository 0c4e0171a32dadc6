"""How whole commands end, seen from outside."""

import os
import subprocess
import sys
import time
from pathlib import Path

from project.command_line.command_help import command_help
from project.command_line.key_help import key_help
from project.commands.train.command import TRAIN

ROOT = Path(__file__).resolve().parents[2]

# A job that runs for no time at all.
SCRIPT = f"""
import os, sys, hydra
from project.command_line.check import check, check_job
from project.commands.train.command import TRAIN

@hydra.main(version_base="1.3", config_path={str(ROOT / "configs")!r}, config_name="train")
def run(cfg):
    check_job(cfg, TRAIN, os.environ)
    print("ran tp", cfg.parallel.tp, "torch" in sys.modules)

check(sys.argv[1:], TRAIN, os.environ)
run()
"""


def ended(folder: Path, *argv: str, script: Path | None = None) -> subprocess.CompletedProcess[str]:
    if script is None:
        script = folder / "script.py"
        script.write_text(SCRIPT)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, str(script), *argv]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_a_fault_ends_training_with_status_2_and_no_traceback(tmp_path: Path) -> None:
    started = time.monotonic()
    result = ended(tmp_path, "parallel.tp=3", "parallel.tpp=1", script=ROOT / "project" / "train.py")
    assert time.monotonic() - started < 8
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr
    assert "parallel.tp=3: does not divide" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_is_still_hydras_and_ends_with_the_legal_values(tmp_path: Path) -> None:
    result = ended(tmp_path, "--help", script=ROOT / "project" / "train.py")
    assert result.returncode == 0
    assert "model: moe_8x4, small, tiny" in result.stdout
    assert key_help() in result.stdout
    assert command_help(TRAIN) in result.stdout


def test_a_sound_command_runs_and_has_imported_no_torch_to_get_there(tmp_path: Path) -> None:
    result = ended(tmp_path, "data=synthetic", "trainer.accelerator=cpu")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "ran tp 1 False\n"


def test_a_faulty_job_does_not_end_the_others_of_a_sweep(tmp_path: Path) -> None:
    result = ended(tmp_path, "-m", "data=synthetic", "trainer.accelerator=cpu", "parallel.tp=1,3,2")
    assert result.returncode == 1
    assert "ran tp 1" in result.stdout
    assert "ran tp 2" in result.stdout
    assert "Job 1 was not started" in result.stderr
    assert "parallel.tp=3: does not divide" in result.stderr
    assert "Traceback" not in result.stderr
