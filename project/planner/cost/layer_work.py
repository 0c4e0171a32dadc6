"""What one rank does for one microbatch in a layer, the embedding or the head. No torch.

Shapes: T tokens of a microbatch, D d_model, F width of a feed-forward network, H heads, E experts, k of them a token.
"""

from __future__ import annotations

from functools import lru_cache

from project.planner.cost.implementation import Implementation
from project.planner.cost.work import (
    NOTHING,
    Gemm,
    Layer,
    Pass,
    Shape,
    Transfer,
    Work,
    elementwise,
    exchanged,
    linear,
)
from project.spec.model import ModelConfig


@lru_cache(maxsize=4096)
def layer(config: ModelConfig, how: Implementation, shape: Shape, has_experts: bool) -> Layer:
    core = attention_core(config, how, shape)
    attention = attention_projections(config, how, shape).after(core)
    stream = stream_bytes(config, how, shape)
    if has_experts:
        feed_forward, exchange = experts(config, how, shape)
        rows, width = shape.tokens / shape.tp * config.top_k, config.d_ff
    else:
        feed_forward, exchange = dense_feed_forward(config, how, shape, config.dense_d_ff), NOTHING
        rows, width = shape.tokens / shape.tp, config.dense_d_ff
    nonlinearity = feed_forward_kernel(rows, width, how).forward
    kernels = nonlinearity + Work(moved=2 * 2 * stream, operations=2)
    return Layer(attention.after(feed_forward), core.forward, kernels, exchange)


def stream_bytes(config: ModelConfig, how: Implementation, shape: Shape) -> float:
    """Of the residual stream where each rank has its part of the sequence, or all of it."""
    return shape.tokens * config.d_model * how.element_bytes / (shape.tp if how.sequence_parallel else 1)


def around_matrices(config: ModelConfig, how: Implementation, shape: Shape) -> Pass:
    """Norm before, residual sum behind, and what tensor parallelism sends between them."""
    stream = stream_bytes(config, how, shape)
    # Norm: reads, writes. Sum: reads two, writes one; dropout reads and writes besides, and a mask of half as much.
    after = (5.5 if how.dropout else 3.0) * stream
    kernels = elementwise(2 * stream + after, 3 * stream + after, how.operations // 2)
    if shape.tp == 1:
        return kernels
    whole = shape.tokens * config.d_model * how.element_bytes
    if not how.sequence_parallel:
        return kernels.after(exchanged("tp", "all_reduce", "all_reduce", whole, whole))
    gather = exchanged("tp", "all_gather", "reduce_scatter", whole / shape.tp, whole)
    scatter = exchanged("tp", "reduce_scatter", "all_gather", whole, whole / shape.tp)
    return kernels.after(gather, scatter)


def attention_projections(config: ModelConfig, how: Implementation, shape: Shape) -> Pass:
    heads_out = config.num_heads * config.head_dim / shape.tp
    kv_out = config.num_kv_heads * config.head_dim / shape.tp
    rotated = shape.tokens * (heads_out + kv_out) * how.element_bytes
    return around_matrices(config, how, shape).after(
        linear(shape.tokens, heads_out + 2 * kv_out, config.d_model),
        elementwise(2 * rotated, 2 * rotated, 2),
        linear(shape.tokens, config.d_model, heads_out),
    )


def attention_core(config: ModelConfig, how: Implementation, shape: Shape) -> Pass:
    """Scores, softmax, weighted sum. Fused it skips the masked half; otherwise it computes and writes all of it."""
    heads, length = config.num_heads // shape.tp, shape.seq_len
    batch = shape.sequences * heads
    if how.fused_attention:
        flops = 4.0 * batch * length * length * config.head_dim / 2
        # Backward computes the scores again: five products for two. Dao, arXiv 2307.08691.
        return Pass(Work(attention_flops=flops, operations=1), Work(attention_flops=2.5 * flops, operations=1))
    scores = batch * length * length * how.element_bytes
    product, back = Gemm(length, length, config.head_dim, batch), Gemm(length, config.head_dim, length, batch)
    # Scale, mask and softmax in one kernel: reads, writes. Dropout reads, writes, and a mask of half as much.
    moved = (4.5 if how.dropout else 2.0) * scores
    return Pass(
        Work((product, back), moved=moved, operations=4),
        Work((product, product, back, back), moved=moved + scores, operations=4),
    )


def feed_forward_kernel(tokens: float, width: float, how: Implementation) -> Pass:
    """The nonlinearity over `[T, F]`."""
    one = tokens * width * how.element_bytes
    return elementwise(3 * one, 5 * one, 2) if how.gated else elementwise(2 * one, 3 * one, 1)


def feed_forward(tokens: float, d_model: int, width: float, how: Implementation, batch: int = 1) -> Pass:
    """`batch` networks of `width`, each with its own tokens. Gate and up are one product of twice the width."""
    inward = linear(tokens, width * (2 if how.gated else 1), d_model, batch)
    return inward.after(feed_forward_kernel(tokens * batch, width, how), linear(tokens, d_model, width, batch))


def dense_feed_forward(config: ModelConfig, how: Implementation, shape: Shape, width: int) -> Pass:
    matrices = feed_forward(shape.tokens, config.d_model, width / shape.tp, how)
    return around_matrices(config, how, shape).after(matrices)


def experts(config: ModelConfig, how: Implementation, shape: Shape) -> tuple[Pass, Work]:
    """Router, the tokens' way to their experts and back, the experts. Returns beside it what the all-to-alls send in
    the forward.

    Every rank hands on `T / tp * k` rows, each to the `etp` slices of its expert, and gets as many when balanced.
    """
    here = shape.tokens / shape.tp
    stream = here * config.d_model * how.element_bytes
    routed = stream * config.top_k
    local = config.num_experts // shape.ep
    busiest = here * config.top_k * shape.etp * shape.imbalance
    scores = here * config.num_experts * 4
    # Norm and sum; scores, choice and balance; rows sorted out, brought back, weighted and summed.
    moved = 6 * stream + 6 * scores + 4 * routed
    count = how.expert_operations + how.per_expert * local
    kernels = elementwise(moved, moved + stream, count)
    travel = journey(how, shape, routed, config.top_k)
    if local > 1 and shape.ep * shape.etp > 1:
        travel = travel.after(elementwise(4 * routed * shape.etp, 4 * routed * shape.etp))
    networks = feed_forward(busiest / local, config.d_model, config.d_ff / shape.etp, how, local)
    whole = linear(here, config.num_experts, config.d_model).after(kernels, travel, networks)
    if config.num_shared_experts:
        width = config.num_shared_experts * config.d_ff
        shared = feed_forward(shape.tokens, config.d_model, width / shape.tp, how)
        if shape.tp > 1:
            given = shape.tokens * config.d_model * how.element_bytes
            shared = shared.after(
                exchanged("tp", "all_gather", "reduce_scatter", given / shape.tp, given),
                exchanged("tp", "reduce_scatter", "all_gather", given, given / shape.tp),
            )
        whole = whole.after(shared)
    return whole, Work(transfers=travel.forward.transfers)


def journey(how: Implementation, shape: Shape, routed: float, top_k: int) -> Pass:
    """Of `routed` bytes to their experts and back."""
    if shape.ep * shape.etp == 1:
        return Pass()
    if how.slices == "sent" or shape.etp == 1:
        given, copies = routed * shape.etp, top_k if how.sends_once else 1
        one = Work(transfers=(Transfer("ep_etp", "all_to_all", given, copies),) * 2)
        return Pass(one, one)
    there = (Transfer("ep", "all_to_all", routed), Transfer("etp", "all_gather", routed))
    back = (Transfer("etp", "reduce_scatter", routed * shape.etp), Transfer("ep", "all_to_all", routed))
    return Pass(Work(transfers=there + back), Work(transfers=there + back))


def embedding(config: ModelConfig, how: Implementation, shape: Shape) -> Pass:
    whole = shape.tokens * config.d_model * how.element_bytes
    looked_up = elementwise(2 * whole, 3 * whole, 3)
    if shape.tp == 1:
        return looked_up
    if not how.sequence_parallel:
        return looked_up.after(Pass(Work(transfers=(Transfer("tp", "all_reduce", whole),))))
    return looked_up.after(exchanged("tp", "reduce_scatter", "all_gather", whole, whole / shape.tp))


def head(config: ModelConfig, how: Implementation, shape: Shape) -> Pass:
    """Final norm, the matrix over the vocabulary, and the loss in fp32."""
    whole = shape.tokens * config.d_model * how.element_bytes
    stream = stream_bytes(config, how, shape)
    columns = config.vocab_size / shape.tp
    logits = shape.tokens * columns * 4
    kernels = elementwise(2 * stream + 4 * logits, 3 * stream + 2 * logits, 12)
    whole_pass = kernels.after(linear(shape.tokens, columns, config.d_model))
    if shape.tp == 1:
        return whole_pass
    row = shape.tokens * 4
    losses = Pass(Work(transfers=(Transfer("tp", "all_reduce", row),) * 3))
    if not how.sequence_parallel:
        return whole_pass.after(losses, Pass(inputs=Work(transfers=(Transfer("tp", "all_reduce", whole),))))
    return whole_pass.after(losses, exchanged("tp", "all_gather", "reduce_scatter", whole / shape.tp, whole))
