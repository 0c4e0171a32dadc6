"""Models with their initial weights, on one rank, for the tests of the model."""

import torch

from project.model.config import ModelConfig
from project.model.init import reset_buffers
from project.model.transformer import Transformer
from tests.parity.training import whole_initial_weight


def initialized(config: ModelConfig, dtype: torch.dtype = torch.float32) -> Transformer:
    model = Transformer(config).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(whole_initial_weight(config, name, parameter.shape))
        reset_buffers(model)
    return model
