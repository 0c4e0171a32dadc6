"""A run's folder stands for its last checkpoint, wherever one is asked for."""

import os
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from project.commands.train.starting_point import checkpoint_of, resume_faults
from project.spec.model import ModelConfig
from project.state.checkpoint.last import LINK, checkpoint_at
from project.state.checkpoint.newest import tidy
from tests.harness.checkpoint_files import write_checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two checkpoints, the later of which has the lower step, and an unfinished one."""
    for number, name in enumerate(("step=20.ckpt", "step=10.ckpt")):
        path = tmp_path / "checkpoints" / name
        write_checkpoint(path)
        os.utime(path / "manifest.json", (number, number))
    (tmp_path / "checkpoints" / ".step=30.ckpt.partial-1").mkdir()
    return tmp_path


def test_the_last_checkpoint_is_the_one_written_last_or_that_the_run_s_link_leads_to(run: Path) -> None:
    assert checkpoint_at(run).name == "step=10.ckpt"
    (run / "checkpoints" / "last.ckpt").symlink_to("step=20.ckpt")
    assert checkpoint_at(run).name == "step=20.ckpt"


def test_a_killed_run_s_last_link_is_moved_by_the_next_start(run: Path) -> None:
    link = run / "checkpoints" / "last.ckpt"
    link.symlink_to("step=20.ckpt")
    tidy(run / "checkpoints")
    assert link.readlink() == Path("step=10.ckpt")
    assert checkpoint_at(run).name == "step=10.ckpt"


def test_resume_takes_a_run_folder_or_a_checkpoint(run: Path) -> None:
    for path in (run, run / "checkpoints" / "step=10.ckpt"):
        assert list(resume_faults(str(path), ModelConfig())) == []
        assert checkpoint_of(OmegaConf.create({"resume": str(path)}), run) == str(run / "checkpoints/step=10.ckpt")


def test_resuming_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (fault,) = resume_faults(str(tmp_path), ModelConfig())
    assert "manifest.json: is missing, so this is no whole checkpoint" in fault.message


def test_a_run_s_link_out_of_its_checkpoints_is_not_followed(run: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(run / "checkpoints" / "step=10.ckpt", tmp_path / "elsewhere/step=99.ckpt")
    (run / "checkpoints" / LINK).unlink(missing_ok=True)
    (run / "checkpoints" / LINK).symlink_to(elsewhere)
    assert checkpoint_at(run).parent == run / "checkpoints"
