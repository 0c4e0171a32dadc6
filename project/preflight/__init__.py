"""Everything that is wrong with a config and its surroundings, found before any process starts and without torch.

`faults` lists what forbids the run, `warnings` what merely makes it slow. What a corpus's length in tokens forbids is
known only once it is tokenized: that is the `CorpusError` of the data module's `prepare`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from project.planner.machine.cluster_file import cluster_faults
from project.preflight.document import document_faults
from project.preflight.gpus import count_gpus, gpu_faults
from project.preflight.half_precision import half_precision_warnings
from project.preflight.initial_weights import init_from_faults, init_from_warnings
from project.preflight.places import folder_faults, resume_faults
from project.preflight.schedule import schedule_faults
from project.preflight.sections import filled, trainer_key_faults
from project.preflight.settings import setting_faults
from project.preflight.world import world_size_faults
from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.legal_values import said
from project.spec.legality.layouts import layout_faults
from project.spec.model import ModelConfig

__all__ = ["faults", "warnings"]

_NEEDED = (
    *("model", "parallel", "training", "data.corpus", "data.batch_size", "data.seq_len"),
    *("trainer.accelerator", "trainer.precision", "cluster"),
)


def faults(
    cfg: DictConfig,
    environ: Mapping[str, str],
    run_folder: Path | None = None,
    gpus: Callable[[], int] = count_gpus,
) -> list[Fault]:
    """`cfg` is the composed config without Hydra's own part; `gpus` is asked only where the accelerator may be one."""
    try:
        config: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        return [_unresolvable(cfg, error)]
    missing = [Fault(key, "???", "must be given") for key in sorted(OmegaConf.missing_keys(cfg))]
    if missing:
        return missing
    absent = [key for key in _NEEDED if OmegaConf.select(cfg, key) is None]
    if absent:
        return [Fault(key, "null", "must not be left out") for key in absent]
    settings = list(setting_faults(config))
    found = [
        *_layout_faults(config, environ, gpus),
        *settings,
        *trainer_key_faults(config["trainer"]),
        *_corpus_faults(config, any(fault.key.startswith("data.") for fault in settings)),
        *resume_faults(config.get("resume")),
        *cluster_faults(config["cluster"]),
        *init_from_faults(config.get("init_from"), _model(config)),
        *(folder_faults("hydra.run.dir", run_folder) if run_folder else ()),
    ]
    return found or list(document_faults(config))


def warnings(cfg: DictConfig, gpus: Callable[[], int] = count_gpus) -> list[str]:
    """For a config without faults."""
    trainer = cfg.trainer
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and gpus() == 0)
    return [
        *(half_precision_warnings(str(trainer.precision)) if on_cpu else ()),
        *init_from_warnings(cfg.get("init_from"), _model(OmegaConf.to_container(cfg, resolve=True))),
    ]


def _model(config: Any) -> ModelConfig:
    return filled(ModelConfig, "model", config["model"])[0]


def _unresolvable(cfg: DictConfig, error: OmegaConfBaseException) -> Fault:
    value: Any = OmegaConf.to_container(cfg, resolve=False)
    for part in (error.full_key or "").split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return Fault(error.full_key or "config", said(value), str(error).splitlines()[0])


def _layout_faults(config: Mapping[str, Any], environ: Mapping[str, str], gpus: Callable[[], int]) -> list[Fault]:
    layout, unknown_layout_keys = filled(ParallelLayout, "parallel", config["parallel"])
    model, unknown_model_keys = filled(ModelConfig, "model", config["model"])
    batch_size, seq_len = config["data"]["batch_size"], config["data"]["seq_len"]
    found = layout_faults(layout, model, batch_size, seq_len)
    degrees_known = all(type(degree) is int and degree > 0 for degree in (layout.pp, layout.dp, layout.tp))
    around: tuple[Fault, ...] = ()
    if degrees_known:
        around = (
            *gpu_faults(config["trainer"], layout, model, (batch_size, seq_len), environ, gpus),
            *world_size_faults(layout, model, (batch_size, seq_len), environ),
        )
    return [*unknown_layout_keys, *unknown_model_keys, *found, *schedule_faults(layout), *around]


def _corpus_faults(config: Mapping[str, Any], data_is_faulty: bool) -> list[Fault]:
    from project.data.corpus import corpus_faults

    # The layout's rules have complained of these already; the corpus is to be looked at all the same.
    fallback = {"seq_len": 1, "batch_size": 1, "vocab_size": 65536}
    unusable = {key: value for key, value in fallback.items() if not _is_count(config["data"].get(key))}
    try:
        return corpus_faults({**config["data"], **unusable})
    except (InstantiationException, TypeError) as error:  # a value of a type that the corpus cannot take
        reason = str(error.__cause__ or error).splitlines()[0]
        return [] if data_is_faulty else [Fault("data.corpus", config["data"]["corpus"].get("_target_"), reason)]


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1
