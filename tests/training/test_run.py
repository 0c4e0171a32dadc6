"""The end of a run on the terminal, in the exit status and in the summary."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from project.command_line.refusal import RunFailed
from project.commands.train import run
from project.run_folder import read_summary
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
