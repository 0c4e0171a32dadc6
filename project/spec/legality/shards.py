"""The rules of `parallel.dp_mode=shard`: every weight is cut evenly over its replicas.

A matrix is cut along its first dim over dp, after tp has had its part; the matrices of an expert over the replicas of
that expert, of which there are `edp = dp x tp / (ep x etp)` (`project.engine.sharded_replicas`).
"""

from __future__ import annotations

from typing import get_args, get_type_hints

from project.spec.layout import ParallelLayout
from project.spec.legal_values import either, nearest
from project.spec.legality.rule import Rule, one_of
from project.spec.legality.size import Values, common_divisors, not_divided, product
from project.spec.legality.widths import DENSE_WIDTH, LAYERS, SHARED_WIDTH, has_experts

_OVER_DP = (
    product("model.num_heads", "model.head_dim").over("parallel.tp"),
    product("model.num_kv_heads", "model.head_dim").over("parallel.tp"),
    product("model.d_model"),
    product("model.vocab_size").over("parallel.tp"),
    DENSE_WIDTH.over("parallel.tp"),
    SHARED_WIDTH.over("parallel.tp"),
)
_OVER_EDP = (
    product("model.d_ff").over("parallel.etp").where(has_experts, *LAYERS),
    product("model.d_model").where(has_experts, *LAYERS),
)
_DEGREES = ("parallel.dp", "parallel.tp", "parallel.ep", "parallel.etp")


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


SHARD_RULES: tuple[Rule, ...] = (
    one_of("parallel.dp_mode", get_args(get_type_hints(ParallelLayout)["dp_mode"])),
    Rule("parallel.dp_mode", _DEGREES, _even_shards, lambda v: ("replicate",)),
)
