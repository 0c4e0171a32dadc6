"""`project/train.py` as a record: the checks of its configuration, and the words of its help.

The length of a corpus in tokens is known only once it is tokenized: the data module's `prepare` raises `CorpusError`
for what it forbids.
"""

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from project.command_line.command import Command, Config
from project.commands.train.starting_point import init_from_faults, init_from_warnings, resume_faults
from project.data.corpus import corpus_faults
from project.planner.machine.cluster_file import cluster_faults
from project.preflight.layout import document_faults, model_and_layout_faults
from project.preflight.machine import Surroundings, folder_faults, precision_warnings, rank_faults
from project.preflight.settings import at, setting_faults
from project.spec.fault import Fault
from project.spec.sections import layout_of, model_of, unknown_keys

_NEEDED = (
    *("model", "parallel", "training", "data.corpus", "data.batch_size", "data.seq_len"),
    *("trainer.accelerator", "trainer.precision", "trainer.num_nodes", "trainer.accumulate_grad_batches", "cluster"),
    *("callbacks", "logger", "seed", "objective", "experiment_name", "watchdog.timeout_s", "watchdog.not_finite"),
    "checkpoint.asynchronous",
)
_TRAINER = "lightning.pytorch.Trainer"


def faults(config: Config, around: Surroundings) -> list[Fault]:
    if absent := [key for key in _NEEDED if at(config, key) is None]:
        return [Fault(key, "null", "must not be left out") for key in absent]
    layout, model = layout_of(config["parallel"]), model_of(config["model"])
    data, trainer = config["data"], config["trainer"]
    settings = list(setting_faults(config))
    found = [
        *model_and_layout_faults(config),
        *rank_faults(trainer, layout, model, (data["batch_size"], data["seq_len"]), around),
        *settings,
        *_trainer_key_faults(trainer),
        *_corpus_faults(config, any(fault.key.startswith("data.") for fault in settings)),
        *resume_faults(config.get("resume")),
        *cluster_faults(config["cluster"]),
        *init_from_faults(config.get("init_from"), model),
        *folder_faults("hydra.run.dir", around.run_folder),
    ]
    return found or list(document_faults(config))


def warnings(config: Config, around: Surroundings) -> list[str]:
    return [
        *precision_warnings(config["trainer"], around),
        *init_from_warnings(config.get("init_from"), model_of(config["model"])),
    ]


def _corpus_faults(config: Mapping[str, Any], data_is_faulty: bool) -> list[Fault]:
    # The layout's rules have reported these already; the corpus is to be looked at all the same.
    fallback = {"seq_len": 1, "batch_size": 1, "vocab_size": 65536}
    counts = {key: value for key in fallback if type(value := config["data"].get(key)) is int and value >= 1}
    data = {**config["data"], **fallback, **counts}
    try:
        return corpus_faults(data, instantiate(data["corpus"]))
    except (InstantiationException, TypeError) as error:  # a value of a type that the corpus cannot take
        reason = str(error.__cause__ or error).splitlines()[0]
        return [] if data_is_faulty else [Fault("data.corpus", data["corpus"].get("_target_"), reason)]


def _trainer_key_faults(section: Mapping[str, Any]) -> Iterator[Fault]:
    if section.get("_target_") == _TRAINER:
        yield from unknown_keys("trainer", section, _trainer_keys())


def _trainer_keys() -> list[str]:
    """Read from the source, because importing Lightning takes seconds."""
    spec = importlib.util.find_spec("lightning")
    assert spec is not None
    assert spec.submodule_search_locations
    source = Path(next(iter(spec.submodule_search_locations))) / "pytorch" / "trainer" / "trainer.py"
    classes = [node for node in ast.parse(source.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    methods = next(cls.body for cls in classes if cls.name == "Trainer")
    init = next(node for node in methods if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return [argument.arg for argument in (*init.args.args, *init.args.kwonlyargs) if argument.arg != "self"]


TRAIN = Command(
    name="train",
    faults=faults,
    warnings=warnings,
    purpose="Trains a model under a parallel layout.",
    example="+experiment=tp4_ep4_pp4 model=small trainer.max_steps=60",
    groups=(
        *("model", "parallel", "experiment", "data", "training", "trainer"),
        *("callbacks", "logger", "debug", "verbosity", "sweep"),
    ),
    paths=("resume", "init_from"),
)
