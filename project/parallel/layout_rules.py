"""The rules that a layout, a model and a batch keep together, as a table.

Each row is filed under the key that one would change first; the sentences name the other keys.
"""

from __future__ import annotations

from typing import get_args, get_type_hints

from project.legal_values import either
from project.model.config import ModelConfig
from project.parallel.layout import RECOMPUTE, SCHEDULES
from project.parallel.rule import Rule, Values, at_most, divides, divisors, not_yet, one_of


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


def _fills_pipeline(v: Values) -> str | None:
    if v["parallel.schedule"] != "1F1B" or v["parallel.microbatches"] >= _stages(v):
        return None
    return f"1F1B needs at least as many microbatches as stages, {_stages(v)} (parallel.schedule=GPipe does not)"


def _filling_microbatches(v: Values) -> list[int]:
    of_batch = divisors(max(v["data.batch_size"] // v["parallel.dp"], 1))
    return [number for number in of_batch if number >= _stages(v)] or [_stages(v)]


def _batch(v: Values) -> str | None:
    batch, dp, microbatches = v["data.batch_size"], v["parallel.dp"], v["parallel.microbatches"]
    if batch % (dp * microbatches) == 0:
        return None
    reason = f"is not divisible by parallel.dp x parallel.microbatches = {dp} x {microbatches}"
    counts = [] if batch % dp else divisors(batch // dp)
    instead = [number for number in counts if not _fills_pipeline({**v, "parallel.microbatches": number})]
    return f"{reason}; parallel.microbatches={either(instead)} would do" if instead else reason


def _batches(v: Values) -> list[int]:
    unit = v["parallel.dp"] * v["parallel.microbatches"]
    below = v["data.batch_size"] // unit * unit
    return [batch for batch in (below, below + unit) if batch]


def _even_head(v: Values) -> str | None:
    return "is odd, but rotary embedding turns pairs" if v["model.head_dim"] % 2 else None


def _even_heads(v: Values) -> list[int]:
    return [even for even in (v["model.head_dim"] - 1, v["model.head_dim"] + 1) if even]


_STAGES = ("parallel.pp", "parallel.virtual_stages")
_DENSE = ("parallel.dp", "parallel.tp")
_LAYERS = "model.num_layers"
_WORDS = get_type_hints(ModelConfig)
# The residual stream is split along the sequence, a shared expert by columns, embedding and head by vocabulary.
_SPLIT_BY_TP = (
    "model.num_heads",
    "model.num_kv_heads",
    "data.seq_len",
    "model.d_model",
    "model.d_ff",
    "model.vocab_size",
)

RULES: tuple[Rule, ...] = (
    divides("parallel.tp", *_SPLIT_BY_TP),
    divides("parallel.ep", "model.num_experts"),
    Rule("parallel.ep", (*_DENSE, "parallel.etp"), _expert_ranks, lambda v: ()),
    Rule("parallel.etp", _DENSE, _expert_slices, lambda v: divisors(_dense_ranks(v))),
    Rule("parallel.pp", (*_STAGES, _LAYERS), _a_layer_a_stage, lambda v: range(1, v[_LAYERS] + 1)),
    Rule("parallel.partition", (*_STAGES, _LAYERS), _partition, _even_partitions, suggests_all=False),
    one_of("parallel.schedule", SCHEDULES),
    one_of("parallel.recompute", RECOMPUTE),
    Rule(
        "parallel.microbatches",
        (*_STAGES, "parallel.schedule", "parallel.dp", "data.batch_size"),
        _fills_pipeline,
        _filling_microbatches,
    ),
    Rule(
        "data.batch_size",
        (*_STAGES, "parallel.schedule", "parallel.dp", "parallel.microbatches"),
        _batch,
        _batches,
        suggests_all=False,
    ),
    at_most("data.seq_len", "model.max_seq_len"),
    at_most("model.top_k", "model.num_experts"),
    divides("model.num_kv_heads", "model.num_heads"),
    Rule("model.head_dim", (), _even_head, _even_heads, suggests_all=False),
    one_of("model.score", get_args(_WORDS["score"])),
    one_of("model.expert_balance", get_args(_WORDS["expert_balance"])),
)

# What is sound and comes with the next issue: delete this table with its last row.
NOT_YET: tuple[Rule, ...] = (
    not_yet("parallel.dp", (), lambda v: (1,)),
    not_yet("parallel.etp", (), lambda v: (1,)),
    not_yet("parallel.virtual_stages", (), lambda v: (1,)),
    not_yet("parallel.ep", ("parallel.tp",), lambda v: (1, v["parallel.tp"])),
)
