"""Models with their initial weights, on one rank, for the tests of the model."""

import torch

from project.model.transformer import Transformer
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from tests.harness.training import Case, whole_model


def initialized(config: ModelConfig, dtype: torch.dtype = torch.float32) -> Transformer:
    return whole_model(Case(ParallelLayout(), config), dtype)
