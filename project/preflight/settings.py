"""The settings that no layout rule reads, as a table: key, test, and what the value must be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from project.spec.fault import Fault
from project.spec.figures import FIGURES
from project.spec.layout import PRECISIONS
from project.spec.legal_values import is_number, legal, said

ACCELERATORS = ("auto", "cpu", "cuda", "gpu")

Test = Callable[[Any], bool]
Choices = Mapping[str, Sequence[str]]
Settings = Mapping[str, tuple[Test, str]]


def setting_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    yield from table_faults(config, CHOICES, SETTINGS)
    yield from _vocabulary_faults(config)


def table_faults(config: Mapping[str, Any], choices: Choices, settings: Settings) -> Iterator[Fault]:
    """Keys that the config does not have are left out."""
    for key, words in choices.items():
        present, value = _at(config, key)
        if present and value not in words:
            yield Fault(key, said(value), f"is not known; {legal(value, words)}")
    for key, (test, wanted) in settings.items():
        present, value = _at(config, key)
        if present and not test(value):
            yield Fault(key, said(value), f"must be {wanted}")


def _vocabulary_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    tokens, rows = config["data"].get("vocab_size"), config["model"].get("vocab_size")
    if type(tokens) is int and type(rows) is int and tokens > rows:
        message = f"is more than model.vocab_size={rows}, so that some tokens would have no embedding; nearest {rows}"
        yield Fault("data.vocab_size", tokens, message)


def at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key with dots; None where there is none."""
    return _at(config, key)[1]


def _at(config: Mapping[str, Any], key: str) -> tuple[bool, Any]:
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False, None
        value = value[part]
    return True, value


def whole(least: int) -> Test:
    return lambda value: type(value) is int and value >= least


def _share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _positive(value: Any) -> bool:
    return is_number(value) and value > 0


def not_negative(value: Any) -> bool:
    return is_number(value) and value >= 0


def or_null(test: Test) -> Test:
    return lambda value: value is None or test(value)


def _batches(least: int) -> Test:
    """Lightning's way of counting batches: a whole number of them, or a fraction of all."""
    return lambda value: whole(least)(value) or (isinstance(value, float) and 0 < value <= 1)


def _betas(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(is_number(beta) and 0 <= beta < 1 for beta in value)


def _figures(value: Any) -> bool:
    return value in FIGURES if isinstance(value, str) else bool(value) and all(name in FIGURES for name in value)


def _word(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _words(value: Any) -> bool:
    return _word(value) or (isinstance(value, list) and all(_word(word) for word in value))


CHOICES: dict[str, tuple[Any, ...]] = {
    "trainer.precision": PRECISIONS,
    "trainer.accelerator": ACCELERATORS,
    "watchdog.not_finite": ("stop", "skip"),
    "checkpoint.asynchronous": (True, False),
}

SETTINGS: dict[str, tuple[Test, str]] = {
    "seed": (whole(0), "a whole number, 0 or more"),
    "objective": (_figures, f"one or more of {', '.join(FIGURES)}; several as in [step_time_s,val_loss]"),
    "trainer.max_steps": (whole(1), "a whole number of at least 1"),
    "trainer.num_nodes": (whole(1), "a whole number of at least 1"),
    "trainer.accumulate_grad_batches": (whole(1), "a whole number of at least 1"),
    "trainer.log_every_n_steps": (whole(0), "a whole number, 0 or more"),
    "trainer.gradient_clip_val": (or_null(not_negative), "a number, 0 or more, or null for no clipping"),
    "trainer.val_check_interval": (or_null(whole(1)), "null or a number of steps"),
    "trainer.limit_val_batches": (or_null(_batches(0)), "null, a number of batches, or a fraction of them"),
    "watchdog.timeout_s": (_positive, "a number of seconds above 0"),
    "data.cache_dir": (_word, "the path of a folder"),
    "data.tokenizer": (or_null(_word), "null, or the path of a tokenizer.json"),
    "data.files": (_words, "a list of files and globs, as in [notes/**/*.txt]"),
    "data.text_key": (_word, "a name"),
    "training.learning_rate": (_positive, "a number above 0"),
    "training.weight_decay": (not_negative, "a number, 0 or more"),
    "training.betas": (_betas, "two numbers from 0 to below 1, as in [0.9,0.95]"),
    "training.eps": (_positive, "a number above 0"),
    "training.warmup_steps": (whole(0), "a whole number, 0 or more"),
    "training.final_fraction": (_share, "a number from 0 to 1"),
}
