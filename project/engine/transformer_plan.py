"""The plan of the mixture-of-experts transformer: what each module does over the tensor-parallel axis, and over the
expert axes: ep gives each rank whole experts, etp a slice of each along d_ff (column-row). Where ep is the tp axis
there is no etp.

Between modules the residual stream is cut along the sequence (`Shard(1)` of `[B, S, D]`).
"""

from collections.abc import Iterator

from torch.distributed.tensor import Placement, Shard
from torch.distributed.tensor.parallel.style import ParallelStyle

from project.engine.plan import Over, Plan, ReplicatedWeights, Row
from project.engine.styles import (
    Channels,
    Columns,
    DispatchOverRanks,
    Rows,
    ShardedExperts,
    SummedOverRanks,
    VocabularyColumns,
    VocabularyRows,
    WholeSequence,
)
from project.spec.layer import transformer
from project.spec.layer.implementation import ours
from project.spec.layer.operation import EXPERT, TP, Operation, Shape, Table, Weight
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.precision import width_of


def transformer_plan(layout: ParallelLayout, config: ModelConfig) -> Plan:
    """Rows for what the model has, and no others: one that matches nothing is an error."""
    precision = "32-true"  # of no matter to the plan
    shape = Shape(1, layout.tp, layout.tp, layout.ep, layout.etp)
    args = config, ours(precision), shape, width_of(precision)
    plan = dict(rows(transformer.embedding(*args)))
    for kind, has_experts in ((config.num_dense_layers, False), (config.moe_layers, True)):
        if kind:
            table = transformer.layer(*args, has_experts)
            plan |= {f"layers.*.{name}": row for name, row in rows(table)}
    return plan | dict(rows(transformer.head(*args)))


def rows(table: Table) -> Iterator[tuple[str, Row]]:
    """Names of modules, relative to the layer, with what each does."""
    stacked: dict[str, dict[str, tuple[Placement, ...]]] = {}
    for operation in table:
        for weight in operation.weights:
            if weight.split[0] == EXPERT[0]:
                name = weight.name.rpartition(".")[2]
                stacked.setdefault(weight.module, {})[name] = placements(weight)
            elif not weight.name.endswith(".bias"):  # which is divided with its matrix
                yield weight.module, style(weight, operation)
        if not operation.weights:
            yield from exchange(operation)
    yield from ((module, Over(EXPERT, ShardedExperts(weights))) for module, weights in stacked.items())


def placements(weight: Weight) -> tuple[Placement, ...]:
    """Over ep and over etp."""
    return tuple(Shard(weight.split.index(axis)) for axis in EXPERT)


def style(weight: Weight, operation: Operation) -> ParallelStyle:
    """A matrix's columns or rows over tp, by the dim that is split; an embedding's rows are summed up like those of a
    matrix, and the head's columns gather their input and stay apart."""
    sent = {send.collective for send in operation.sends if send.direction == "forward"}
    if TP[0] not in weight.split:
        return ReplicatedWeights()
    if len(weight.shape) == 1:
        return Channels()
    if "reduce_scatter" in sent:
        return VocabularyRows() if weight.split[0] == TP[0] else Rows()
    return VocabularyColumns() if "all_gather" in sent else Columns()


def exchange(operation: Operation) -> Iterator[tuple[str, Row]]:
    """A module that gathers the sequence for its matrices, adds up its output over the ranks, or holds the dispatch
    that the all-to-all takes the place of. Where every rank holds all experts whole, its tokens stay. The sums of the
    loss over a divided vocabulary are torch's."""
    for send in operation.sends:
        if send.direction == "backward":
            continue
        if send.axes == EXPERT:
            yield operation.name.rpartition(".")[0], Over(EXPERT, DispatchOverRanks())
        elif send.collective == "all_gather":
            yield operation.name, WholeSequence()
        elif send.collective == "all_reduce" and operation.name != "loss":
            yield operation.name, SummedOverRanks()
