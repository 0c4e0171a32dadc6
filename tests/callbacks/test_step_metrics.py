"""The row of an optimizer step in metrics.csv."""

import pytest
import torch

from project.observe.metrics_file import read_rows
from tests.harness.tiny_module import BATCH, SEQ_LEN, DenseFirst, TinyModule


def test_metrics_have_one_row_a_step_counted_from_one_and_validation_in_the_last(fit, tmp_path):
    fit(steps=3)
    rows = read_rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [row["val/loss"] for row in rows] == ["", "", "2.5"]


def test_the_columns_of_metrics_csv_begin_as_promised(fit, tmp_path):
    fit(steps=2)
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert header[:3] == ["step", "train/loss", "train/aux_loss"]
    assert {"train/grad_norm", "train/tokens_per_second", "train/step_time_s", "train/lr"} < set(header)
    assert "train/mfu" not in header  # no peak is known of a CPU
    assert "epoch" not in header


def test_expert_metrics_are_logged_by_layer(fit, tmp_path):
    fit(steps=3)
    last = read_rows(tmp_path / "metrics.csv")[-1]
    assert float(last["expert_load/layer_1/expert_0"]) == 0.5  # 3 of 6
    assert float(last["router_entropy/layer_1"]) == 1.0
    assert float(last["train/expert_imbalance"]) == 2.0


def test_a_layer_without_experts_has_no_metrics_and_no_part_in_the_imbalance(fit, tmp_path):
    fit(steps=3, module=DenseFirst(1))
    last = read_rows(tmp_path / "metrics.csv")[-1]
    assert float(last["train/expert_imbalance"]) == float(last["train/expert_imbalance_worst_layer"]) == 2.0
    assert float(last["expert_load/layer_1/expert_0"]) == 0.5
    assert not any("layer_0" in column for column in last)
    assert "nan" not in last.values()


def test_a_model_without_experts_logs_no_expert_metrics(fit, tmp_path):
    fit(steps=1, module=DenseFirst(2))
    (row,) = read_rows(tmp_path / "metrics.csv")
    assert not any("expert" in column or "router" in column for column in row)


def test_metrics_keep_full_precision(fit, tmp_path):
    fit(steps=1)
    row = read_rows(tmp_path / "metrics.csv")[0]
    assert float(row["train/aux_loss"]) == torch.tensor(1.0 / 3.0).item()
    assert float(row["train/lr"]) == 0.1  # and not its nearest single
    seconds, speed = float(row["train/step_time_s"]), float(row["train/tokens_per_second"])
    assert speed * seconds == pytest.approx(BATCH * SEQ_LEN, rel=1e-12)


def test_accumulated_batches_make_one_row_of_metrics(fit, tmp_path):
    fit(steps=2, accumulate_grad_batches=3)
    rows = read_rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == ["1", "2"]
    for row in rows:
        tokens = float(row["train/tokens_per_second"]) * float(row["train/step_time_s"])
        assert tokens == pytest.approx(3 * BATCH * SEQ_LEN, rel=1e-12)


def test_the_logged_learning_rate_is_the_one_that_the_step_used(fit, tmp_path):
    class Decaying(TinyModule):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    fit(steps=3, module=Decaying())
    rates = [float(row["train/lr"]) for row in read_rows(tmp_path / "metrics.csv")]
    assert rates == [0.1, 0.05, 0.025]
