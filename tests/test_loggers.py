"""The loggers of a run."""

from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import WandbLogger

from project.loggers import MetricsCsv, csv_and_wandb, csv_only
from project.observe.metrics_file import read_rows


def wandb_loggers(folder, **options):
    return csv_and_wandb(str(folder), project="test", name="test", group=None, tags=["tiny"], **options)


def test_metrics_csv_is_always_there(tmp_path):
    assert [type(logger) for logger in csv_only(str(tmp_path))] == [MetricsCsv]
    assert type(wandb_loggers(tmp_path)[0]) is MetricsCsv


@pytest.mark.parametrize(("key", "offline"), [("", True), ("x" * 40, False)])
def test_wandb_is_online_only_with_a_key(tmp_path, monkeypatch, key, offline):
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert wandb_loggers(tmp_path)[1]._offline is offline
    assert wandb_loggers(tmp_path, offline=True)[1]._offline is True


def test_checkpoints_go_under_the_run_folder(tmp_path):
    logger = csv_only(str(tmp_path))[0]
    assert (logger.save_dir, logger.name, logger.version) == (str(tmp_path), "", "")


def test_an_offline_wandb_run_is_written_quietly_and_finished(tmp_path, monkeypatch, capfd):
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "")  # Lightning sets it; given back afterwards
    (tmp_path / "config.yaml").write_text("seed: 7\n")
    logger = wandb_loggers(tmp_path)[1]
    assert isinstance(logger, WandbLogger)
    logger.log_metrics({"train/loss": 1.0}, step=1)
    assert dict(logger.experiment.config) == {"seed": 7}
    logger.finalize("success")
    assert wandb.run is None
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert capfd.readouterr() == ("", "")


def test_a_wandb_run_that_logs_nothing_is_never_begun(tmp_path):
    """The parent of forked ranks finalizes its loggers without having logged."""
    for logger in wandb_loggers(tmp_path):
        logger.finalize("failed")
    assert list(tmp_path.iterdir()) == []


def test_metrics_csv_is_complete_once_the_run_has_ended(tmp_path):
    logger = csv_only(str(tmp_path))[0]
    logger.log_metrics({"train/loss": 0.1}, step=1)
    logger.finalize("success")
    assert read_rows(tmp_path / "metrics.csv") == [{"step": "1", "train/loss": "0.1"}]


def test_a_run_without_a_way_to_wandb_s_server_goes_on_offline_and_says_so(tmp_path, monkeypatch):
    wandb, asked = pytest.importorskip("wandb"), []

    def unreachable(**arguments):
        asked.append(arguments.get("mode"))
        if arguments.get("mode") != "offline":
            raise wandb.errors.CommError("no route to host")
        return SimpleNamespace(id=7, define_metric=lambda *name, **options: None)

    monkeypatch.setattr(wandb, "init", unreachable)
    logger = wandb_loggers(tmp_path, offline=False)[1]
    with pytest.warns(UserWarning, match=r"no route to host.*offline.*wandb sync"):
        assert logger.experiment.id == 7
    assert asked == [None, "offline"]
