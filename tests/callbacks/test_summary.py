"""The content of summary.json, however the run ends."""

import multiprocessing
import os
import signal
import time

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from project.callbacks.summary import memory_line
from project.observe.metrics_file import read_rows
from project.observe.provenance import command_started
from project.run_folder import SUMMARY_KEYS, read_summary
from project.spec.cost import active_parameters, total_parameters
from tests.harness.tiny_module import BATCH, SEQ_LEN, DenseFirst, TinyModule


class At(Callback):
    """Calls a function after a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            self.action()


def test_a_completed_run_s_summary_says_what_it_was(fit, tmp_path):
    fit(steps=4)
    summary, config = read_summary(tmp_path), TinyModule().config
    assert tuple(summary) == SUMMARY_KEYS
    assert (summary["status"], summary["error"]) == ("completed", None)
    assert summary["layout"] == {
        "pp": 1, "dp": 1, "tp": 1, "ep": 1, "etp": 1, "world_size": 1,
        "schedule": "1F1B", "microbatches": 2, "virtual_stages": 1,
    }  # fmt: skip
    assert (summary["steps"], summary["tokens"]) == (4, 4 * BATCH * SEQ_LEN)
    assert summary["parameters_total"] == total_parameters(config)
    assert summary["parameters_active"] == active_parameters(config)
    assert summary["parameters_per_rank"] == [2 * 4 * 3]
    assert summary["ranks"][0] | {"layers": [0, 1], "experts": [0, 1, 2, 3]} == summary["ranks"][0]
    assert (summary["val_loss"], summary["grad_norm_last"]) == (2.5, 1.5)
    assert summary["precision"] == "32-true"
    assert summary["torch_version"] == torch.__version__
    assert summary["peak_memory_bytes_per_rank"][0] > 2**20
    assert 0 < summary["time_to_first_step_s"] < time.time() - command_started(), "counted from this process's start"
    for later in ("mfu", "activation_bytes_peak_per_stage", "communication", "planned"):
        assert summary[later] is None


def test_the_summary_agrees_with_metrics_csv(fit, tmp_path):
    fit(steps=5)
    summary, rows = read_summary(tmp_path), read_rows(tmp_path / "metrics.csv")
    for name in ("step_time_s", "tokens_per_second"):
        assert summary[name] == sorted(float(row[f"train/{name}"]) for row in rows[2:])[1]
    assert summary["train_loss_first"] == float(rows[0]["train/loss"])
    assert summary["train_loss_last"] == float(rows[-1]["train/loss"])


def test_the_summary_s_expert_load_is_over_the_whole_run(fit, tmp_path):
    fit(steps=3)
    first, *rest = read_summary(tmp_path)["expert_load"][0]
    assert [first, *rest] == pytest.approx([6 / 15, 3 / 15, 3 / 15, 3 / 15])


def test_the_expert_load_of_a_layer_without_experts_is_null(fit, tmp_path):
    fit(steps=3, module=DenseFirst(1))
    assert read_summary(tmp_path)["expert_load"] == [None, pytest.approx([6 / 15, 3 / 15, 3 / 15, 3 / 15])]


def test_a_killed_run_leaves_a_whole_summary_and_metrics(fit, tmp_path):
    kill = At(3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    process = multiprocessing.get_context("fork").Process(target=fit, args=(kill,), kwargs={"steps": 9})
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    summary, rows = read_summary(tmp_path), read_rows(tmp_path / "metrics.csv")
    assert (summary["status"], summary["steps"]) == ("interrupted", 3)
    # Lightning logs after the callbacks: the third row was not yet asked for.
    assert [row["step"] for row in rows] == ["1", "2"]
    assert all(value is not None for row in rows for value in row.values())


def test_an_error_makes_the_summary_s_status_failed(fit, tmp_path):
    def fail():
        raise ValueError("no more\nsecond line")

    with pytest.raises(ValueError, match="no more"):
        fit(At(2, fail), steps=5)
    summary = read_summary(tmp_path)
    assert (summary["status"], summary["error"]) == ("failed", "ValueError: no more")
    assert summary["steps"] == 2


def test_ctrl_c_makes_the_summary_s_status_interrupted(fit, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        fit(At(2, interrupt), steps=5)
    summary = read_summary(tmp_path)
    assert (summary["status"], summary["error"], summary["steps"]) == ("interrupted", None, 2)


def test_a_nan_loss_is_null_in_the_summary_and_nan_in_metrics_csv(fit, tmp_path):
    class Diverged(TinyModule):
        def training_step(self, batch, batch_idx):
            loss = torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * float("nan")
            self.expert_load = torch.ones(2, 4)
            self.log("train/loss", loss)
            return loss

    fit(steps=1, module=Diverged())
    assert read_summary(tmp_path)["train_loss_last"] is None
    assert read_rows(tmp_path / "metrics.csv")[0]["train/loss"] == "nan"


def test_the_summary_of_a_run_on_gpus_has_each_rank_s_memory(fit, tmp_path, monkeypatch):
    monkeypatch.setattr("project.callbacks.summary.gpu_memory_bytes", lambda device: (2**30, 2**31, 3 * 2**30))
    fit(steps=1)
    summary = read_summary(tmp_path)
    assert summary["gpu_memory_bytes_per_rank"] == [{"allocated": 2**30, "reserved": 2**31, "device": 3 * 2**30}]
    line = memory_line(summary["peak_memory_bytes_per_rank"], summary["gpu_memory_bytes_per_rank"])
    assert line == "1.07 GB on the largest rank, 2.15 GB reserved, 3.22 GB in use on its GPU"
