"""Faults of the sections that are built by their `_target_`: callbacks, loggers, and whatever else names one. Those of
this project and Lightning's checkpoints are held to records; of others, that they can be imported and take the keys."""

import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import AfterValidator, BaseModel, Strict

from project.spec.fault import Fault, either, legal, nearest, said
from project.spec.metrics import METRICS, VALIDATION
from project.spec.record import Count, Flag, FlagOrNull, FromZero, Must, Word, record_faults
from project.spec.sections import unknown_keys

Name = Annotated[Word | int | float, Must("a name")]
Folder = Annotated[Word, Must("the path of a folder")]


def _in_one_folder(name: str) -> str:
    if "/" in name or name.startswith(".") or name == "last":
        raise ValueError(name)
    return name


class OfRunFolder(BaseModel):
    run_folder: Folder


class Trace(OfRunFolder):
    first: FromZero
    last: FromZero


class Steps(BaseModel):
    steps: Count


class StepsInRunFolder(OfRunFolder):
    steps: Count


class Progress(BaseModel):
    every_n_steps: Count


class Nothing(BaseModel):
    """No keys."""


class Checkpoints(BaseModel):
    """Lightning's ModelCheckpoint."""

    dirpath: Annotated[Word | None, Must("the path of a folder, or null")]
    filename: Annotated[
        Annotated[Word, AfterValidator(_in_one_folder)] | None,
        Must("null or a name without /, not last, not hidden: a checkpoint is looked for in the folder itself"),
    ]
    monitor: Annotated[Word | None, Must("null or the name of a metric")]
    verbose: Flag
    save_last: Annotated[Flag | Literal["link"] | None, Must("true, false, null or link")]
    save_top_k: Annotated[
        Annotated[int, Strict(), Ge(-1)], Must("a whole number of checkpoints to keep, or -1 for all")
    ]
    save_on_exception: Flag
    save_weights_only: Flag
    mode: Literal["min", "max"]
    auto_insert_metric_name: Flag
    every_n_train_steps: Annotated[FromZero | None, Must("null or a number of steps")]
    train_time_interval: Annotated[
        Mapping[str, Any] | None, Must("null or {_target_: datetime.timedelta, minutes: 30}")
    ]
    every_n_epochs: Annotated[FromZero | None, Must("null or a number of epochs")]
    save_on_train_epoch_end: FlagOrNull
    enable_version_counter: Flag


class Wandb(OfRunFolder):
    project: Name
    name: Name
    group: Annotated[Word | None, Must("null or a name")]
    tags: Annotated[list[str | int | float | None], Must("a list of words, as in [a,b]")]
    offline: FlagOrNull
    artifacts: Flag


_CALLBACKS = "project.callbacks."
CHECKPOINTS = (f"{_CALLBACKS}checkpoint.Checkpoint", "lightning.pytorch.callbacks.ModelCheckpoint")
RECORDS: dict[str, type[BaseModel]] = {
    **dict.fromkeys(CHECKPOINTS, Checkpoints),
    f"{_CALLBACKS}first_steps.Communication": Steps,
    f"{_CALLBACKS}first_steps.ActivationPeaks": Steps,
    f"{_CALLBACKS}first_steps.MemoryCategories": Nothing,
    f"{_CALLBACKS}step_metrics.StepMetrics": Nothing,
    f"{_CALLBACKS}expert_metrics.ExpertMetrics": Nothing,
    f"{_CALLBACKS}layout_table.LayoutTable": Nothing,
    f"{_CALLBACKS}repeat_batch.RepeatBatch": Nothing,
    f"{_CALLBACKS}trace.Trace": Trace,
    f"{_CALLBACKS}summary.RunSummary": OfRunFolder,
    f"{_CALLBACKS}summary.SummaryTable": OfRunFolder,
    f"{_CALLBACKS}wandb_run.WandbRun": OfRunFolder,
    f"{_CALLBACKS}memory_snapshot.MemorySnapshot": StepsInRunFolder,
    f"{_CALLBACKS}progress.progress": Progress,
    "project.loggers.csv_only": OfRunFolder,
    "project.loggers.csv_and_wandb": Wandb,
}
OPTIONAL = {Steps: ("steps",), StepsInRunFolder: ("steps",), Trace: ("first", "last"), Wandb: ("offline", "artifacts")}
HYDRAS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")


def object_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of `callbacks` and `logger`, and of every other section's `_target_` that cannot be imported."""
    callbacks, logger = config["callbacks"], config["logger"]
    if not isinstance(callbacks, Mapping):
        yield Fault("callbacks", said(callbacks), "must be a section, each of whose keys is a callback or null")
        return
    for name, node in callbacks.items():
        if node is not None:
            yield from _described("callbacks." + str(name), node)
    yield from _described("logger", logger)
    yield from _checkpoint_faults(config, callbacks)
    for key in config.keys() - {"callbacks", "logger"}:
        for where, target in _targets(key, config[key]):
            if where != "trainer":
                yield from _import_faults(where, target)
            if where == "data":
                yield from _datamodule_faults(target)


def _datamodule_faults(target: str) -> Iterator[Fault]:
    """The fault of something importable that is no class of data modules that prepare their files."""
    try:
        found = pkgutil.resolve_name(target)
    except Exception:  # a fault already
        return
    if not (isinstance(found, type) and callable(getattr(found, "prepare", None))):
        nearest = SHIPPED[1]
        yield Fault("data._target_", target, f"is no TokenDataModule, nor a class derived from it; nearest {nearest}")


def _described(key: str, node: Any) -> Iterator[Fault]:
    """Faults of a section that describes one object."""
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        yield Fault(key, said(node), "must be null or a section with a _target_, as in {_target_: module.Class}")
        return
    target, given = node["_target_"], {name: value for name, value in node.items() if name not in HYDRAS}
    record = RECORDS.get(target)
    if record is None:
        yield from _import_faults(key, target) if not target.startswith("project.") else _ours(key, target)
        yield from _signature_faults(key, target, given)
        for name, value in given.items():
            for where, inner in _targets(f"{key}.{name}", value):
                yield from _import_faults(where, inner)
        return
    yield from unknown_keys(key, given, list(record.model_fields))
    yield from record_faults(record, key, given)
    if record is not Checkpoints:
        needed = [name for name in record.model_fields if name not in OPTIONAL.get(record, ())]
        yield from (Fault(f"{key}.{name}", "null", "must not be left out") for name in needed if name not in given)


def _ours(key: str, target: str) -> Iterator[Fault]:
    if any(True for _ in _import_faults(key, target)):
        near = either(nearest(target, list(RECORDS)))
        yield Fault(f"{key}._target_", target, f"is nothing of this project{near and '; nearest ' + near}")


def _import_faults(key: str, target: str) -> Iterator[Fault]:
    try:
        found = pkgutil.resolve_name(target)
    except Exception as error:  # of whatever kind: importing runs the module
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        yield Fault(f"{key}._target_", target, f"cannot be imported ({reason}); give MODULE.NAME that Python finds")
        return
    if not callable(found):
        yield Fault(f"{key}._target_", target, f"is a {type(found).__name__}, which cannot be called")


def _signature_faults(key: str, target: str, given: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of keys that the object does not take, or does not get."""
    try:
        signature = inspect.signature(pkgutil.resolve_name(target))
    except Exception:  # not importable, which is a fault already; or built in, without a signature
        return
    try:
        signature.bind(**given)
    except TypeError as error:
        yield Fault(key, target, f"cannot be built from its keys: {error}; it takes {signature}")


def _targets(key: str, node: Any) -> Iterator[tuple[str, str]]:
    """Every `_target_` at or below a key but those that this project ships, with the key of its section."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str) and target not in SHIPPED:
            yield key, target
        for name, value in node.items():
            yield from _targets(f"{key}.{name}", value)
    elif isinstance(node, list):
        for position, value in enumerate(node):
            yield from _targets(f"{key}[{position}]", value)


SHIPPED = (
    "lightning.pytorch.Trainer",  # to import it takes seconds
    "project.data.datamodule.TokenDataModule",
    "project.data.stdlib.StdlibCorpus",
    "project.data.synthetic.SyntheticCorpus",
    "project.data.text.TextCorpus",
    "project.data.hugging_face.HuggingFaceCorpus",
)


def _checkpoint_faults(config: Mapping[str, Any], callbacks: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of what callbacks monitor, and of keys of a checkpoint that exclude one another."""
    known = all(
        isinstance(node, Mapping) and str(node.get("_target_")).startswith(("project.", "lightning."))
        for node in callbacks.values()
        if node is not None
    )
    for name, node in callbacks.items():
        if not isinstance(node, Mapping):
            continue
        key, monitor = f"callbacks.{name}", node.get("monitor")
        if isinstance(monitor, str) and known and monitor not in METRICS:
            yield Fault(f"{key}.monitor", monitor, f"is no metric of a run; {legal(monitor, METRICS)}")
        if monitor in VALIDATION and config["trainer"].get("limit_val_batches") == 0:
            message = "is a metric of validation, which trainer.limit_val_batches=0 leaves out"
            yield Fault(f"{key}.monitor", monitor, message)
        if node.get("_target_") in CHECKPOINTS:
            yield from _when_faults(key, node)


def _when_faults(key: str, node: Mapping[str, Any]) -> Iterator[Fault]:
    chosen = [name for name in ("every_n_train_steps", "every_n_epochs", "train_time_interval") if node.get(name)]
    if len(chosen) > 1:
        yield Fault(f"{key}.{chosen[0]}", node[chosen[0]], f"excludes {key}.{chosen[1]}; give one of them")
    if node.get("monitor") is None and node.get("save_top_k", 1) not in (-1, 0, 1):
        yield Fault(f"{key}.save_top_k", said(node["save_top_k"]), "needs a monitor; without one legal: -1, 0, 1")
