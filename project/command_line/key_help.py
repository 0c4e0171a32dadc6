"""What `--help` says of the keys of `parallel` and `model`: the legal values of each and its meaning, one row a key.

`configs/train.yaml` puts it below the configuration that Hydra shows.
"""

from __future__ import annotations

import textwrap
from itertools import zip_longest
from typing import get_args, get_type_hints

from project.spec.layout import RECOMPUTE, ParallelLayout
from project.spec.model import ModelConfig
from project.spec.schedules.schedule import Schedule
from project.spec.schedules.table import SCHEDULES


def _words(cls: type, name: str) -> str:
    return ", ".join(get_args(get_type_hints(cls)[name]))


# Names without a section are of the row's own.
PARALLEL: dict[str, tuple[str, str]] = {
    "pp": ("1 or more", "pipeline ranks: share the layers"),
    "dp": ("1 or more", "replicas: share the batch"),
    "tp": (
        "divides num_heads, num_kv_heads, vocab_size, seq_len, and widths of shared experts and dense layers",
        "ranks that share matrices and sequences",
    ),
    "ep": ("divides num_experts; ep x etp divides dp x tp", "ranks that share the experts"),
    "etp": ("divides d_ff", "ranks that share one expert"),
    "dp_mode": (_words(ParallelLayout, "dp_mode"), "whole weights on each replica, or even shards of them (FSDP)"),
    "schedule": (
        "one of those below, or PATH.csv",
        "what each rank does when; a file has a row for each pipeline rank",
    ),
    "microbatches": (
        "divides batch_size / dp; as many as the schedule takes",
        "parts of a replica's batch that follow each other through the pipeline",
    ),
    "virtual_stages": (
        "as many as the schedule takes",
        "stages on each pipeline rank; each has a layer or more",
    ),
    "recompute": (", ".join(RECOMPUTE), "what is not kept for the backward"),
    "partition": ("null or a list, as in [3,2,2,1]", "layers of each stage; null: balanced"),
}

MODEL: dict[str, tuple[str, str]] = {
    "num_layers": ("pp x virtual_stages or more", "layers, dense ones included"),
    "d_model": ("1 or more", "width between the layers"),
    "num_heads": ("multiple of num_kv_heads", "query heads"),
    "num_kv_heads": ("multiple of tp", "key and value heads"),
    "head_dim": ("even", "width of a head"),
    "d_ff": ("multiple of etp", "hidden width of an expert"),
    "num_experts": ("multiple of ep", "experts of a layer"),
    "top_k": ("1 to num_experts", "experts that a token goes to"),
    "vocab_size": ("multiple of tp", "rows of the embedding"),
    "max_seq_len": ("data.seq_len or more", "positions that there are"),
    "num_shared_experts": ("0 or more", "experts that every token goes to"),
    "num_dense_layers": ("0 to num_layers", "first layers, without experts"),
    "score": (_words(ModelConfig, "score"), "what the router makes of its logits"),
    "expert_balance": (_words(ModelConfig, "expert_balance"), "what spreads tokens over the experts"),
    "auxiliary_coefficient": ("0 or more", "of the auxiliary loss"),
    "auxiliary_per": (_words(ModelConfig, "auxiliary_per"), "where the auxiliary loss counts"),
    "z_coefficient": ("0 or more", "of the router's z-loss"),
    "bias_update_rate": ("0 or more", "of expert_balance=bias"),
    "capacity_factor": ("null or above 0", "room of an expert; 1 fits an even load"),
    "capacity_group": ("divides data.seq_len / tp", "consecutive tokens that share it"),
    "rope_theta": ("above 0", "base of the rotary embedding"),
    "norm_eps": ("0 or more", "added to a mean square"),
    "init_std": ("0 or more", "of the initial weights"),
}

_COLUMNS = (23, 36, 39)  # characters: a terminal of 100


def key_help() -> str:
    lines = ["== Legal values of parallel and model =="]
    schedules = {name: (_asks(schedule), schedule.words) for name, schedule in SCHEDULES.items()}
    for section, rows in (("parallel", PARALLEL), ("parallel.schedule", schedules), ("model", MODEL)):
        lines.append(f"{section}:")
        for key, texts in rows.items():
            cells = [textwrap.wrap(text, width - 1) for text, width in zip((key, *texts), _COLUMNS, strict=True)]
            lines += map(_line, zip_longest(*cells, fillvalue=""))
    return "\n".join(lines)


def _asks(schedule: Schedule) -> str:
    """The stages that a rank has, and the microbatches that there may be."""
    number = schedule.stages_a_rank
    stages = "1 or more stages" if number is None else f"{number} stage{'' if number == 1 else 's'}"
    if schedule.in_rounds:
        return f"{stages}; microbatches // pp divides microbatches"
    if schedule.for_fewer_microbatches is None:
        return stages
    least = "pp" if number == 1 else f"{number} pp"
    return f"{stages}; {least} or more microbatches"


def _line(texts: tuple[str, ...]) -> str:
    return "  " + "".join(text.ljust(width) for text, width in zip(texts, _COLUMNS, strict=True)).rstrip()
