"""The configurations of public models have the parameters of `transformers`' own, to the unit."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from project.command_line.composition import compose_or_explain
from project.configs import CONFIGS
from project.spec.cost import active_parameters, total_parameters
from project.spec.model import ModelConfig
from project.spec.sections import model_of
from project.state.weights.config_json import config_json_faults, from_config_json
from project.state.weights.families import to_config_json
from tests.harness.of_transformers import transformers

# Billions of parameters, all and active, as their reports say.
PUBLISHED = {
    "mixtral_8x7b": (46.7, 12.9),
    "mixtral_8x22b": (141, 39),
    "qwen3_30b_a3b": (30.5, 3.3),
    "qwen3_235b_a22b": (235, 22),
    "olmoe_1b_7b": (6.9, 1.3),
    "qwen1_5_moe_a2_7b": (14.3, 2.7),
    "qwen3_8b": (8.2, 8.2),
    "llama3_8b": (8.0, 8.0),
}


def composed(name: str) -> ModelConfig:
    section: Any = OmegaConf.to_container(compose_or_explain(CONFIGS, "plan", [f"model={name}"]).cfg.model)
    return model_of(section)


def test_every_public_model_has_its_figures() -> None:
    assert {path.stem for path in (CONFIGS / "model").glob("*.yaml")} == {*PUBLISHED, "moe_8x4", "small", "tiny"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_public_model_has_the_parameters_of_transformers_model(name: str) -> None:
    config = composed(name)
    content = to_config_json(config, "bfloat16", None)
    with torch.device("meta"):
        theirs = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**content))
    weights = list(theirs.parameters())
    assert total_parameters(config) == sum(weight.numel() for weight in weights)
    idle = sum(weight.numel() * (1 - config.top_k / config.num_experts) for weight in weights if weight.ndim == 3)
    assert active_parameters(config) == total_parameters(config) - idle
    published = PUBLISHED[name]
    for ours, said in zip((total_parameters(config), active_parameters(config)), published, strict=True):
        assert ours / 1e9 == pytest.approx(said, abs=0.5 if said >= 20 else 0.06)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_public_model_is_read_back_from_its_config_json(name: str) -> None:
    content = to_config_json(composed(name), "bfloat16", None)
    assert not list(config_json_faults(content))
    read = from_config_json(content)
    assert to_config_json(read, "bfloat16", None) == content
    assert total_parameters(read) == total_parameters(composed(name))
