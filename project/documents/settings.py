"""The configuration that a document describes: its own values, and those that are assumed where it is silent."""

from dataclasses import dataclass, field
from math import ceil, gcd
from typing import Any

from project.documents.reading import Reading

_OPEN = (
    *("model.num_layers", "model.d_model", "model.num_heads", "model.d_ff", "model.vocab_size"),
    *("data.seq_len", "data.batch_size"),
)
_CLUSTERS = {"h100": "h100_8x", "a100": "a100_8x", "h200": "h200_8x", "b200": "b200"}
_PER_NODE = 8


@dataclass
class Settings:
    """`said` are the document's values by key, `assumed` maps a key to its value and the reason, `open` are keys whose
    default is taken: they are to be given. `groups` are choices of configuration groups. `unsupported` says what the
    document wants that cannot be had."""

    said: dict[str, Any] = field(default_factory=dict)
    assumed: dict[str, tuple[Any, str]] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)

    def value(self, key: str, default: Any = None) -> Any:
        return self.said[key] if key in self.said else self.assumed.get(key, (default,))[0]

    def assume(self, key: str, value: Any, why: str) -> None:
        if key not in self.said:
            self.assumed[key] = (value, why)


def settings_of(reading: Reading) -> Settings:
    raw = reading.said
    found = Settings({key: value for key, value in raw.items() if "." in key})
    _model(found, raw)
    _layout(found, raw, reading.claims)
    _batch(found, raw)
    _cluster(found, raw)
    if raw.get("cp", 1) != 1:
        found.unsupported.append(f"context parallelism (cp {raw['cp']}) is not planned here; planned without it")
    if "zero" in raw and "parallel.dp_mode" not in raw:
        found.unsupported.append(
            f"ZeRO-{raw['zero']} is not planned here: replicas are whole, or sharded as ZeRO-3 is; "
            "planned as parallel.dp_mode=replicate"
        )
    found.open = [key for key in _OPEN if key not in found.said and key not in found.assumed]
    return found


def overrides(found: Settings, typed: list[str], with_cluster: bool) -> list[str]:
    """Arguments for Hydra, without those of a model, a layout or a cluster that is `typed`: `model=tiny` replaces the
    document's model. `data=text` names a corpus, and leaves the document's batch."""
    chosen = {argument.lstrip("+").partition("=")[0] for argument in typed} & {"model", "parallel", "cluster"}
    groups = [f"{name}={choice}" for name, choice in found.groups.items() if with_cluster and name not in chosen]
    values = found.said | {key: value for key, (value, _) in found.assumed.items()}
    kept = [
        f"{key}={value}"
        for key, value in values.items()
        if "." in key and (section := key.partition(".")[0]) not in chosen and (with_cluster or section != "cluster")
    ]
    return [*groups, *kept]


def _model(found: Settings, raw: dict[str, Any]) -> None:
    if "hidden" in raw:
        found.said.setdefault("model.d_ff" if "model.d_model" in raw else "model.d_model", raw["hidden"])
    heads, width = found.value("model.num_heads"), found.value("model.d_model")
    if heads:
        found.assume("model.num_kv_heads", heads, "as many as heads")
        if width and width % heads == 0:
            found.assume("model.head_dim", width // heads, "d_model / heads")
    experts = raw.get("model.num_experts")
    layers = found.value("model.num_layers")
    if experts is None and layers and (raw.get("dense") or not raw.get("moe")) and raw.get("parallel.ep", 1) == 1:
        found.assume("model.num_experts", 1, "the document has no experts")
        found.said["model.top_k"] = 1
        found.assume("model.num_dense_layers", layers, "the document has no experts")
    elif experts is not None and experts < 2:
        found.assume("model.top_k", 1, "one expert")
    if found.value("data.seq_len", 0) > 4096:
        found.assume("model.max_seq_len", found.value("data.seq_len"), "the document's sequence")


def _layout(found: Settings, raw: dict[str, Any], claims: list[dict[str, Any]]) -> None:
    tp, pp, gpus = found.value("parallel.tp", 1), found.value("parallel.pp", 1), raw.get("gpus")
    split = tp * pp * raw.get("cp", 1)
    if gpus and split and gpus % split == 0:
        found.assume("parallel.dp", gpus // split, f"{gpus} GPUs / (tp {tp} x pp {pp})")
    if raw.get("checkpointing"):
        found.assume("parallel.recompute", "selective", "the document asks for activation checkpointing")
    layers = found.value("model.num_layers", 0)
    of_rank = next((one["claimed"] for one in claims if one["quantity"] == "layers_per_rank"), None)
    if of_rank and of_rank * pp == layers and found.value("parallel.virtual_stages", 1) == 1:
        found.assume("parallel.partition", f"[{','.join([str(of_rank)] * pp)}]", f"{of_rank} layers a stage")
    virtual = found.value("parallel.virtual_stages", 1)
    if virtual > 1 and found.value("parallel.schedule") in (None, "1F1B"):
        found.said["parallel.schedule"] = "Interleaved1F1B"
    elif found.value("parallel.schedule") == "Interleaved1F1B":
        found.assume("parallel.virtual_stages", 2, "interleaving needs two")


def _batch(found: Settings, raw: dict[str, Any]) -> None:
    dp, pp = found.value("parallel.dp", 1), found.value("parallel.pp", 1)
    size, per = found.value("data.batch_size"), raw.get("microbatch_size")
    count = found.value("parallel.microbatches")
    if size and dp and count is None:
        of_replica = size // dp
        if per and of_replica % per == 0:
            found.assume("parallel.microbatches", max(1, of_replica // per), f"batch {size} / dp {dp} / {per} each")
        else:
            found.assume("parallel.microbatches", gcd(of_replica, pp) or 1, "the fewest that keep the stages busy")
    elif not size:
        count = count or pp
        found.assume("parallel.microbatches", count, "the fewest that keep the stages busy")
        found.assume("data.batch_size", max(1, dp * count * (per or 1)), "dp x microbatches x their size")


def _cluster(found: Settings, raw: dict[str, Any]) -> None:
    ranks = found.value("parallel.tp", 1) * found.value("parallel.pp", 1) * found.value("parallel.dp", 1)
    gpus = raw.get("gpus") or ranks
    per_node = raw.get("gpus_per_node") or min(_PER_NODE, gpus) or 1
    if "gpu" not in raw and (gpus, per_node) == (16, _PER_NODE):
        found.groups["cluster"] = "h100_2x8"
        found.assumed["cluster"] = ("h100_2x8", "the document names no kind of GPU")
        return
    found.groups["cluster"] = _CLUSTERS[raw.get("gpu", "h100")]
    if "gpu" not in raw:
        found.assumed["cluster"] = ("h100_8x", "the document names no kind of GPU")
    found.said["cluster.nodes"] = raw.get("nodes") or max(1, ceil(gpus / per_node))
    if per_node != _PER_NODE:
        found.said["cluster.gpus_per_node"] = per_node
