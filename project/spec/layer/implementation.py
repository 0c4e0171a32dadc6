"""Choices by which trainers differ in computing the same model: their kernels and their bookkeeping.

One table of operations describes this trainer and other people's measured runs; what differs between them is an
`Implementation`, and nowhere else. None of it is a rate: rates are the cluster's.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

from project.spec.layer.operation import Recomputed
from project.spec.precision import FLOAT, Width, width_of

# Kernels that attention, and a mixture of experts, of project.model launch forward, matrix products aside, counted by a
# dispatch mode.
OPERATIONS, EXPERT_OPERATIONS = 26, 48

EVERY: frozenset[Recomputed] = frozenset(get_args(Recomputed))
SELECTIVE: dict[str, Recomputed] = {"attention core": "core", "kernels": "kernel"}


@dataclass(frozen=True)
class Implementation:
    """The choices, each with the default of a present-day Megatron.

    gated: three matrices in a feed-forward network (SwiGLU), else two.
    dropout: after attention's softmax and after both halves of a layer, as GPT has it.
    fused_attention: the scores are never written to memory.
    sequence_parallel: between the matrices a tensor-parallel rank has its part of the sequence, else all of it.
    eager: modules run operator by operator, as those of `project.model` do. Then autograd keeps norms in fp32 with
        their inputs and roots, the gathered input of the matrices, SiLU's output and copies of weights in the precision
        of the products; else what fused kernels keep.
    casts_once: those copies are made once for a batch, else for each microbatch.
    selective: what selective recomputation computes again: attention's core; norms and nonlinearities; or the whole
        layer but what its all-to-alls brought.
    slices: each slice of an expert is sent the expert's tokens, or the slices gather them from each other.
    sends_once: a token goes to a node, and there to a rank, once, however many of its experts are there.
    operations, expert_operations, per_expert: operators that the host dispatches in a layer's forward for its
        attention, for a mixture of experts, and for each expert that a rank has; a backward dispatches as many again.
    element_bytes: width of a weight and of an activation; gradient_bytes of a gradient when it is sent.
    state_bytes, sharded_state_bytes: kept per parameter, the latter divided over the replicas.
    update_bytes: what the optimizer reads and writes for a parameter.
    overlaps_gradients: the replicas' sums run behind the last backward.
    overlaps_messages: a stage computes while its messages travel.
    """

    name: str
    gated: bool = True
    dropout: bool = False
    fused_attention: bool = True
    sequence_parallel: bool = True
    eager: bool = False
    casts_once: bool = False
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

    @property
    def width(self) -> Width:
        """The width of all numbers where seconds are estimated: those of the softmax and the loss are fp32."""
        return Width(self.element_bytes, self.element_bytes, FLOAT)

    def repeats(self, recompute: str) -> frozenset[Recomputed]:
        """Classes of operations that are computed again in the backward under a mode of `parallel.recompute`."""
        if recompute == "none":
            return frozenset()
        if recompute == "full" or self.selective == "layer":
            return EVERY
        if self.selective == "attention core" and self.fused_attention:
            return frozenset()
        return frozenset((SELECTIVE[self.selective],))


@lru_cache
def ours(precision: str, dp_mode: str = "replicate") -> Implementation:
    """This trainer: the stream between the layers, messages, gradients and Adam's moments are as wide as the weights.
    Shards are gathered once a step and stay until its end, whole beside their gradients."""
    width = width_of(precision)
    whole, sharded = (2, 4) if dp_mode == "shard" else (4, 0)
    return Implementation(
        "this trainer",
        eager=True,
        casts_once=dp_mode != "shard",  # gathered weights come anew
        selective="layer",
        operations=OPERATIONS,
        expert_operations=EXPERT_OPERATIONS,
        element_bytes=width.weight,
        gradient_bytes=width.weight,
        state_bytes=whole * width.weight,
        sharded_state_bytes=sharded * width.weight,
        update_bytes=7 * width.weight,
    )


@lru_cache
def without_states(how: Implementation) -> Implementation:
    """The same for a microbatch, which what the optimizer keeps does not change: layouts that differ in that alone
    share its tables."""
    return replace(how, state_bytes=0, sharded_state_bytes=0)
