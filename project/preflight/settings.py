"""The settings of a run that no rule of the layout reads, as records: each key's type and the words of its fault."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, BaseModel, Strict

from project.spec.fault import Fault
from project.spec.figures import FIGURES
from project.spec.precision import Asked
from project.spec.record import AboveZero, Count, Flag, FlagOrNull, FromZero, Must, Number, Word, record_faults
from project.spec.sections import unknown_keys

NotNegative = Annotated[Number, Ge(0), Must("a number, 0 or more")]
Share = Annotated[Number, Ge(0), Le(1), Must("a number from 0 to 1")]
Below1 = Annotated[Number, Ge(0), Lt(1)]
Batches = FromZero | Annotated[float, Strict(), Gt(0), Le(1)]
"""Lightning's way of counting batches: a whole number of them, or a fraction of all."""


def _known_figure(name: str) -> str:
    if name not in FIGURES:
        raise ValueError(name)
    return name


def _of_one_folder(name: str) -> str:
    if "/" in name or not name.isprintable():
        raise ValueError(name)
    return name


def _duration(text: str) -> str:
    if not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", text.strip()):
        raise ValueError(text)
    return text


SomeBatches = Annotated[Batches | None, Must("null, a number of batches, or a fraction of them")]

Units = Literal["weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds"]
LONGEST_WAIT_S = 365 * 24 * 3600  # gloo counts nanoseconds in 64 bits

Figure = Annotated[str, AfterValidator(_known_figure)]
Figures = Annotated[list[Figure], MinLen(1)]


class Run(BaseModel):
    """The keys of no section."""

    seed: FromZero
    experiment_name: Annotated[
        Annotated[Word, AfterValidator(_of_one_folder)] | int | float,
        Must("a name without /, by which the run's folder is found again"),
    ]
    objective: Annotated[
        Figure | Figures, Must(f"one or more of {', '.join(FIGURES)}; several as in [step_time_s,val_loss]")
    ]


class Trainer(BaseModel):
    precision: Asked
    accelerator: Literal["auto", "cpu", "cuda", "gpu"]
    max_steps: Count
    num_nodes: Count
    accumulate_grad_batches: Count
    log_every_n_steps: FromZero
    gradient_clip_val: Annotated[NotNegative | None, Must("a number, 0 or more, or null for no clipping")]
    val_check_interval: Annotated[Count | None, Must("null or a number of steps")]
    limit_val_batches: SomeBatches
    # Lightning's others, where they are given.
    limit_train_batches: SomeBatches
    limit_test_batches: SomeBatches
    limit_predict_batches: SomeBatches
    overfit_batches: SomeBatches
    fast_dev_run: Annotated[FromZero | Flag, Must("true, false or a number of batches")]
    max_epochs: Annotated[Count | Literal[-1] | None, Must("null, -1 or a number of epochs")]
    min_epochs: Annotated[FromZero | None, Must("null or a number of epochs")]
    min_steps: Annotated[FromZero | None, Must("null or a number of steps")]
    max_time: Annotated[
        Annotated[str, Strict(), AfterValidator(_duration)] | dict[Units, Number] | None,
        Must("null or a time, as in '00:12:00:00', DD:HH:MM:SS, or {hours: 12}"),
    ]
    gradient_clip_algorithm: Literal["norm", "value", None]
    deterministic: Annotated[Flag | Literal["warn"] | None, Must("true, false, warn or null")]
    benchmark: FlagOrNull
    detect_anomaly: Annotated[Literal[False], Must("false: a schedule runs backward apart from the forward")]
    barebones: Annotated[Literal[False], Must("false: a run has its checkpoints, metrics and summary")]
    sync_batchnorm: Flag
    enable_autolog_hparams: Flag
    reload_dataloaders_every_n_epochs: FromZero
    profiler: Annotated[
        Literal["simple", "advanced", "pytorch"] | dict[str, Any] | None,
        Must("null, simple, advanced, pytorch or a section with a _target_"),
    ]
    default_root_dir: Annotated[Word | None, Must("null or the path of a folder")]
    model_registry: Annotated[Word | None, Must("null or a name")]


class Watchdog(BaseModel):
    not_finite: Literal["stop", "skip"]
    timeout_s: Annotated[
        Annotated[AboveZero, Le(LONGEST_WAIT_S)], Must(f"a number of seconds above 0, at most {LONGEST_WAIT_S}, a year")
    ]


class CheckpointSettings(BaseModel):
    asynchronous: Flag


class Data(BaseModel):
    vocab_size: Count
    seed: FromZero
    num_tokens: Count
    pin_memory: Flag
    show_progress: Flag
    cache_dir: Annotated[Word, Must("the path of a folder")]
    tokenizer: Annotated[Word | None, Must("null, or the path of a tokenizer.json")]
    end_of_text: Annotated[Word | None, Must("null, or a token of the tokenizer")]
    files: Annotated[Word | list[Word], Must("a list of files and globs, as in [notes/**/*.txt]")]
    text_key: Annotated[Word, Must("a name")]


class Training(BaseModel):
    learning_rate: AboveZero
    weight_decay: NotNegative
    betas: Annotated[tuple[Below1, Below1], Must("two numbers from 0 to below 1, as in [0.9,0.95]")]
    eps: AboveZero
    warmup_steps: FromZero
    final_fraction: Share


SECTIONS: dict[str, type[BaseModel]] = {
    "": Run,
    "trainer": Trainer,
    "watchdog": Watchdog,
    "checkpoint": CheckpointSettings,
    "data": Data,
    "training": Training,
}


CLOSED = ("watchdog", "checkpoint", "training")
"""Sections that may have the keys of their record alone."""
DATAMODULE = (
    *("corpus", "seq_len", "batch_size", "vocab_size", "seed", "tokenizer", "end_of_text", "cache_dir"),
    *("val_fraction", "num_workers", "pin_memory", "show_progress"),
)
"""Keys of `data` besides those of its corpus: the arguments of `TokenDataModule`."""


def setting_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    """Keys and sections that the configuration does not have are passed over."""
    for name, record in SECTIONS.items():
        section = config.get(name) if name else config
        if isinstance(section, Mapping):
            yield from record_faults(record, name, section)
            if name in CLOSED:
                yield from unknown_keys(name, section, list(record.model_fields))
    yield from _vocabulary_faults(config)


def at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key with dots; None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _vocabulary_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    tokens, rows = config["data"].get("vocab_size"), config["model"].get("vocab_size")
    if type(tokens) is int and type(rows) is int and tokens > rows:
        message = f"is more than model.vocab_size={rows}, so that some tokens would have no embedding; nearest {rows}"
        yield Fault("data.vocab_size", tokens, message)
