"""The jobs that a second start of a sweep skips."""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from project.run_folder import write_summary
from project.sweep.resume import is_done


def config(**changes: object) -> DictConfig:
    return OmegaConf.create({"resume": None, "seed": 0, "steps": 4, "again": "${seed}"} | changes)


@pytest.fixture
def done(tmp_path: Path) -> Path:
    OmegaConf.save(config(), tmp_path / "config.yaml", resolve=True)
    write_summary(tmp_path, {"status": "completed"})
    return tmp_path


def test_a_job_completed_with_this_config_is_done(done: Path) -> None:
    assert is_done(config(), done)
    assert is_done(config(resume="auto"), done)


@pytest.mark.parametrize("changes", [{"steps": 5}, {"seed": 1}, {"new": None}])
def test_a_job_completed_with_another_config_is_not_done(changes: dict, done: Path) -> None:
    assert not is_done(config(**changes), done)


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_job_that_did_not_end_well_is_not_done(status: str, done: Path) -> None:
    write_summary(done, {"status": status})
    assert not is_done(config(), done)


def test_a_job_that_has_not_begun_is_not_done(tmp_path: Path) -> None:
    assert not is_done(config(), tmp_path)


def test_a_job_whose_classes_have_moved_since_is_still_done(tmp_path: Path) -> None:
    def parts(module: str, name: str = "Text") -> dict:
        corpus = {"_target_": f"{module}.{name}", "files": ["a.txt"]}
        return {"data": {"corpus": corpus, "all": [corpus]}, "model": {"_target_": f"{module}.Model", "d_model": 8}}

    OmegaConf.save(config(**parts("project.old.place")), tmp_path / "config.yaml", resolve=True)
    write_summary(tmp_path, {"status": "completed"})
    assert is_done(config(**parts("project.new")), tmp_path)
    assert not is_done(config(**parts("project.new", name="HuggingFace")), tmp_path)
