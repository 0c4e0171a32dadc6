"""The rules that a layout, a model and a batch keep together, as a table.

Each row is filed under the key that one would change first; the sentences name the other keys. What a schedule asks
for is in `legality.schedules`.
"""

from typing import Literal, get_origin

from project.spec.fault import either, nearest
from project.spec.layout import ParallelLayout
from project.spec.legality.rule import (
    Rule,
    Size,
    Values,
    at_most,
    common_divisors,
    divides,
    divisors,
    not_divided,
    one_of,
    product,
)
from project.spec.legality.schedules import SCHEDULE_RULES, fills_pipeline
from project.spec.model import ModelConfig
from project.spec.record import choices, hints

_LAYERS = ("model.num_layers", "model.num_dense_layers")


def _has_experts(v: Values) -> bool:
    return bool(v["model.num_dense_layers"] < v["model.num_layers"])


_SHARED_WIDTH = product("model.num_shared_experts", "model.d_ff").where(
    lambda v: _has_experts(v) and v["model.num_shared_experts"] > 0, *_LAYERS
)
_DENSE_WIDTH = Size(
    "(model.top_k + model.num_shared_experts) x model.d_ff",
    ("model.top_k", "model.num_shared_experts", "model.d_ff"),
    lambda v: (v["model.top_k"] + v["model.num_shared_experts"]) * v["model.d_ff"],
).where(lambda v: v["model.num_dense_layers"] > 0, "model.num_dense_layers")


# What `parallel.dp_mode=shard` cuts evenly: a matrix along its first dim over dp, after tp has had its part; the
# matrices of an expert over the replicas of that expert, edp of them (`project.engine.sharded_replicas`).
_OVER_DP = (
    product("model.num_heads", "model.head_dim").over("parallel.tp"),
    product("model.num_kv_heads", "model.head_dim").over("parallel.tp"),
    product("model.d_model"),
    product("model.head_dim").where(
        lambda v: v["model.qk_norm"] and v["model.qk_norm_over"] == "head", "model.qk_norm", "model.qk_norm_over"
    ),
    product("model.vocab_size").over("parallel.tp"),
    _DENSE_WIDTH.over("parallel.tp"),
    _SHARED_WIDTH.over("parallel.tp"),
)
_OVER_EDP = (
    product("model.d_ff").over("parallel.etp").where(_has_experts, *_LAYERS),
    product("model.d_model").where(_has_experts, *_LAYERS),
)


def _uneven(v: Values) -> list[str]:
    edp, left = divmod(v["parallel.dp"] * v["parallel.tp"], v["parallel.ep"] * v["parallel.etp"])
    dense = not_divided(v["parallel.dp"], _OVER_DP, v)
    experts = [] if left else not_divided(edp, _OVER_EDP, v)  # what is left is the fault of ep or etp
    return [
        *([f"parallel.dp={v['parallel.dp']} does not divide {', '.join(dense)}"] if dense else []),
        *([f"dp x tp / (ep x etp) = {edp} does not divide {', '.join(experts)}"] if experts else []),
    ]


def _even_shards(v: Values) -> str | None:
    reasons = _uneven(v) if v["parallel.dp_mode"] == "shard" else []
    if not reasons:
        return None
    near = nearest(v["parallel.dp"], [dp for dp in common_divisors(_OVER_DP, v) if _fits({**v, "parallel.dp": dp})])
    return "; ".join([*reasons, *([f"parallel.dp={either(near)} would do"] if near else [])])


def _fits(v: Values) -> bool:
    whole = v["parallel.dp"] * v["parallel.tp"] % (v["parallel.ep"] * v["parallel.etp"]) == 0
    return whole and not _uneven(v)


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
        if _has_experts(v) or v[key] == 1:
            return None
        return f"divides experts, and none are left by model.num_dense_layers={v['model.num_dense_layers']}"

    return Rule(key, _LAYERS, objection, lambda v: range(1, 2))


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
    if left or v["model.capacity_factor"] is None or not _has_experts(v) or tokens % v["model.capacity_group"] == 0:
        return None
    return f"does not divide the {tokens} tokens of a sequence that a rank has (data.seq_len / parallel.tp)"


def _even_head(v: Values) -> str | None:
    return "is odd, but rotary embedding turns pairs" if v["model.head_dim"] % 2 else None


def _even_heads(v: Values) -> list[int]:
    return [even for even in (v["model.head_dim"] - 1, v["model.head_dim"] + 1) if even]


def _norm_over_nothing(v: Values) -> str | None:
    if v["model.qk_norm"] or v["model.qk_norm_over"] == "head":
        return None
    return "normalises nothing without model.qk_norm=true"


def _nothing_to_gate(v: Values) -> str | None:
    if not v["model.shared_gate"] or v["model.num_shared_experts"] > 0:
        return None
    return "leaves model.shared_gate=true nothing to gate"


_STAGES = ("parallel.pp", "parallel.virtual_stages")
_DENSE = ("parallel.dp", "parallel.tp")
# The residual stream is split along the sequence, a feed-forward network by columns, embedding and head by vocabulary.
_SPLIT_BY_TP = (
    *("model.num_heads", "model.num_kv_heads", "data.seq_len", "model.vocab_size"),
    *(_DENSE_WIDTH, _SHARED_WIDTH),
)

RULES: tuple[Rule, ...] = (
    divides("parallel.tp", *_SPLIT_BY_TP),
    divides("parallel.ep", product("model.num_experts").where(_has_experts, *_LAYERS)),
    Rule("parallel.ep", (*_DENSE, "parallel.etp"), _expert_ranks, lambda v: ()),
    _only_with_experts("parallel.ep"),
    divides("parallel.etp", product("model.d_ff").where(_has_experts, *_LAYERS)),
    Rule("parallel.etp", _DENSE, _expert_slices, lambda v: divisors(_dense_ranks(v))),
    _only_with_experts("parallel.etp"),
    one_of("parallel.dp_mode", choices(ParallelLayout, "dp_mode")),
    Rule("parallel.dp_mode", (*_DENSE, "parallel.ep", "parallel.etp"), _even_shards, lambda v: ("replicate",)),
    Rule(
        "parallel.pp",
        (*_STAGES, "model.num_layers"),
        _a_layer_a_stage,
        lambda v: range(1, v["model.num_layers"] // v["parallel.virtual_stages"] + 1),
    ),
    at_most("parallel.virtual_stages", "model.num_layers"),
    Rule("parallel.partition", (*_STAGES, "model.num_layers"), _partition, _even_partitions, suggests_all=False),
    *SCHEDULE_RULES,
    one_of("parallel.recompute", choices(ParallelLayout, "recompute")),
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
        ("model.capacity_factor", "data.seq_len", "parallel.tp", *_LAYERS),
        _capacity_groups,
        lambda v: divisors(max(v["data.seq_len"] // v["parallel.tp"], 1)),
    ),
    divides("model.num_kv_heads", "model.num_heads"),
    Rule("model.num_shared_experts", ("model.shared_gate",), _nothing_to_gate, lambda v: (1, 2), suggests_all=False),
    Rule("model.qk_norm_over", ("model.qk_norm",), _norm_over_nothing, lambda v: choices(ModelConfig, "qk_norm_over")),
    Rule("model.head_dim", (), _even_head, _even_heads, suggests_all=False),
    *(
        one_of(f"model.{name}", choices(ModelConfig, name))
        for name, hint in hints(ModelConfig).items()
        if get_origin(hint) is Literal
    ),
)
