"""`transformers`' Mixtral of the size of one of our models, for what is measured against it."""

from typing import Any

from project.spec.model import ModelConfig
from project.state.weights.families import to_config_json


def mixtral(config: ModelConfig, **more: Any) -> Any:
    """A `MixtralForCausalLM` with random weights, which adds the router's auxiliary loss to its own. `more` are further
    arguments of its configuration."""
    from transformers import MixtralConfig, MixtralForCausalLM

    saved = to_config_json(config, "float32", None)
    return MixtralForCausalLM(MixtralConfig.from_dict(saved, output_router_logits=True, **more))
