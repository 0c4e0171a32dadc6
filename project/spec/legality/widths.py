"""The widths of feed-forward networks, which a model has or has not."""

from __future__ import annotations

from project.spec.legality.size import Size, Values, product

LAYERS = ("model.num_layers", "model.num_dense_layers")


def has_experts(v: Values) -> bool:
    return bool(v["model.num_dense_layers"] < v["model.num_layers"])


def _has_shared_experts(v: Values) -> bool:
    return has_experts(v) and v["model.num_shared_experts"] > 0


def _has_dense_layers(v: Values) -> bool:
    return bool(v["model.num_dense_layers"])


SHARED_WIDTH = product("model.num_shared_experts", "model.d_ff").where(_has_shared_experts, *LAYERS)
DENSE_WIDTH = Size(
    "(model.top_k + model.num_shared_experts) x model.d_ff",
    ("model.top_k", "model.num_shared_experts", "model.d_ff"),
    lambda v: (v["model.top_k"] + v["model.num_shared_experts"]) * v["model.d_ff"],
).where(_has_dense_layers, "model.num_dense_layers")
