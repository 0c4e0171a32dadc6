"""The plan of the mixture-of-experts transformer: what each module does over the tensor-parallel axis.

Between modules the residual stream is cut along the sequence (`Shard(1)` of `[B, S, D]`).
"""

from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, PrepareModuleInput, RowwiseParallel

from project.engine.expert_styles import DispatchOverRanks, ShardedExperts, SummedOverRanks
from project.engine.local_view import ReplicatedWeights
from project.engine.plan import Over, Plan, Row
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig


def transformer_plan(layout: ParallelLayout, config: ModelConfig) -> Plan:
    """Rows for what the model has, and no others: one that matches nothing is an error."""
    plan: dict[str, Row] = {
        "embedding": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
        "layers.*.attention_norm": ReplicatedWeights(),
        "layers.*.attention": PrepareModuleInput(
            input_layouts=(Shard(1), None, None), desired_input_layouts=(Replicate(), None, None)
        ),
        "layers.*.attention.wq": ColwiseParallel(),
        "layers.*.attention.wk": ColwiseParallel(),
        "layers.*.attention.wv": ColwiseParallel(),
        "layers.*.attention.wo": RowwiseParallel(output_layouts=Shard(1)),
        "norm": ReplicatedWeights(),
        "head": ColwiseParallel(input_layouts=Shard(1), output_layouts=Shard(-1), use_local_output=False),
    }
    if config.num_dense_layers:
        plan |= {"layers.*.feed_forward_norm": ReplicatedWeights(), **feed_forward_plan("layers.*.feed_forward")}
    if config.moe_layers:
        plan |= {
            "layers.*.moe_norm": ReplicatedWeights(),
            "layers.*.moe.router": ReplicatedWeights(),
            "layers.*.moe.balance.sequence_sum": SummedOverRanks(),
            **expert_plan(layout),
            **(feed_forward_plan("layers.*.moe.shared") if config.num_shared_experts else {}),
        }
    return plan


def expert_plan(layout: ParallelLayout) -> dict[str, Row]:
    """Where every rank holds all experts whole, its tokens stay."""
    experts: dict[str, Row] = {"layers.*.moe.experts": Over(("ep", "etp"), ShardedExperts())}
    if layout.ep * layout.etp > 1:
        experts["layers.*.moe"] = Over(("ep", "etp"), DispatchOverRanks())
    return experts


def feed_forward_plan(name: str) -> dict[str, Row]:
    """Columns, then rows: the whole sequence comes in, each rank's share of it goes out."""
    return {
        name: PrepareModuleInput(input_layouts=Shard(1), desired_input_layouts=Replicate()),
        f"{name}.w1": ColwiseParallel(),
        f"{name}.w3": ColwiseParallel(),
        f"{name}.w2": RowwiseParallel(output_layouts=Shard(1)),
    }
