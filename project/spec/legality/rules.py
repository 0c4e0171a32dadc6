"""The rules that a layout, a model and a batch keep together, as a table.

Each row is filed under the key that one would change first; the sentences name the other keys. What a schedule asks
for is in `legality.schedules`, what sharded replicas ask for in `legality.shards`.
"""

from __future__ import annotations

from typing import get_args, get_type_hints

from project.spec.layout import RECOMPUTE
from project.spec.legal_values import either
from project.spec.legality.rule import Rule, at_most, divides, one_of
from project.spec.legality.schedules import SCHEDULE_RULES, fills_pipeline
from project.spec.legality.shards import SHARD_RULES
from project.spec.legality.size import Values, divisors, product
from project.spec.legality.widths import DENSE_WIDTH, LAYERS, SHARED_WIDTH, has_experts
from project.spec.model import ModelConfig


def _dense_ranks(v: Values) -> int:
    return int(v["parallel.dp"] * v["parallel.tp"])


def _stages(v: Values) -> int:
    return int(v["parallel.pp"] * v["parallel.virtual_stages"])


def _expert_ranks(v: Values) -> str | None:
    wanted = v["parallel.ep"] * v["parallel.etp"]
    if _dense_ranks(v) % wanted == 0 or _dense_ranks(v) % v["parallel.etp"]:  # the latter is etp's own fault
        return None
    return f"ep x etp = {wanted} does not divide parallel.dp x parallel.tp = {_dense_ranks(v)}"


def _expert_slices(v: Values) -> str | None:
    if _dense_ranks(v) % v["parallel.etp"] == 0:
        return None
    return f"does not divide parallel.dp x parallel.tp = {_dense_ranks(v)}"


def _only_with_experts(key: str) -> Rule:
    def objection(v: Values) -> str | None:
        if has_experts(v) or v[key] == 1:
            return None
        return f"divides experts, and none are left by model.num_dense_layers={v['model.num_dense_layers']}"

    return Rule(key, LAYERS, objection, lambda v: range(1, 2))


def _a_layer_a_stage(v: Values) -> str | None:
    if _stages(v) <= v["model.num_layers"]:
        return None
    return f"makes {_stages(v)} stages (pp x virtual_stages), more than model.num_layers={v['model.num_layers']}"


def _partition(v: Values) -> str | None:
    parts, layers = v["parallel.partition"], v["model.num_layers"]
    if parts is None or (len(parts) == _stages(v) and sum(parts) == layers and min(parts) >= 1):
        return None
    return f"must give each of {_stages(v)} stages at least one layer, and model.num_layers={layers} in all"


def _even_partitions(v: Values) -> list[object]:
    layers, stages = v["model.num_layers"], _stages(v)
    return [tuple(layers // stages + (stage < layers % stages) for stage in range(stages)), None]


def _batch(v: Values) -> str | None:
    batch, dp, microbatches = v["data.batch_size"], v["parallel.dp"], v["parallel.microbatches"]
    if batch % (dp * microbatches) == 0:
        return None
    reason = f"is not divisible by parallel.dp x parallel.microbatches = {dp} x {microbatches}"
    counts = [] if batch % dp else divisors(batch // dp)
    instead = [number for number in counts if not fills_pipeline({**v, "parallel.microbatches": number})]
    return f"{reason}; parallel.microbatches={either(instead)} would do" if instead else reason


def _batches(v: Values) -> list[int]:
    unit = v["parallel.dp"] * v["parallel.microbatches"]
    below = v["data.batch_size"] // unit * unit
    return [batch for batch in (below, below + unit) if batch]


def _capacity_groups(v: Values) -> str | None:
    tokens, left = divmod(v["data.seq_len"], v["parallel.tp"])
    if left or v["model.capacity_factor"] is None or not has_experts(v) or tokens % v["model.capacity_group"] == 0:
        return None
    return f"does not divide the {tokens} tokens of a sequence that a rank has (data.seq_len / parallel.tp)"


def _even_head(v: Values) -> str | None:
    return "is odd, but rotary embedding turns pairs" if v["model.head_dim"] % 2 else None


def _even_heads(v: Values) -> list[int]:
    return [even for even in (v["model.head_dim"] - 1, v["model.head_dim"] + 1) if even]


_STAGES = ("parallel.pp", "parallel.virtual_stages")
_DENSE = ("parallel.dp", "parallel.tp")
_WORDS = get_type_hints(ModelConfig)
# The residual stream is split along the sequence, a feed-forward network by columns, embedding and head by vocabulary.
_SPLIT_BY_TP = (
    *("model.num_heads", "model.num_kv_heads", "data.seq_len", "model.vocab_size"),
    *(DENSE_WIDTH, SHARED_WIDTH),
)

RULES: tuple[Rule, ...] = (
    divides("parallel.tp", *_SPLIT_BY_TP),
    divides("parallel.ep", product("model.num_experts").where(has_experts, *LAYERS)),
    Rule("parallel.ep", (*_DENSE, "parallel.etp"), _expert_ranks, lambda v: ()),
    _only_with_experts("parallel.ep"),
    divides("parallel.etp", product("model.d_ff").where(has_experts, *LAYERS)),
    Rule("parallel.etp", _DENSE, _expert_slices, lambda v: divisors(_dense_ranks(v))),
    _only_with_experts("parallel.etp"),
    *SHARD_RULES,
    Rule(
        "parallel.pp",
        (*_STAGES, "model.num_layers"),
        _a_layer_a_stage,
        lambda v: range(1, v["model.num_layers"] // v["parallel.virtual_stages"] + 1),
    ),
    at_most("parallel.virtual_stages", "model.num_layers"),
    Rule("parallel.partition", (*_STAGES, "model.num_layers"), _partition, _even_partitions, suggests_all=False),
    *SCHEDULE_RULES,
    one_of("parallel.recompute", RECOMPUTE),
    Rule(
        "data.batch_size",
        ("parallel.pp", "parallel.schedule", "parallel.dp", "parallel.microbatches"),
        _batch,
        _batches,
        suggests_all=False,
    ),
    at_most("data.seq_len", "model.max_seq_len"),
    at_most("model.top_k", "model.num_experts"),
    at_most("model.num_dense_layers", "model.num_layers", least=0),
    Rule(
        "model.capacity_group",
        ("model.capacity_factor", "data.seq_len", "parallel.tp", *LAYERS),
        _capacity_groups,
        lambda v: divisors(max(v["data.seq_len"] // v["parallel.tp"], 1)),
    ),
    divides("model.num_kv_heads", "model.num_heads"),
    Rule("model.head_dim", (), _even_head, _even_heads, suggests_all=False),
    one_of("model.score", get_args(_WORDS["score"])),
    one_of("model.expert_balance", get_args(_WORDS["expert_balance"])),
    one_of("model.auxiliary_per", get_args(_WORDS["auxiliary_per"])),
)
