"""How a trainer computes what a model is: the choices of its kernels and of its bookkeeping. No torch.

The planner describes other people's measured runs with the same arithmetic as ours; what differs between the trainers
is here, and nowhere else. None of it is a rate: rates are the cluster's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from project.spec.precision import width_of

# Kernels that a layer of project.model launches forward, its matrix products aside, counted by a dispatch mode.
OPERATIONS, EXPERT_OPERATIONS = 26, 64


@dataclass(frozen=True)
class Implementation:
    """`gated`: three matrices in a feed-forward network (SwiGLU), else two. `dropout`: after attention's softmax and
    both halves of a layer, as GPT has it. `fused_attention`: the scores are never written to memory.
    `sequence_parallel`: between the matrices each tensor-parallel rank has its part of the sequence, else all of it.

    `selective` is what selective recomputation computes again: the attention's core; norms and nonlinearities; or the
    layer but what its all-to-alls brought. `slices` of an expert are each sent its tokens, or gather them from each
    other. `sends_once`: a token goes to a node, and there to a rank, once, however many of its experts are there.

    `operations` and `expert_operations` are what the host dispatches in a layer's forward for its attention and for a
    mixture of experts, and `per_expert` for each expert that a rank has; a backward dispatches as many again.

    `element_bytes` is of a weight and of an activation, `gradient_bytes` of a gradient when it is sent. `state_bytes`
    and `sharded_state_bytes` are kept per parameter, of which the latter are divided over the replicas; `update_bytes`
    is what the optimizer reads and writes for one. `overlaps_gradients`: the replicas' sums run behind the last
    backward; `overlaps_messages`: a stage computes while its messages travel.
    """

    name: str
    gated: bool = True
    dropout: bool = False
    fused_attention: bool = True
    sequence_parallel: bool = True
    selective: Literal["attention core", "kernels", "layer"] = "attention core"
    slices: Literal["sent", "gathered"] = "sent"
    sends_once: bool = False
    operations: int = 40
    expert_operations: int = 160
    per_expert: int = 0
    element_bytes: int = 2
    gradient_bytes: int = 2
    state_bytes: float = 18
    sharded_state_bytes: float = 0
    update_bytes: float = 40
    overlaps_gradients: bool = False
    overlaps_messages: bool = False


# fp16 weights and gradients, fp32 master weights and moments on every replica. Narayanan et al., arXiv 2104.04473.
MEGATRON_2021 = Implementation(
    "Megatron-LM 2021", gated=False, dropout=True, fused_attention=False, sequence_parallel=False
)
# The same with the sequence cut between the matrices. Korthikanti et al., arXiv 2205.05198.
MEGATRON_2022_SP = Implementation("Megatron-LM 2022", gated=False, dropout=True, fused_attention=False)
# Fused attention, the optimizer's state divided over the replicas, their sums hidden behind the backward, each expert's
# matrix products launched one by one. Liu et al., arXiv 2504.14960.
MEGATRON_CORE = Implementation(
    "Megatron-Core 2024",
    selective="kernels",
    slices="gathered",
    per_expert=4,
    state_bytes=6,
    sharded_state_bytes=12,
    gradient_bytes=4,
    overlaps_gradients=True,
    overlaps_messages=True,
)
# With DeepEP's dispatch. github.com/yanring/Megatron-MoE-ModelZoo, best_practice/Qwen3.
MEGATRON_CORE_DEEPEP = replace(MEGATRON_CORE, name="Megatron-Core 2025, DeepEP", sends_once=True)


@lru_cache
def ours(precision: str, dp_mode: str = "replicate") -> Implementation:
    """This trainer's: the stream between the layers, messages and gradients are as wide as the weights; Adam's moments
    are too. Shards are gathered once a step and stay until its end, whole beside their gradients."""
    width = width_of(precision)
    whole, sharded = (2, 4) if dp_mode == "shard" else (4, 0)
    return Implementation(
        "this trainer",
        selective="layer",
        operations=OPERATIONS,
        expert_operations=EXPERT_OPERATIONS,
        element_bytes=width.weight,
        gradient_bytes=width.weight,
        state_bytes=whole * width.weight,
        sharded_state_bytes=sharded * width.weight,
        update_bytes=7 * width.weight,
    )
