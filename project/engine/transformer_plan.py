"""The plan of the mixture-of-experts transformer: what each module does over the tensor-parallel axis, and over the
expert axes: ep gives each rank whole experts, etp a slice of each along d_ff (column-row). Where ep is the tp axis
there is no etp.

Between modules the residual stream is cut along the sequence (`Shard(1)` of `[B, S, D]`).
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Placement, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, PrepareModuleInput, RowwiseParallel
from torch.distributed.tensor.parallel.style import ParallelStyle

from project.engine.dispatch import AllToAllDispatch, SumOverRanks
from project.engine.mesh import flat
from project.engine.plan import Over, Plan, ReplicatedWeights, Row, compute_on_local_shards, distribute
from project.model.dispatch import LocalDispatch
from project.model.moe import MoE
from project.spec.layer import transformer
from project.spec.layer.implementation import ours
from project.spec.layer.operation import EXPERT, TP, Operation, Shape, Table, Weight
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.precision import width_of

# Arguments of a module besides the stream, which every rank of tp has whole.
WHOLE_ARGUMENTS = {"attention": 2}  # the tables of cosines and sines


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
            else:
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
    if "reduce_scatter" in sent:
        looks_up = weight.split[0] == TP[0]
        return RowwiseParallel(input_layouts=Replicate() if looks_up else None, output_layouts=Shard(1))
    if "all_gather" in sent:
        return ColwiseParallel(input_layouts=Shard(1), output_layouts=Shard(-1), use_local_output=False)
    return ColwiseParallel()


def exchange(operation: Operation) -> Iterator[tuple[str, Row]]:
    """A module that gathers the sequence for its matrices, adds up its output over the ranks, or holds the dispatch
    that the all-to-all takes the place of. Where every rank holds all experts whole, its tokens stay."""
    for send in operation.sends:
        if send.direction == "backward":
            continue
        if send.axes == EXPERT:
            yield operation.name.rpartition(".")[0], Over(EXPERT, DispatchOverRanks())
        elif send.collective == "all_gather":
            whole = [None] * WHOLE_ARGUMENTS.get(operation.name, 0)
            yield (
                operation.name,
                PrepareModuleInput(input_layouts=(Shard(1), *whole), desired_input_layouts=(Replicate(), *whole)),
            )
        elif send.collective == "all_reduce" and not send.payload:
            yield operation.name, SummedOverRanks()


class DispatchOverRanks(ParallelStyle):
    """Replaces the local dispatch of a `MoE` by the all-to-all."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        assert isinstance(module, MoE)
        assert isinstance(module.dispatch, LocalDispatch)
        ep, etp = (*device_mesh.shape, 1)[:2]
        module.dispatch = AllToAllDispatch(module.dispatch, flat(device_mesh).get_group(), ep, etp)
        return module


class ShardedExperts(ParallelStyle):
    """Shards stacked weights as `placements` says, over ep and over etp. A shard's gradient is complete on its rank, to
    which all its tokens came."""

    def __init__(self, placements: Mapping[str, Sequence[Placement]]) -> None:
        self.placements = placements

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        distribute(module, device_mesh, lambda name: self.placements[name][: device_mesh.ndim])
        compute_on_local_shards(module)
        return module


class SummedOverRanks(ParallelStyle):
    """Adds a module's output over the axis: the statistics of a sequence that is cut over it."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        group = device_mesh.get_group()
        module.register_forward_hook(lambda module, args, output: SumOverRanks.apply(output, group))
        return module
