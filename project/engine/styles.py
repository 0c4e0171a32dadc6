"""Parallel styles of modules that compute on local shards, with each collective written out. A group of one rank sends
nothing and adds nothing.

They are for the modules of `project.model`; for any other there are torch's, and `plan.ReplicatedWeights`.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Shard
from torch.distributed.tensor.parallel.style import ParallelStyle

from project.engine.collectives import GatherSequence, ScatterSequence, SumOverRanks
from project.engine.dispatch import AllToAllDispatch
from project.engine.local_shards import compute_locally, distribute
from project.engine.mesh import flat
from project.model.dispatch import LocalDispatch
from project.model.moe import MoE


class Columns(ParallelStyle):
    """A matrix's columns, and its bias, over the axis: each rank computes its part of the output's width."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, nn.Linear):
            raise NotImplementedError("columns are divided of an nn.Linear")
        distribute(module, device_mesh, lambda name: [Shard(0)])
        compute_locally(module, multiplies=True)
        return module


class Rows(ParallelStyle):
    """A matrix's rows over the axis: each rank has a part of the input's width; the outputs are summed, and each rank
    keeps its part of the sequence."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, nn.Linear) or module.bias is not None:
            raise NotImplementedError("rows are divided of an nn.Linear without a bias")
        distribute(module, device_mesh, lambda name: [Shard(1)])
        compute_locally(module, multiplies=True)
        if device_mesh.size() > 1:
            group = device_mesh.get_group()
            module.register_forward_hook(lambda module, args, output: ScatterSequence.apply(output, group))
        return module


class Channels(ParallelStyle):
    """A vector of factors over the axis: each rank scales its part of the width, of the whole sequence's tokens."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        distribute(module, device_mesh, lambda name: [Shard(0)])
        compute_locally(module)
        return module


class WholeSequence(ParallelStyle):
    """Gathers a module's first argument along the sequence; the others every rank has whole."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if device_mesh.size() > 1:
            group = device_mesh.get_group()
            module.register_forward_pre_hook(lambda module, args: (GatherSequence.apply(args[0], group), *args[1:]))
        return module


class VocabularyRows(ParallelStyle):
    """An embedding's rows over the axis: each rank looks up its own of the whole sequence's tokens; the sum is cut
    along the sequence."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, nn.Embedding):
            raise NotImplementedError("rows of a vocabulary are divided of an nn.Embedding")
        distribute(module, device_mesh, lambda name: [Shard(0)])
        compute_locally(module)
        if device_mesh.size() > 1:
            each = module.num_embeddings // device_mesh.size()
            first, group = each * device_mesh.get_local_rank(), device_mesh.get_group()
            module.forward = partial(look_up_and_scatter, module, first, group)  # type: ignore[method-assign]
        return module


def look_up_and_scatter(module: nn.Embedding, first: int, group: ProcessGroup, tokens_BS: Tensor) -> Tensor:
    return ScatterSequence.apply(LookUp.apply(module.weight, tokens_BS, first), group)


class LookUp(torch.autograd.Function):
    """The rows of a vocabulary from `first` on, which are here, and zeros for other tokens. For backward it keeps the
    tokens alone, which the batch keeps anyway."""

    @staticmethod
    def forward(ctx, weight_VD: Tensor, tokens_BS: Tensor, first: int) -> Tensor:
        ctx.save_for_backward(tokens_BS)
        ctx.first, ctx.rows = first, len(weight_VD)
        rows_BS, elsewhere_BS1 = rows_here(tokens_BS, first, len(weight_VD))
        return F.embedding(rows_BS, weight_VD).masked_fill_(elsewhere_BS1, 0)

    @staticmethod
    def backward(ctx, grad_BSD: Tensor) -> tuple[Tensor, None, None]:
        (tokens_BS,) = ctx.saved_tensors
        rows_BS, elsewhere_BS1 = rows_here(tokens_BS, ctx.first, ctx.rows)
        grad_BSD = grad_BSD.masked_fill(elsewhere_BS1, 0)
        return torch.ops.aten.embedding_dense_backward(grad_BSD, rows_BS, ctx.rows, -1, False), None, None


def rows_here(tokens_BS: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """The tokens' rows among `count`, 0 for those that are elsewhere, and which these are."""
    rows_BS = tokens_BS - first
    elsewhere_BS = (rows_BS < 0) | (rows_BS >= count)
    return rows_BS.masked_fill(elsewhere_BS, 0), elsewhere_BS.unsqueeze(-1)


class VocabularyColumns(ParallelStyle):
    """The head's columns over the axis, from shards of the sequence to logits that stay divided, as a DTensor:
    `loss_parallel` computes the loss of them."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        Columns()._apply(module, device_mesh)
        if device_mesh.size() > 1:
            WholeSequence()._apply(module, device_mesh)
            module.register_forward_hook(
                lambda module, args, output: DTensor.from_local(output, device_mesh, [Shard(-1)], run_check=False)
            )
        return module


class DispatchOverRanks(ParallelStyle):
    """Replaces the local dispatch of a `MoE` by the all-to-all."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        assert isinstance(module, MoE)
        assert isinstance(module.dispatch, LocalDispatch)
        if device_mesh.size() > 1:
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
        compute_locally(module, multiplies=True)
        return module


class SummedOverRanks(ParallelStyle):
    """Adds a module's output over the axis: the statistics of a sequence that is cut over it, or the squares of a width
    that is."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if device_mesh.size() > 1:
            group = device_mesh.get_group()
            module.register_forward_hook(lambda module, args, output: SumOverRanks.apply(output, group))
        return module
