"""Models with their initial weights, on one rank, for the tests of the model."""

import torch

from project.model.config import ModelConfig
from project.model.transformer import Transformer
from project.parallel.layout import ParallelLayout
from tests.parity.training import Case, whole_model


def initialized(config: ModelConfig, dtype: torch.dtype = torch.float32) -> Transformer:
    return whole_model(Case(ParallelLayout(), config), dtype)
