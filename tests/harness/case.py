"""A case: a small model, a layout and the corners that its routing is driven into; its batches and initial weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from project.engine.split_model import IGNORED
from project.model.init import initial_weight, reset_buffers
from project.model.router import Router
from project.model.transformer import Transformer
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig

SMALL = ModelConfig(
    num_layers=4, d_model=32, num_heads=4, num_kv_heads=4, head_dim=8, d_ff=48, vocab_size=64, max_seq_len=32
)
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """A training run that is small enough to be held against the oracle.

    `batch` is in sequences, `seq_len` in tokens. `starved` is an expert that no token may choose, `favoured` one that
    every token chooses; `tied` routers give all experts the same score. Where targets are `masked`, sequences have
    different numbers of targets that count, and some have none.
    """

    layout: ParallelLayout
    model: ModelConfig = SMALL
    precision: str = "32-true"
    steps: int = 1
    accumulate: int = 1
    clip: float | None = None
    starved: int | None = None
    favoured: int | None = None
    tied: bool = False
    masked: bool = False
    batch: int = 8
    seq_len: int = 16


def batches(case: Case) -> list[dict[str, Tensor]]:
    """The batches of all steps, each `tokens` and `targets` of [batch, seq_len]; the same for every layout."""
    generator = torch.Generator().manual_seed(1)
    shape = (case.steps * case.accumulate, case.batch, case.seq_len + 1)
    text = torch.randint(0, case.model.vocab_size, shape, generator=generator)
    targets = text[..., 1:].clone()
    if case.masked:
        ignored = torch.arange(targets[..., 0].numel()).view(targets.shape[:-1]) * 5 % (case.seq_len + 5)
        targets[torch.arange(case.seq_len) < ignored.unsqueeze(-1)] = IGNORED
    pairs = zip(text[..., :-1], targets, strict=True)
    return [{"tokens": tokens.contiguous(), "targets": wanted} for tokens, wanted in pairs]


def steer(model: Transformer, case: Case) -> None:
    """Sets the expert biases that starve or favour an expert; no gradient touches a bias."""
    for router in routers(model):
        if case.starved is not None:
            router.expert_bias[case.starved] = -1e6
        if case.favoured is not None:
            router.expert_bias[case.favoured] = 1e6


def routers(model: Transformer) -> list[Router]:
    return [block.moe.router for block in model.layers.values() if not block.dense]


def whole_initial_weight(case: Case, name: str, shape: torch.Size) -> Tensor:
    if len(shape) < 3:
        return first_weight(case, name, shape, None)
    return torch.stack([first_weight(case, name, shape[1:], index) for index in range(shape[0])])


def first_weight(case: Case, name: str, shape: torch.Size, index: int | None) -> Tensor:
    if case.tied and name.endswith("router.weight"):
        return torch.zeros(shape)
    return initial_weight(case.model, 0, name, shape, index)


@torch.no_grad()
def whole_model(case: Case, dtype: torch.dtype = torch.float64) -> Transformer:
    """The case's whole model on one rank, with its initial weights and biases."""
    model = Transformer(case.model).to(dtype)
    for name, parameter in model.named_parameters():
        parameter.copy_(whole_initial_weight(case, name, parameter.shape))
    reset_buffers(model)
    steer(model, case)
    return model


def initialized(config: ModelConfig, dtype: torch.dtype = torch.float32) -> Transformer:
    """The whole model of `config` on one rank, with its initial weights."""
    return whole_model(Case(ParallelLayout(), config), dtype)
