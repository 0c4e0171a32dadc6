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
from project.command_line.other_names import RANKS, STRATEGY
from project.commands.train.starting_point import init_from_faults, init_from_warnings, resume_faults
from project.data.corpus import corpus_faults
from project.planner.config import cluster_faults_of, cluster_of
from project.preflight.layout import document_faults, memory_faults, model_and_layout_faults
from project.preflight.machine import Surroundings, folder_faults, on_gpus, shared_memory_faults, with_precision
from project.preflight.objective import objective_faults
from project.preflight.objects import object_faults
from project.preflight.ranks import rank_faults
from project.preflight.settings import DATAMODULE, at, setting_faults
from project.preflight.speed import machine_warnings
from project.spec.fault import Fault, said
from project.spec.sections import layout_of, model_of, unknown_keys

_NEEDED = (
    *("model", "parallel", "training"),
    *("data", "data._target_", "data.corpus", "data.corpus._target_"),
    *("data.batch_size", "data.seq_len", "data.vocab_size"),
    *("trainer.accelerator", "trainer.precision", "trainer.num_nodes", "trainer.accumulate_grad_batches"),
    *("trainer.max_steps", "cluster"),
    *("callbacks", "logger", "seed", "objective", "experiment_name", "watchdog.timeout_s", "watchdog.not_finite"),
    "checkpoint.asynchronous",
)
_TRAINER = "lightning.pytorch.Trainer"
_OURS = {
    "devices": RANKS,
    "strategy": STRATEGY,
    "callbacks": "the section callbacks has them",
    "logger": "the section logger has it",
    "plugins": "the strategy brings its own",
    "check_val_every_n_epoch": "trainer.val_check_interval counts steps",
    "num_sanity_val_steps": "there are none",
    "use_distributed_sampler": "the data module knows its replica",
    "inference_mode": "DTensor has none",
    "enable_checkpointing": "callbacks.checkpoint=null leaves it out",
    "enable_model_summary": "callbacks.layout_table is instead",
    "enable_progress_bar": "callbacks.progress=null leaves it out",
}
"""The Trainer's arguments that the command itself gives, and where to say what they would."""


def faults(config: Config, around: Surroundings) -> list[Fault]:
    config = with_precision(config, around)
    layout, model = layout_of(config["parallel"]), model_of(config["model"])
    data, trainer = config["data"], config["trainer"]
    settings = [*setting_faults(config), *object_faults(config)]
    found = [
        *model_and_layout_faults(config),
        *rank_faults(trainer, layout, model, (data["batch_size"], data["seq_len"]), around),
        *settings,
        *_trainer_key_faults(trainer),
        *_corpus_faults(config, any(fault.key.startswith("data.") for fault in settings)),
        *resume_faults(config.get("resume"), model),
        *cluster_faults_of(config),
        *init_from_faults(config.get("init_from"), model),
        *folder_faults("hydra.run.dir", around.run_folder),
        *_own_folder_faults(config, around.run_folder),
    ]
    if found:
        return found
    ranks_here = layout.world_size // trainer["num_nodes"]
    return [
        *_recomputation_faults(config, around),
        *document_faults(config),
        *_memory_faults(config, around),
        *shared_memory_faults(data, ranks_here),
    ]


def _recomputation_faults(config: Config, around: Surroundings) -> Iterator[Fault]:
    """The fault of recomputing by the memory of a cluster that is none of the ranks' GPUs."""
    cluster = cluster_of(config)
    asked = config["parallel"].get("recompute") == "auto"
    if asked and cluster.host is not None and on_gpus(config["trainer"]["accelerator"], around):
        message = (
            f"goes by the memory that the cluster's devices have, and those of {cluster.name} are processors; name the "
            "cluster of these GPUs, as in cluster=h100_8x, or choose none, selective or full"
        )
        yield Fault("parallel.recompute", "auto", message)


def _own_folder_faults(config: Config, run_folder: Path | None) -> Iterator[Fault]:
    """Faults of folders that are given besides the run's, and lie elsewhere."""
    for key in ("callbacks.checkpoint.dirpath", "trainer.default_root_dir"):
        folder = at(config, key)
        if isinstance(folder, str) and folder and not (run_folder and Path(folder).is_relative_to(run_folder)):
            yield from folder_faults(key, Path(folder))


def _memory_faults(config: Config, around: Surroundings) -> Iterator[Fault]:
    accelerator = config["trainer"]["accelerator"]
    if accelerator == "cpu" or (accelerator == "auto" and around.gpus() == 0):
        yield from memory_faults(config, around.memory())


def warnings(config: Config, around: Surroundings) -> list[str]:
    config = with_precision(config, around)
    return [
        *machine_warnings(config["trainer"], layout_of(config["parallel"]), around),
        *init_from_warnings(config.get("init_from"), model_of(config["model"])),
    ]


def _corpus_faults(config: Mapping[str, Any], data_is_faulty: bool) -> list[Fault]:
    # The layout's rules have reported these already; the corpus is to be looked at all the same.
    fallback = {"seq_len": 1, "batch_size": 1, "vocab_size": 65536}
    counts = {key: value for key in fallback if type(value := config["data"].get(key)) is int and value >= 1}
    data = {**config["data"], **fallback, **counts}
    try:
        corpus = instantiate(data["corpus"])
        if not callable(getattr(corpus, "faults", None)):
            raise TypeError("is no corpus; project.data.corpus.Corpus says what one has")
        known = [*DATAMODULE, *(name for name in config["data"] if name in vars(corpus) or hasattr(type(corpus), name))]
        return [*unknown_keys("data", config["data"], known), *corpus_faults(data, corpus)]
    except (InstantiationException, TypeError) as error:  # a value of a type that the corpus cannot take
        reason = str(error.__cause__ or error).splitlines()[0]
        return [] if data_is_faulty else [Fault("data.corpus", data["corpus"].get("_target_"), reason)]


def _trainer_key_faults(section: Mapping[str, Any]) -> Iterator[Fault]:
    if section.get("_target_") != _TRAINER:
        message = f"must be {_TRAINER}, which this command gives its strategy; nearest {_TRAINER}"
        yield Fault("trainer._target_", said(section.get("_target_")), message)
    for key in _OURS.keys() & section.keys():
        yield Fault(f"trainer.{key}", said(section[key]), f"is given by the command: {_OURS[key]}")
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
    needed=_NEEDED,
    faults=faults,
    warnings=warnings,
    objective_faults=objective_faults,
    purpose="Trains a model under a parallel layout.",
    example="+experiment=tp4_ep4_pp4 model=small trainer.max_steps=60",
    groups=(
        *("model", "parallel", "experiment", "data", "training", "trainer"),
        *("callbacks", "logger", "debug", "verbosity", "sweep"),
    ),
    paths=("resume", "init_from", "document"),
    reads_documents=True,
    begins_with_weights=True,
)
