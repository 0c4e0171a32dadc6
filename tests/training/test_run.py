"""The end of a run on the terminal, in the exit status and in the summary."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from project.command_line.refusal import RunFailed
from project.commands.train import run
from project.run_folder import read_summary, write_summary
from project.state.checkpoint.manifest import CheckpointError


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Trains on the leading rank until `error` is raised."""
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(run, "leave_page", lambda folder: None)

    def train(error: BaseException, **callbacks: object) -> None:
        def fit(cfg: DictConfig, run_folder: Path) -> None:
            raise error

        monkeypatch.setattr(run, "fit", fit)
        run.train(OmegaConf.create({"resume": None, "callbacks": callbacks}), tmp_path)

    return train


def test_an_error_that_says_all_is_told_without_a_traceback(ends: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failed:
        ends(CheckpointError("step=4.ckpt", "is of another model", "resume with its own"))
    assert str(failed.value) == "step=4.ckpt: is of another model; resume with its own"
    summary = read_summary(tmp_path)
    assert summary is not None
    assert summary["status"] == "failed"
    assert summary["error"] == "CheckpointError: step=4.ckpt: is of another model; resume with its own"


@pytest.mark.parametrize(
    ("callbacks", "said"),
    [
        ({"checkpoint": {"dirpath": "x"}}, "with a checkpoint; resume=auto goes on"),
        ({"checkpoint": None}, "without a checkpoint"),
    ],
)
def test_a_run_that_was_told_to_stop_says_whether_it_has_saved(
    ends: Callable[..., None], callbacks: dict, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        ends(SIGTERMException(), **callbacks)
    assert ended.value.code == 0
    assert capsys.readouterr().err == f"Stopped after the batch, {said}: {tmp_path}\n"


# -- a run that has come to its end ---------------------------------------------------------------------------------

CONFIG = {
    "experiment_name": "tiny",
    "seed": 0,
    "model": {"num_layers": 1},
    "resume": "auto",
    "callbacks": {},
    "objective": "val_loss",
    "trainer": {"max_steps": 3},
}


@pytest.fixture
def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Starts a run with `changes` in the folder of one that ended as `status` after three steps; says if it trains."""
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(run, "leave_page", lambda folder: None)
    monkeypatch.setattr(run, "check_job", lambda *args: None)
    OmegaConf.save(OmegaConf.create(CONFIG), tmp_path / "config.yaml")

    def start(status: str = "completed", **changes: object) -> bool:
        write_summary(tmp_path, {"status": status, "steps": 3, "val_loss": 2.5})
        trained = []
        monkeypatch.setattr(run, "fit", lambda cfg, run_folder: trained.append(cfg))
        assert run.train(OmegaConf.create(CONFIG | changes), tmp_path) == 2.5
        return bool(trained)

    return start


@pytest.mark.parametrize(
    "changes",
    [{}, {"logger": {"name": "another"}}, {"trainer": {"max_steps": 2}}, {"parallel": {"pp": 2}}],
    ids=["the same", "another logger", "fewer steps", "another layout"],
)
def test_a_run_that_has_come_to_its_end_is_left_as_it_is_and_said_so(
    again: Callable[..., bool], changes: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not again(**changes)
    assert capsys.readouterr().out == f"Done already: {tmp_path}\n"
    assert (read_summary(tmp_path) or {})["val_loss"] == 2.5


@pytest.mark.parametrize(
    "changes",
    [{"trainer": {"max_steps": 4}}, {"status": "interrupted"}, {"resume": None}, {"seed": 1}, {"trainer": {}}],
    ids=["more steps", "not at its end", "not resumed", "another run", "steps unbounded"],
)
def test_any_other_run_trains(again: Callable[..., bool], changes: dict) -> None:
    assert again(**changes)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SIGTERMException()])
def test_an_interrupt_after_the_end_leaves_the_run_completed(
    ends: Callable[..., None], error: BaseException, tmp_path: Path
) -> None:
    write_summary(tmp_path, {"status": "completed", "steps": 3})
    with pytest.raises(SystemExit):
        ends(error, checkpoint=None)
    assert (read_summary(tmp_path) or {})["status"] == "completed"
