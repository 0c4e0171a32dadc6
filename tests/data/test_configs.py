"""Every `data` group makes a datamodule out of a config, and refuses what it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from project.configs import CONFIGS
from project.data.corpus import corpus_faults
from project.data.datamodule import TokenDataModule
from project.spec.fault import Fault


def compose(name: str, *overrides: str) -> dict[str, Any]:
    """The group as a training config sees it, resolved."""
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = hydra.compose(overrides=[f"+data={name}", "+seed=3", "+model.vocab_size=300", *overrides])
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    return resolved["data"]


def faults_of(data: dict[str, Any]) -> list[Fault]:
    return corpus_faults(data, hydra.utils.instantiate(data["corpus"]))


@pytest.mark.parametrize("name", [path.stem for path in sorted(CONFIGS.glob("data/*.yaml"))])
def test_every_data_group_instantiates(name: str) -> None:
    datamodule = hydra.utils.instantiate(compose(name))
    assert isinstance(datamodule, TokenDataModule)
    assert (datamodule.seed, datamodule.vocab_size, datamodule.corpus.name) == (3, 300, name)


def test_data_files_and_their_faults_are_reached_from_the_command_line(text_files: Path) -> None:
    data = compose("text", f"data.files=['{text_files}/*.txt']", "data.seq_len=16", "data.batch_size=2")
    assert faults_of(data) == []
    (fault,) = faults_of(compose("text"))
    assert fault.key == "data.files"


def test_an_unknown_data_key_is_refused() -> None:
    with pytest.raises(ConfigCompositionException):
        compose("stdlib", "data.batchsize=3")
