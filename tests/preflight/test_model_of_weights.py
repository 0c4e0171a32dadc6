"""`model=auto` takes architecture and sizes from the weights that the run begins with."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from project.command_line.composition import compose_or_explain
from project.command_line.model_of_weights import with_model
from project.configs import CONFIGS
from project.spec.model import ModelConfig
from project.spec.sections import model_of
from project.state.weights.source import open_weights
from tests.harness.command import run
from tests.harness.of_transformers import CONFIG, FAMILIES, saved_model


def composed(*typed: str) -> ModelConfig:
    found = compose_or_explain(CONFIGS, "train", with_model(typed, {}))
    assert not found.faults
    section: Any = OmegaConf.to_container(found.cfg.model, resolve=True)
    return model_of(section)


def refused(capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    with pytest.raises(SystemExit) as ended:
        with_model(typed, {})
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_that_of_the_folder(family: str, tmp_path: Path) -> None:
    folder = saved_model(tmp_path / "a folder, of weights", FAMILIES[family])
    assert composed("model=auto", f"init_from='{folder}'") == open_weights(folder).config


def test_an_experiment_does_not_change_the_model(saved_by_transformers: Path) -> None:
    found = composed("+experiment=tp4_ep4_pp4", "model=auto", f"init_from={saved_by_transformers}")
    assert found == open_weights(saved_by_transformers).config


def test_what_is_typed_of_the_model_wins(saved_by_transformers: Path) -> None:
    found = composed("model.capacity_factor=2.0", f"init_from={saved_by_transformers}", "model=auto")
    assert (found.capacity_factor, found.d_model) == (2.0, CONFIG.d_model)


def test_another_model_s_arguments_are_left_alone(saved_by_transformers: Path) -> None:
    typed = ["model=tiny", f"init_from={saved_by_transformers}", "model.top_k=1"]
    assert with_model(typed, {}) == typed


@pytest.mark.parametrize("typed", [(), ("init_from=null",), ("init_from=",)])
def test_without_weights_it_is_asked_for_them(typed: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert "model=auto: takes the model of weights; give init_from=PATH" in refused(capsys, "model=auto", *typed)


def test_weights_that_cannot_be_opened_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"init_from={tmp_path}: {tmp_path}: is no checkpoint" in refused(
        capsys, "model=auto", f"init_from={tmp_path}"
    )


def test_a_run_begins_with_a_folder_s_model_and_weights(saved_by_transformers: Path, tmp_path: Path) -> None:
    typed = ("data=synthetic", "data.seq_len=32", "trainer.max_steps=1", "trainer.limit_val_batches=1", "logger=csv")
    layout = ("+experiment=tp2_ep2_pp2", "parallel.microbatches=2", "trainer.accelerator=cpu")
    run("model=auto", f"init_from={saved_by_transformers}", *typed, *layout, f"hydra.run.dir={tmp_path / 'run'}")
    saved = OmegaConf.load(tmp_path / "run/config.yaml")
    assert (saved.model.num_layers, saved.model.d_model) == (CONFIG.num_layers, CONFIG.d_model)
