"""Initial weights as a function of the seed and a parameter's name.

Every parameter, and every expert within a stacked one, has a generator of its own, seeded by its global name. A rank
draws the parameters that it holds and no others, and gets the numbers that one process with the whole model would get.
"""

import hashlib
import math

import torch
from torch import Tensor

from project.model.attention import rope_table
from project.model.transformer import Transformer
from project.spec.model import ModelConfig

WRITES_TO_STREAM = ("attention.wo.weight", "experts.w2", "shared.w2.weight", "feed_forward.w2.weight")


def generator(seed: int, name: str) -> torch.Generator:
    """The generator of a parameter. It is always on the CPU, because a GPU's generator draws other numbers."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def initial_weight(config: ModelConfig, seed: int, name: str, shape: torch.Size, index: int | None = None) -> Tensor:
    """The initial value in fp32 of a parameter, or of expert `index` of a stacked parameter.

    Norms are ones and biases zeros; matrices are normal with the config's `init_std`, divided by sqrt(2 * layers) for
    those that write to the residual stream (GPT-2). The embedding has a standard deviation of 1: with a smaller one the
    stream of the first layers is nearly the same for all tokens, and so is the routing.
    """
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith(".bias") else torch.ones(shape)
    if name.endswith(WRITES_TO_STREAM):
        std = config.init_std / math.sqrt(2 * config.num_layers)
    else:
        std = 1.0 if name.startswith("embedding") else config.init_std
    key = name if index is None else f"{name}.{index}"
    return torch.empty(shape).normal_(std=std, generator=generator(seed, key))


@torch.no_grad()
def reset_buffers(model: Transformer) -> None:
    """Fills the buffers: the position tables and the routers' biases, which are zero."""
    config = model.config
    cos_SC, sin_SC = rope_table(config.max_seq_len, config.head_dim, config.rope_theta)
    model.rope_cos.copy_(cos_SC)
    model.rope_sin.copy_(sin_SC)
    for name, buffer in model.named_buffers():
        if name.endswith("router.expert_bias"):
            buffer.zero_()
