"""Bytes that autograd keeps on a rank from a stage's forward for its backward, read off the layers' tables. The tests
hold the sums to `project.observe.memory`, which counts storages.

Experts are taken to be balanced.
"""

from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from project.planner.cost.stages import held_by
from project.planner.step import Step
from project.spec.layer.implementation import EVERY, Implementation
from project.spec.layer.operation import Shape, Table
from project.spec.layer.transformer import tables
from project.spec.model import ModelConfig
from project.spec.partition import Part
from project.spec.precision import Width
from project.spec.schedules.in_flight import InFlight


def bytes_kept(table: Table, how: Implementation, recompute: str) -> dict[str, float]:
    """Bytes of one microbatch under a mode of recomputation, by the heading of the operation that keeps them.

    A layer that is recomputed whole keeps its input and the router's choice, and under selective recomputation the
    results of the collectives that it does not repeat; one of which selective recomputation repeats a class of
    operations keeps all that these do not bring back.
    """
    repeated, found = how.repeats(recompute), dict[str, float]()
    whole = repeated == EVERY
    for operation in table:
        if whole:
            size: float = operation.stays
            if recompute == "selective":
                size += sum(send.calls * send.given for send in operation.sends if send.is_kept)
        else:
            size = 0
            for keep in operation.keeps:
                if keep.made_by not in repeated and not keep.once:
                    size += keep.size
        if size:
            found[operation.part] = found.get(operation.part, 0) + size
    return found


def copies(table: Table) -> int:
    """Bytes of a layer's weights in the precision of the products, kept once for the batch."""
    return int(sum(keep.size for operation in table for keep in operation.keeps if keep.once))


def for_inputs(table: Table) -> Counter[str]:
    """Bytes of a stage's last layer, or of its head, that no gradient of a weight needs, for no weight is nearer to the
    end: the loss; or after experts the choice's weights and balance, and the way back. By heading."""
    found: Counter[str] = Counter()
    for operation in table:
        for keep in operation.keeps:
            if keep.for_inputs:
                found[operation.part] += int(keep.size)
    return found


class LayerBytes(NamedTuple):
    """Bytes of one microbatch on a rank, for each kind of layer.

    dense, experts, head: bytes that autograd keeps; `logits` is the loss's part of the head.
    experts_given_back, logits_given_back: of these what the first half of a split backward returns where the layer is
        its stage's last.
    largest: bytes that the larger kind of layer keeps when nothing is recomputed.
    rows: sent on their way to experts and back.
    dense_copies, experts_copies, head_copies: of weights, kept once for the batch.
    """

    dense: int
    experts: int
    head: int
    logits: int
    experts_given_back: int
    logits_given_back: int
    largest: int
    rows: int
    dense_copies: int
    experts_copies: int
    head_copies: int


@lru_cache(maxsize=65536)
def layer_bytes(config: ModelConfig, how: Implementation, shape: Shape, width: Width, recompute: str) -> LayerBytes:
    """Cached by what the bytes depend on: a search asks for thousands of layouts that share it."""
    found = tables(config, how, shape, width)
    dense, experts = (int(sum(bytes_kept(table, how, recompute).values())) for table in (found.dense, found.experts))
    if recompute != "none":
        return layer_bytes(config, how, shape, width, "none")._replace(dense=dense, experts=experts)
    head = bytes_kept(found.last, how, "none")
    forward = (send for one in found.experts for send in one.sends if send.direction == "forward" and send.payload)
    return LayerBytes(
        dense,
        experts,
        int(sum(head.values())),
        int(head["logits"]),
        for_inputs(found.experts).total(),
        for_inputs(found.last).total(),
        max(dense, experts),
        sum(send.given for send in forward if send.collective == "all_to_all"),
        *(copies(table) for table in (found.dense, found.experts, found.last)),
    )


def kept_by_module(step: Step, part: Part, moment: InFlight) -> Counter[str]:
    """Bytes of a stage with so many microbatches in flight, by heading, tokens and targets apart."""
    tables, how, held = step.tables, step.how, held_by(step.config, part)
    found: Counter[str] = Counter()
    for count, table, recompute in (
        (held.experts, tables.experts, step.layout.recompute),
        (held.dense, tables.dense, step.layout.recompute),
        (held.last, tables.last, "none"),
    ):
        for module, size in bytes_kept(table, how, recompute).items() if count else ():
            found[module] += moment.all * count * int(size)
    last_table = tables.last if part.last else tables.experts if held.experts else ()
    for module, size in for_inputs(last_table).items():
        found[module] -= moment.second_half * size
    return found
