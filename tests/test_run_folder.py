"""summary.json as the parent of a failed run writes it."""

import json
import math

import pytest

from project.run_folder import SUMMARY_KEYS, mark_failed, mark_interrupted, read_summary, write_summary
from project.spec.cost import total_parameters
from project.spec.model import ModelConfig

CONFIG = """
model: {_target_: project.spec.model.ModelConfig, num_layers: 2}
parallel: {_target_: project.spec.layout.ParallelLayout, pp: 2, tp: 2, ep: 2, microbatches: 4}
trainer: {precision: 32-true}
"""


def test_a_run_that_failed_before_its_first_step_has_a_whole_summary(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    mark_failed(tmp_path, "rank 3 failed:\n  ValueError: bad")
    summary = read_summary(tmp_path)
    assert tuple(summary) == SUMMARY_KEYS
    assert (summary["status"], summary["error"]) == ("failed", "rank 3 failed: ValueError: bad")
    assert summary["layout"]["world_size"] == 4
    assert summary["precision"] == "32-true"
    assert summary["parameters_total"] == total_parameters(ModelConfig(num_layers=2))
    assert summary["steps"] == 0
    assert summary["val_loss"] is None


def test_a_run_that_failed_without_a_config_has_a_whole_summary(tmp_path):
    mark_interrupted(tmp_path / "new")
    summary = read_summary(tmp_path / "new")
    assert (summary["status"], summary["error"], summary["layout"]) == ("interrupted", None, None)


def test_a_failed_run_s_summary_keeps_what_the_run_had_written(tmp_path):
    write_summary(tmp_path, {"status": "interrupted", "steps": 7})
    mark_failed(tmp_path, "killed")
    assert (read_summary(tmp_path)["status"], read_summary(tmp_path)["steps"]) == ("failed", 7)


def test_numbers_that_json_cannot_hold_are_null_in_the_summary(tmp_path):
    write_summary(tmp_path, {"expert_load": [[math.nan, 0.5]], "train_loss_last": math.inf})
    text = (tmp_path / "summary.json").read_text()
    summary = json.loads(text, parse_constant=pytest.fail)
    assert (summary["expert_load"], summary["train_loss_last"]) == ([[None, 0.5]], None)


def test_a_summary_key_outside_the_contract_is_an_error(tmp_path):
    with pytest.raises(AssertionError, match="typo"):
        write_summary(tmp_path, {"typo": 1})
