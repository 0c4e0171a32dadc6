"""The settings of a run that no rule of the layout reads, as records: each key's type and the words of its fault."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, BaseModel, Strict

from project.spec.fault import Fault
from project.spec.figures import FIGURES
from project.spec.precision import Precision
from project.spec.record import AboveZero, Count, Must, Number, Word, record_faults

FromZero = Annotated[int, Strict(), Ge(0), Must("a whole number, 0 or more")]
NotNegative = Annotated[Number, Ge(0), Must("a number, 0 or more")]
Share = Annotated[Number, Ge(0), Le(1), Must("a number from 0 to 1")]
Below1 = Annotated[Number, Ge(0), Lt(1)]
Batches = FromZero | Annotated[float, Strict(), Gt(0), Le(1)]
"""Lightning's way of counting batches: a whole number of them, or a fraction of all."""


def _known_figure(name: str) -> str:
    if name not in FIGURES:
        raise ValueError(name)
    return name


Figure = Annotated[str, AfterValidator(_known_figure)]
Figures = Annotated[list[Figure], MinLen(1)]


class Run(BaseModel):
    """The keys of no section."""

    seed: FromZero
    objective: Annotated[
        Figure | Figures, Must(f"one or more of {', '.join(FIGURES)}; several as in [step_time_s,val_loss]")
    ]


class Trainer(BaseModel):
    precision: Precision
    accelerator: Literal["auto", "cpu", "cuda", "gpu"]
    max_steps: Count
    num_nodes: Count
    accumulate_grad_batches: Count
    log_every_n_steps: FromZero
    gradient_clip_val: Annotated[NotNegative | None, Must("a number, 0 or more, or null for no clipping")]
    val_check_interval: Annotated[Count | None, Must("null or a number of steps")]
    limit_val_batches: Annotated[Batches | None, Must("null, a number of batches, or a fraction of them")]


class Watchdog(BaseModel):
    not_finite: Literal["stop", "skip"]
    timeout_s: Annotated[AboveZero, Must("a number of seconds above 0")]


class CheckpointSettings(BaseModel):
    asynchronous: Literal[True, False]


class Data(BaseModel):
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


SECTIONS: dict[str, type] = {
    "": Run,
    "trainer": Trainer,
    "watchdog": Watchdog,
    "checkpoint": CheckpointSettings,
    "data": Data,
    "training": Training,
}


def setting_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    """Keys and sections that the configuration does not have are passed over."""
    for name, record in SECTIONS.items():
        section = config.get(name) if name else config
        if isinstance(section, Mapping):
            yield from record_faults(record, name, section)
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
