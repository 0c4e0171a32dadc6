"""The config groups callbacks, logger and debug."""

import pytest
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from project.configs import CONFIGS

BY_HAND = {
    "${hydra:runtime.choices.model}": "tiny",
    "${hydra:runtime.choices.parallel}": "single",
    "${experiment_name}": "single",
    "${layout_name:}": "pp1",
    "${sweep_name:}": "null",
    "${logger.group}": "null",
}


def load(name, folder):
    """Loads a config with the values that Hydra's resolvers would give."""
    text = (CONFIGS / name).read_text()
    for asked, answer in {"${hydra:runtime.output_dir}": str(folder), **BY_HAND}.items():
        text = text.replace(asked, answer)
    return OmegaConf.create(text)


def test_the_default_callbacks_are_made_in_the_order_they_rely_on(tmp_path):
    callbacks = [instantiate(node) for node in load("callbacks/default.yaml", tmp_path).values()]
    assert all(isinstance(callback, Callback) for callback in callbacks)
    names = [type(callback).__name__ for callback in callbacks]
    measuring = ["Communication", "ActivationPeaks", "StepMetrics", "Trace", "MemoryCategories"]
    assert names[:7] == [*measuring, "ExpertMetrics", "RunSummary"]
    assert names[-2:] == ["SummaryTable", "Checkpoint"]


@pytest.mark.parametrize("choice", ["csv", "wandb"])
def test_every_logger_choice_makes_a_list_of_loggers(choice, tmp_path):
    loggers = instantiate(load(f"logger/{choice}.yaml", tmp_path))
    assert isinstance(loggers, list)
    assert all(isinstance(logger, Logger) for logger in loggers)


def test_the_debug_configs_can_be_made(tmp_path):
    assert isinstance(instantiate(load("debug/overfit.yaml", tmp_path).callbacks.repeat_batch), Callback)
    assert isinstance(instantiate(load("debug/memory.yaml", tmp_path).callbacks.memory_snapshot), Callback)
    assert instantiate(load("debug/profile.yaml", tmp_path).trainer.profiler).dirpath == str(tmp_path / "profile")
