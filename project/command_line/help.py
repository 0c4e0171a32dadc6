"""The text of `--help`, which Hydra prints: the legal values and the meaning of each key of `parallel` and `model` (a
table), and below it, because a terminal shows the end, the command's usage and its configuration groups (a screen).
"""

import textwrap
from itertools import zip_longest

from omegaconf import OmegaConf

from project.command_line.command import Command
from project.configs import CONFIGS
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.record import choices
from project.spec.schedules.schedule import Schedule
from project.spec.schedules.table import SCHEDULES


def _words(record: type, name: str) -> str:
    return ", ".join(choices(record, name))


# Legal values and meaning of each key. A key named without its section is in the same section.
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
        "stages on each pipeline rank",
    ),
    "recompute": (_words(ParallelLayout, "recompute"), "what is not kept for the backward"),
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
    "shared_gate": ("true or false", "a factor for each token on these"),
    "num_dense_layers": ("0 to num_layers", "first layers, without experts"),
    "score": (_words(ModelConfig, "score"), "what the router makes of its logits"),
    "norm_top_k": ("true or false", "chosen scores are divided by their sum"),
    "expert_balance": (_words(ModelConfig, "expert_balance"), "what spreads tokens over the experts"),
    "auxiliary_coefficient": ("0 or more", "of the auxiliary loss"),
    "auxiliary_per": (_words(ModelConfig, "auxiliary_per"), "where the auxiliary loss counts"),
    "z_coefficient": ("0 or more", "of the router's z-loss"),
    "bias_update_rate": ("0 or more", "of expert_balance=bias"),
    "capacity_factor": ("null or above 0", "room of an expert; 1 fits an even load"),
    "capacity_group": ("divides data.seq_len / tp", "consecutive tokens that share it"),
    "rope_theta": ("above 0", "base of the rotary embedding"),
    "qkv_bias": ("true or false", "biases of queries, keys and values"),
    "qk_norm": ("true or false", "a norm of queries and keys"),
    "qk_norm_over": (_words(ModelConfig, "qk_norm_over"), "each head, or all together"),
    "norm_eps": ("0 or more", "added to a mean square"),
    "init_std": ("0 or more", "of the initial weights"),
}

GROUPS = {
    "model": "the transformer's sizes; moe_8x4 is the strategy document's",
    "parallel": "the layout: degrees, schedule, microbatches",
    "experiment": "a named choice of the groups around it",
    "data": "the corpus, and how much of it is in a batch",
    "training": "the optimizer and its schedule",
    "trainer": "Lightning's Trainer: steps, precision, validation",
    "callbacks": "what watches a run, one concern each",
    "logger": "where metrics go beside metrics.csv",
    "cluster": "the machines that a plan is for",
    "debug": "one batch again and again, a profile, a record of memory",
    "verbosity": "what is shown on the terminal",
    "sweep": "many jobs: all legal layouts, schedules ...; Optuna's; SLURM's",
}
ADDED = ("experiment", "sweep")
"""Groups without a default, which are chosen with a plus."""

_COLUMNS = (23, 36, 39)  # characters: a terminal of 100


def register_help(command: Command) -> None:
    """Registers the parts of `--help` as resolvers: `configs/` of each command puts them into Hydra's own help."""
    OmegaConf.register_new_resolver("key_help", key_help, replace=True)
    OmegaConf.register_new_resolver("command_help", lambda: command_help(command), replace=True)


def command_help(command: Command) -> str:
    """The command's purpose, usage and groups, 80 columns wide."""
    usage = f"python project/{command.name}.py [GROUP=CHOICE ...] [KEY=VALUE ...]"
    lines = [command.purpose, "", usage, f"  as in {command.example}", ""]
    for group in command.groups:
        names = ", ".join(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))
        plus = "+" if group in ADDED else ""
        lines += textwrap.wrap(f"{plus}{group}: {names}", 78, initial_indent="  ", subsequent_indent="      ")
        lines.append(f"      {GROUPS[group]}")
    lines += ["", "All keys: --cfg job (one group's: -p GROUP). Hydra's own flags: --hydra-help"]
    return "\n".join(lines)


def key_help() -> str:
    """The tables of `parallel`, its schedules and `model`, 100 columns wide."""
    lines = ["== Legal values of parallel and model =="]
    schedules = {name: (_asks(schedule), schedule.words) for name, schedule in SCHEDULES.items()}
    for section, rows in (("parallel", PARALLEL), ("parallel.schedule", schedules), ("model", MODEL)):
        lines.append(f"{section}:")
        for key, texts in rows.items():
            cells = [textwrap.wrap(text, width - 1) for text, width in zip((key, *texts), _COLUMNS, strict=True)]
            lines += map(_line, zip_longest(*cells, fillvalue=""))
    return "\n".join(lines)


def _asks(schedule: Schedule) -> str:
    """The number of stages a rank and of microbatches that the schedule takes."""
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
