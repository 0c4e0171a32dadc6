"""The tables of the mixture-of-experts transformer of `project.model`: a layer with experts, a dense layer, the
embedding and the head, each an operation a row in the order of the forward.

A table is that of one rank and one microbatch, for a model, a trainer's `Implementation`, a `Shape` and the `Width` of
its numbers. The tests hold it to the trainer: parameters, calls and bytes sent, and bytes that autograd keeps (storage
by storage, torch 2.13) are equal. Experts are taken to be balanced but for `Shape.imbalance`.

Bytes of other trainers' activations follow Korthikanti et al., arXiv 2205.05198, counted kernel by kernel, so that the
same sum holds for fused attention, gated networks and grouped queries: per layer `sbh(34 + 5as/h)` with dropout and no
parallelism, `(sb/t)[16h + k(4h + gf)]` of a mixture of experts in half precision.

Shapes: S tokens of the whole sequences, T = S / tp of a rank's share, D d_model, E experts, `rows` assignments on their
way to experts.
"""

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from project.spec.layer.implementation import Implementation
from project.spec.layer.names import names_of
from project.spec.layer.operation import (
    EXPERT,
    NONE,
    TP,
    Gemm,
    Keep,
    Operation,
    Products,
    Send,
    Shape,
    Table,
    Weight,
    linear,
)
from project.spec.model import ModelConfig
from project.spec.precision import BOOL, DOUBLE, FLOAT, INT32, INT64, Width

MATRICES = ("w1", "w3", "w2")
GROUPED_ALIGNMENT = 16  # bytes: rows of the matrices that a grouped product takes


class Tables(NamedTuple):
    """The tables of a model: of its two kinds of layer, each empty where the model has no such layer, of the embedding
    and of the head."""

    dense: Table
    experts: Table
    first: Table
    last: Table


def tables(config: ModelConfig, how: Implementation, shape: Shape, width: Width) -> Tables:
    return Tables(
        layer(config, how, shape, width, False) if config.num_dense_layers else (),
        layer(config, how, shape, width, True) if config.moe_layers else (),
        embedding(config, how, shape, width),
        head(config, how, shape, width),
    )


@lru_cache(maxsize=4096)
def layer(config: ModelConfig, how: Implementation, shape: Shape, width: Width, has_experts: bool) -> Table:
    of = _Sizes(config, how, shape, width)
    inner = _mixture(of) if has_experts else _dense(of)
    return (
        Operation("", "layer inputs", stays=of.stream * width.weight),
        *_attention(config, how, shape, width),
        *inner,
    )


@lru_cache(maxsize=4096)
def embedding(config: ModelConfig, how: Implementation, shape: Shape, width: Width) -> Table:
    """Each rank looks up its rows of the vocabulary; what the others have is added."""
    of = _Sizes(config, how, shape, width)
    whole = of.S * of.D * width.compute
    weight = Weight("embedding.weight", (config.vocab_size, of.D), ("tp", None), "model.embed_tokens.weight")
    sends = of.scatter(width.weight)
    if not how.sequence_parallel:
        sends = sends[:1]
    return (Operation("embedding", "embedding", (weight,), NONE, (2 * whole, 3 * whole), (3, 3), sends=sends),)


@lru_cache(maxsize=4096)
def head(config: ModelConfig, how: Implementation, shape: Shape, width: Width) -> Table:
    """The final norm, the matrix over the vocabulary, and the loss over a divided vocabulary, which asks the other
    ranks for each token's largest logit, the sum of its exponentials and its target's logit. Of the loss stay the
    logarithms of probabilities, and in torch the sum of the targets' weights, the microbatch's own weight, and whether
    any of its targets counts."""
    of = _Sizes(config, how, shape, width)
    columns = config.vocab_size // shape.tp
    logits = of.S * columns * width.wide
    weight = Weight("head.weight", (config.vocab_size, of.D), ("tp", None), "lm_head.weight")
    kept = (Keep(of.gathered), *of.casts(columns * of.D)) if how.eager else ()
    losses = Send(TP, "all_reduce", "forward", of.S * width.wide, calls=3)
    loss = Keep(logits + (width.wide + DOUBLE + BOOL if how.eager else 0), for_inputs=True)
    return (
        of.norm("norm", "model.norm.weight"),
        Operation("head", "head", (weight,), linear(of.S, columns, of.D), keeps=kept, sends=of.gather()),
        Operation("loss", "logits", moved=(4 * logits, 2 * logits), kernels=(11, 11), keeps=(loss,), sends=(losses,)),
    )


class _Sizes:
    """Numbers that several rows share, and the rows that occur in several places."""

    def __init__(self, config: ModelConfig, how: Implementation, shape: Shape, width: Width) -> None:
        self.config, self.how, self.shape, self.width = config, how, shape, width
        self.S, self.D = shape.tokens, config.d_model
        self.T = self.S // shape.tp
        self.stream = (self.T if how.sequence_parallel else self.S) * self.D  # numbers between the matrices
        self.gathered = self.S * self.D * width.compute  # bytes of the input of the matrices that share it

    def casts(self, numbers: int) -> tuple[Keep, ...]:
        """Copies of weights in the precision of the products."""
        if not (self.how.eager and self.width.casts):
            return ()
        return (Keep(numbers * self.width.compute, once=self.how.casts_once),)

    def gather(self) -> tuple[Send, ...]:
        """Shards of a sequence to the whole sequence; backward partial sums to shards."""
        whole = self.gathered
        if not self.how.sequence_parallel:
            return (Send(TP, "all_reduce", "backward", whole),)
        part = self.T * self.D * self.width.compute
        return Send(TP, "all_gather", "forward", part), Send(TP, "reduce_scatter", "backward", whole)

    def scatter(self, element: int, is_last: bool = False) -> tuple[Send, ...]:
        """Partial sums over the whole sequence to shards of it; backward shards to the whole. Recomputation stops at
        the last activation that is asked for, so that it does not scatter the result of a layer's last matrix."""
        whole, again = self.S * self.D * element, "never" if is_last else "always"
        if not self.how.sequence_parallel:
            return (Send(TP, "all_reduce", "forward", whole, again=again),)  # type: ignore[arg-type]
        part = self.T * self.D * element
        return (
            Send(TP, "reduce_scatter", "forward", whole, again=again),  # type: ignore[arg-type]
            Send(TP, "all_gather", "backward", part),
        )

    def norm(self, name: str, theirs: str | None) -> Operation:
        """Eager it keeps its input in fp32, the root of the mean square, and the normalised; fused its input, and its
        output as the input of the matrices."""
        compute, wide = self.width.compute, self.width.wide
        stream = self.stream * compute
        if self.how.eager:
            keeps: tuple[Keep, ...] = (Keep(self.T * (2 * self.D + 1) * wide),)
        else:
            keeps = Keep(stream), Keep(stream, "kernel")
        weights = (Weight(f"{name}.weight", (self.D,), (None,), theirs),)
        return Operation(
            name, "norms", weights, NONE, (2 * stream, 3 * stream), (1, 1), keeps=keeps, recomputed="kernel"
        )

    def residual(self, part: str, kernels: int) -> Operation:
        """Reads two, writes one; dropout reads and writes besides, and a mask of half as much, of which it keeps a byte
        for each number."""
        moved = (5.5 if self.how.dropout else 3) * self.stream * self.width.compute
        mask = (Keep(self.stream),) if self.how.dropout else ()
        return Operation("residual", part, moved=(moved, moved), kernels=(kernels, kernels), keeps=mask)

    def feed_forward(
        self,
        part: str,
        names: tuple[tuple[str, str | None], ...],
        shape: tuple[int, ...],
        split: tuple[str | None, ...],
        tokens: float,
        hidden: int,
        batch: int = 1,
        rows: float | None = None,
    ) -> Iterator[Operation]:
        """`batch` networks of `hidden` columns on this rank, each with its own `tokens`, of `rows` in all: gate and up
        as one product, the nonlinearity, down. `names` are those of w1, w3 and w2, here and in a Mixtral; `shape` is
        that of w1, of which w2's last two dims are the reverse.

        Eager it keeps gate, its SiLU, up and their product; fused all but the SiLU, or without a gate the
        nonlinearity's input and output.
        """
        how, compute = self.how, self.width.compute
        inward, outward = names[:2] if how.gated else names[:1], names[2]
        one = (tokens if rows is None else rows) * hidden * compute
        gate, matrix = len(inward), batch * hidden * self.D
        weights = tuple(Weight(ours, shape, split, theirs) for ours, theirs in inward)
        turned = (*shape[:-2], shape[-1], shape[-2]), (*split[:-2], split[-1], split[-2])
        yield Operation(
            part,
            part,
            weights,
            linear(tokens, gate * hidden, self.D, batch),
            keeps=(Keep(gate * one), *self.casts(gate * matrix)),
        )
        yield Operation(
            "nonlinearity",
            part,
            moved=(3 * one, 5 * one) if how.gated else (2 * one, 3 * one),
            kernels=(2, 2) if how.gated else (1, 1),
            keeps=(Keep(one * (2 if how.eager else 1), "kernel"),),
            recomputed="kernel",
        )
        yield Operation(
            part,
            part,
            (Weight(outward[0], *turned, outward[1]),),
            linear(tokens, self.D, hidden, batch),
            keeps=self.casts(matrix),
        )

    def split_feed_forward(self, part: str, module: str, width: int, keeps_input: bool = True) -> Iterator[Operation]:
        """One network of `width` columns divided over tp: the whole sequence comes in, each rank's share goes out."""
        kept = (Keep(self.gathered),) if self.how.eager and keeps_input else ()
        yield Operation(module, part, keeps=kept, sends=self.gather())
        called = names_of(self.config)
        dense = None if self.config.moe_layers else called.dense
        prefix = called.shared if part == "shared" else dense
        theirs = (None,) * 3 if prefix is None else called.of(prefix)
        names = tuple(zip((f"{module}.{name}.weight" for name in MATRICES), theirs, strict=True))
        inward, kernel, outward = self.feed_forward(
            part, names, (width, self.D), ("tp", None), self.S, width // self.shape.tp
        )
        if part == "shared":  # the published runs are reproduced so: selective recomputation does not repeat it
            kernel = kernel._replace(recomputed="other", keeps=tuple(Keep(keep.size) for keep in kernel.keeps))
        gated = part == "shared" and self.config.shared_gate  # whose backward needs what was scattered
        yield from (inward, kernel, outward._replace(sends=self.scatter(self.width.compute, is_last=not gated)))


@lru_cache(maxsize=64)
def _attention(config: ModelConfig, how: Implementation, shape: Shape, width: Width) -> Table:
    """q, k and v as one product, rotary embedding, scores and weighted sum, output. Autograd keeps q, k, v, the output
    and, eager, the logarithms of the softmax's sums; and where they are not fp32 tables of sines and cosines for q and
    for k."""
    of = _Sizes(config, how, shape, width)
    S, D, e, tp = of.S, of.D, width.compute, shape.tp
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    q, kv = queries // tp, keys // tp
    tables = 4 * shape.seq_len * config.head_dim * e if how.eager and e != FLOAT else 0
    weights = tuple(
        Weight(f"attention.w{name}.weight", (out, D), ("tp", None), f"self_attn.{name}_proj.weight")
        for name, out in (("q", queries), ("k", keys), ("v", keys))
    )
    if config.qkv_bias:
        weights += tuple(
            Weight(f"attention.w{name}.bias", (out,), ("tp",), f"self_attn.{name}_proj.bias")
            for name, out in (("q", queries), ("k", keys), ("v", keys))
        )
    copied = D + (config.qkv_bias and how.casts_once)  # a bias's copy is not kept by autograd
    projected = Keep(S * (q + 2 * kv) * e), *of.casts((q + 2 * kv) * copied)
    rotated, kept = 2 * S * (q + kv) * e, (Keep(of.gathered),) if how.eager else ()
    output = Weight("attention.wo.weight", (D, queries), (None, "tp"), "self_attn.o_proj.weight")
    return (
        of.norm("attention_norm", "input_layernorm.weight"),
        Operation("attention", "attention", keeps=kept, sends=of.gather()),
        Operation("attention", "attention", weights, linear(S, q + 2 * kv, D), keeps=projected),
        *_head_norms(of, q, kv),
        Operation("rotary", "attention", moved=(rotated, rotated), kernels=(2, 2), keeps=(Keep(tables),)),
        _attention_core(of, q),
        Operation("attention", "attention", (output,), linear(S, D, q), keeps=of.casts(q * D), sends=of.scatter(e)),
        of.residual("attention", how.operations // 2 - 1),
    )


def _head_norms(of: _Sizes, q: int, kv: int) -> Table:
    """Norms of each head's query and key, of weights that all heads share. As `_Sizes.norm`."""
    if not of.config.qk_norm:
        return ()
    if of.config.qk_norm_over == "width":
        return *_width_norm(of, "q_norm", of.config.num_heads), *_width_norm(of, "k_norm", of.config.num_kv_heads)
    C, compute, wide = of.config.head_dim, of.width.compute, of.width.wide

    def norm(name: str, width: int) -> Operation:
        bytes_of = of.S * width * compute
        if of.how.eager:
            keeps: tuple[Keep, ...] = (Keep(of.S * (2 * width + width // C) * wide),)
        else:
            keeps = Keep(bytes_of), Keep(bytes_of, "kernel")
        weight = Weight(f"attention.{name}.weight", (C,), (None,), f"self_attn.{name}.weight")
        return Operation(
            f"attention.{name}",
            "norms",
            (weight,),
            NONE,
            (2 * bytes_of, 3 * bytes_of),
            (1, 1),
            keeps=keeps,
            recomputed="kernel",
        )

    return norm("q_norm", q), norm("k_norm", kv)


def _width_norm(of: _Sizes, name: str, heads: int) -> Table:
    """A norm of all heads together, whose squares the ranks of tp add up. It keeps as much as `_Sizes.norm`, with one
    root for a token; when the layer is recomputed under selective recomputation, its sum of squares."""
    width = heads * of.config.head_dim
    here, sums = of.S * width // of.shape.tp, of.S * of.width.wide
    if of.how.eager:
        keeps: tuple[Keep, ...] = (Keep(2 * here * of.width.wide + sums),)
    else:
        keeps = Keep(here * of.width.compute), Keep(here * of.width.compute, "kernel")
    weight = Weight(f"attention.{name}.weight", (width,), ("tp",), f"self_attn.{name}.weight")
    moved = 2 * here * of.width.compute, 3 * here * of.width.compute
    forward = Send(TP, "all_reduce", "forward", sums, again="unless kept")
    both = (forward, Send(TP, "all_reduce", "backward", sums)) if of.shape.tp > 1 else ()
    return (
        Operation(f"attention.{name}.sum_of_squares", "attention", sends=both),
        Operation(f"attention.{name}", "attention", (weight,), NONE, moved, (7, 13), keeps=keeps, recomputed="kernel"),
    )


def _attention_core(of: _Sizes, q: int) -> Operation:
    """Scores, softmax, weighted sum. Fused it skips the masked half; otherwise it computes and writes all of it, in one
    kernel for scale, mask and softmax, and keeps the softmax's output, with dropout its dropped version and a mask."""
    config, how, shape, e = of.config, of.how, of.shape, of.width.compute
    heads, length = config.num_heads // shape.tp, shape.seq_len
    batch = shape.sequences * heads
    output = Keep(of.S * q * e)
    if how.fused_attention:
        sums = of.S * heads * of.width.wide if how.eager else 0
        products = Products(fused=2 * batch * length * length * config.head_dim)
        return Operation(
            "core", "attention", products=products, kernels=(1, 1), keeps=(output, Keep(sums)), recomputed="core"
        )
    scores = batch * length * length
    product, back = Gemm(length, length, config.head_dim, batch), Gemm(length, config.head_dim, length, batch)
    moved = (4.5 if how.dropout else 2) * scores * e
    return Operation(
        "core",
        "attention",
        products=Products((product, back), (product, product, back, back)),
        moved=(moved, moved + scores * e),
        kernels=(4, 4),
        keeps=(output, Keep(scores * (2 * e + 1 if how.dropout else e), "core")),
        recomputed="core",
    )


def _dense(of: _Sizes) -> Iterator[Operation]:
    # Hugging Face's families have no name for it in a model of both kinds of layer.
    yield of.norm("feed_forward_norm", None if of.config.moe_layers else "post_attention_layernorm.weight")
    yield from of.split_feed_forward("feed_forward", "feed_forward", of.config.dense_d_ff)
    yield of.residual("feed_forward", of.how.operations // 2 - 1)


def _mixture(of: _Sizes) -> Iterator[Operation]:
    """Router, balance, the rows' way to their experts, the experts, the way back, shared experts."""
    config, how, shape = of.config, of.how, of.shape
    yield of.norm("moe_norm", "post_attention_layernorm.weight")
    yield from _router(of)
    yield from _experts(of)
    if width := config.num_shared_experts * config.d_ff:
        alone = how.eager and shape.tp == 1 and not of.width.casts and not of.width.widens
        # Not gathered and not copied the input is the storage that the router keeps.
        yield from of.split_feed_forward("shared", "moe.shared", width, keeps_input=not alone)
        if config.shared_gate:
            yield _shared_gate(of)
    yield of.residual("experts", 0)


def _shared_gate(of: _Sizes) -> Operation:
    """A sigmoid for each token that multiplies what the shared experts give, which is kept with it. Eager its input is
    the router's where that is not widened, and without tp the shared experts'; its weight is copied where products are
    in half precision."""
    T, D, e, width = of.T, of.D, of.width.compute, of.width
    weight = Weight("moe.shared_gate.weight", (1, D), (None, None), names_of(of.config).shared_gate)
    product = Keep(T * (D + 1) * e, for_inputs=True)
    inputs = T * D * e if (width.casts or width.widens) and of.shape.tp > 1 else 0
    copy = D * e if width.casts else 0
    moved = (3 * T * D * e, 5 * T * D * e)
    keeps = (product, Keep(inputs + copy)) if of.how.eager else (product,)
    return Operation("moe.shared_gate", "router", (weight,), linear(T, 1, D), moved, (2, 5), keeps=keeps)


def _router(of: _Sizes) -> Iterator[Operation]:
    """Scores in fp32, the choice, and sums over each sequence of what balances: counts and scores of all experts, z,
    entropy, dropped, tokens. A backward needs no more of other tokens than these.

    A choice keeps scores, the chosen and, with `norm_top_k`, their scores and what these are divided by: their sum,
    twice; for an auxiliary loss of sigmoids also the sum of all, twice; for a z-loss the logits. When the layer is
    recomputed the chosen scores and experts stay.
    """
    config, how, shape, width = of.config, of.how, of.shape, of.width
    E, k, wide, T = config.num_experts, config.top_k, width.wide, of.T
    gate = Weight("moe.router.weight", (E, of.D), (None, None), names_of(config).router)
    kernels = how.expert_operations + how.per_expert * (E // shape.ep) - 1
    scores = 6 * T * E * wide
    inputs = (T + (E if width.widens else 0)) * of.D * wide
    yield Operation(
        "moe.router",
        "router",
        (gate,),
        linear(T, E, of.D),
        (scores, scores),
        (kernels, kernels),
        keeps=(Keep(inputs),) if how.eager else (),
    )
    if not how.eager:
        return
    auxiliary = config.expert_balance == "auxiliary" and config.auxiliary_coefficient > 0
    normalised, z = auxiliary and config.score == "sigmoid", config.z_coefficient > 0
    numbers = T * (E + 2 * normalised + E * z + (k + 2) * config.norm_top_k)
    kept = Keep(T * k * INT64 + numbers * wide, for_inputs=True)
    yield Operation("choice", "router", keeps=(kept,), stays=T * k * (wide + INT64))
    one = (2 * E + 4) * wide
    pooled = shape.sequences if config.auxiliary_per == "sequence" else 1
    sums = Send(TP, "all_reduce", "forward", shape.sequences * one, again="unless kept", payload=False)
    kept = Keep(pooled * one * (auxiliary or z), for_inputs=True)
    yield Operation("moe.balance.sequence_sum", "router", keeps=(kept,), sends=(sums,) if shape.tp > 1 else ())


def _experts(of: _Sizes) -> Iterator[Operation]:
    """Rows travel to their experts, several of a rank are sorted by expert, and come back to be weighted and summed.

    Eager autograd keeps the orders of rows on their way there, among a rank's several experts and on their way back,
    the rows before the experts and those that came back, with their weights, and where each expert's rows end for a
    grouped product. With a capacity the order on the way back is of slots, and one to spare.
    """
    config, how, shape, e = of.config, of.how, of.shape, of.width.compute
    E, k, D, ep, etp = config.num_experts, config.top_k, of.D, shape.ep, shape.etp
    local, hidden = E // ep, config.d_ff // etp
    assigned, rows = of.T * k * etp, rows_sent(config, of.T, etp)
    there, back = _travel(of, rows)
    several = local > 1 and ep * etp > 1
    order = rows * INT64 if several else 0
    here = rows if shape.imbalance == 1 else rows * shape.imbalance
    each = here // local if shape.imbalance == 1 and rows % local == 0 else here / local
    stream, routed = of.T * D * e, of.T * k * D * e
    sorting = 4 * routed * etp if several else 0
    returned = (assigned if config.capacity_factor is None else rows + 1) * INT64
    ends = local * INT32 if how.eager and is_grouped(config, hidden, e) else 0
    yield Operation(
        "moe.dispatch",
        "dispatch",
        moved=(2 * routed + sorting, 2 * routed + sorting),
        kernels=(int(several), int(several)),
        keeps=(Keep(assigned * INT64 + order),) if how.eager else (),
        sends=there,
    )
    yield Operation("moe.experts", "experts", keeps=(Keep(here * D * e + ends),))
    theirs = names_of(config).of(names_of(config).expert)
    names = tuple(zip((f"moe.experts.{name}" for name in MATRICES), theirs, strict=True))
    yield from of.feed_forward("experts", names, (E, config.d_ff, D), ("ep", "etp", None), each, hidden, local, here)
    yield Operation(
        "moe.dispatch",
        "dispatch",
        moved=(2 * routed + stream, 2 * routed + stream),
        keeps=(Keep(returned + order + assigned * (D + 1) * e, for_inputs=True) if how.eager else Keep(here * D * e),),
        sends=back,
    )


def _travel(of: _Sizes, rows: int) -> tuple[tuple[Send, ...], tuple[Send, ...]]:
    """Messages on the way to the experts and on the way back, with their backwards. Where the router decides how
    many rows go, each rank first tells the others."""
    config, how, shape = of.config, of.how, of.shape
    if shape.ep * shape.etp == 1:
        return (), ()
    given = rows * of.D * of.width.compute
    if how.slices == "gathered" and shape.etp > 1:
        part = given // shape.etp
        scattered = Send(("etp",), "reduce_scatter", "forward", given), Send(("ep",), "all_to_all", "forward", part)
        spread = Send(("ep",), "all_to_all", "forward", part), Send(("etp",), "all_gather", "forward", part)
        there = *spread, *(send._replace(direction="backward") for send in scattered)
        back = *scattered, *(send._replace(direction="backward") for send in spread)
        return there, back
    copies = config.top_k if how.sends_once else 1
    forward = Send(EXPERT, "all_to_all", "forward", given, again="unless kept", copies=copies)
    both = forward, Send(EXPERT, "all_to_all", "backward", given, copies=copies)
    if config.capacity_factor is not None or not how.eager:
        return both, both
    counts = config.num_experts * shape.etp * INT64
    return (Send(EXPERT, "all_to_all", "forward", counts, again="unless kept", payload=False), *both), both


def rows_sent(config: ModelConfig, tokens: int, etp: int) -> int:
    """Rows that a rank with so many tokens hands to the experts' dispatch: each token's assignments, each to all slices
    of its expert; with a capacity, all slots of all experts, full or not."""
    if config.capacity_factor is None:
        return tokens * config.top_k * etp
    slots = expert_slots(config.capacity_factor, config.capacity_group, config.top_k, config.num_experts)
    return tokens // config.capacity_group * slots * config.num_experts * etp


def expert_slots(factor: float, group: int, assignments: int, experts: int) -> int:
    """Slots of each expert for a group of so many tokens: `ceil(factor * G * A / E)` of the factor as it is written,
    for 1.1 is a little more than 11/10 in binary, and 1.1 * 100 would be rounded up to 111."""
    return ceil(Fraction(str(factor)) * group * assignments / experts)


def is_grouped(config: ModelConfig, hidden: int, element: int) -> bool:
    """The condition of `project.model.experts.grouped_gemm_takes`."""
    return element != DOUBLE and all(size * element % GROUPED_ALIGNMENT == 0 for size in (hidden, config.d_model))
