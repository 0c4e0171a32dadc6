"""The plan of the mixture-of-experts transformer: what each module does over the tensor-parallel axis.

Between modules the residual stream is cut along the sequence (`Shard(1)` of `[B, S, D]`).
"""

from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, PrepareModuleInput, RowwiseParallel
from torch.distributed.tensor.parallel.style import ParallelStyle

from project.parallel.expert import DispatchOverRanks, SummedOverRanks
from project.parallel.layout import ParallelLayout
from project.parallel.local_view import ReplicatedWeights, ShardedStack
from project.parallel.plan import Plan


def transformer_plan(layout: ParallelLayout, *, shared_expert: bool) -> Plan:
    whole_sequence = PrepareModuleInput(input_layouts=Shard(1), desired_input_layouts=Replicate())
    plan: dict[str, ParallelStyle] = {
        "embedding": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
        "layers.*.attention_norm": ReplicatedWeights(),
        "layers.*.attention": PrepareModuleInput(
            input_layouts=(Shard(1), None, None), desired_input_layouts=(Replicate(), None, None)
        ),
        "layers.*.attention.wq": ColwiseParallel(),
        "layers.*.attention.wk": ColwiseParallel(),
        "layers.*.attention.wv": ColwiseParallel(),
        "layers.*.attention.wo": RowwiseParallel(output_layouts=Shard(1)),
        "layers.*.moe_norm": ReplicatedWeights(),
        "layers.*.moe.router": ReplicatedWeights(),
        "layers.*.moe.balance.sequence_sum": SummedOverRanks(),
        "norm": ReplicatedWeights(),
        "head": ColwiseParallel(input_layouts=Shard(1), output_layouts=Shard(-1), use_local_output=False),
    }
    return plan | expert_plan(layout) | (shared_expert_plan(whole_sequence) if shared_expert else {})


def expert_plan(layout: ParallelLayout) -> dict[str, ParallelStyle]:
    """With one expert-parallel rank every rank holds all experts and its tokens stay."""
    if layout.ep == 1:
        return {"layers.*.moe.experts": ReplicatedWeights()}
    return {"layers.*.moe": DispatchOverRanks(), "layers.*.moe.experts": ShardedStack()}


def shared_expert_plan(whole_sequence: PrepareModuleInput) -> dict[str, ParallelStyle]:
    return {
        "layers.*.moe.shared": whole_sequence,
        "layers.*.moe.shared.w1": ColwiseParallel(),
        "layers.*.moe.shared.w3": ColwiseParallel(),
        "layers.*.moe.shared.w2": RowwiseParallel(output_layouts=Shard(1)),
    }
