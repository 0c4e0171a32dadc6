"""The command line, checked whole before Hydra sees it: `check` ends the program with status 2, all faults listed.

In a sweep (`-m`) `check` composes the jobs, and each job looks at its own config by `check_job`. Hydra's launcher
catches an `Exception` of a job, goes on with the others, and raises it again after the last one; a `SystemExit` would
end the sweep. `InvalidConfig` is of the kind that Hydra prints without a traceback, and ends with status 1.
"""

from __future__ import annotations

import re
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import NoReturn, Protocol

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from project import preflight
from project.command_line.composition import Composed, compose_or_explain, compose_or_explain_sweep
from project.command_line.report import report_faults, report_warnings
from project.command_line.resolvers import register_resolvers
from project.preflight.gpus import count_gpus
from project.preflight.places import folder_faults
from project.spec.fault import Fault

__all__ = ["InvalidConfig", "check", "check_job", "in_sweep", "leads", "refuse", "report_faults"]

_FAULTY = 2


class Checks(Protocol):
    """What a command's config is looked at by; `preflight` is training's."""

    def faults(
        self, cfg: DictConfig, environ: Mapping[str, str], run_folder: Path | None, gpus: Callable[[], int]
    ) -> list[Fault]: ...

    def warnings(self, cfg: DictConfig, gpus: Callable[[], int]) -> list[str]: ...


class InvalidConfig(CompactHydraException):
    """A job of a sweep whose config is at fault; what is wrong has been reported."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(f"{', '.join(f'{fault.key}={fault.value}' for fault in faults)}: see the faults above")
        self.faults = list(faults)

    def __reduce__(self) -> tuple[type[InvalidConfig], tuple[list[Fault]]]:
        """A launcher may send it from another process."""
        return type(self), (self.faults,)


def check(
    argv: Sequence[str],
    config_dir: str | Path,
    config_name: str,
    environ: Mapping[str, str],
    gpus: Callable[[], int] = count_gpus,
    checks: Checks = preflight,
) -> None:
    """Returns if the command is sound, warnings printed, or if it asks for no run; exits with 2 on faults."""
    register_resolvers()
    args = get_args_parser().parse_args(list(argv))
    if _is_no_run(args):
        return
    name, overrides = args.config_name or config_name, _overrides(args)
    sweeps = args.multirun or any(map(_begins_sweep, overrides))
    compose = compose_or_explain_sweep if sweeps else compose_or_explain
    try:
        composed = compose(Path(config_dir).resolve(), name, overrides)
    except HydraException as error:
        reason = f"cannot be composed: {error} {error.__cause__ or ''}".strip().splitlines()[0]
        refuse([Fault("--config-name", name, reason)], environ)
    faults, warnings = _sweep(composed) if sweeps else _run(composed, environ, gpus, checks)
    if faults:
        refuse(faults, environ)
    if warnings and _speaks(environ):
        report_warnings(warnings)


def check_job(cfg: DictConfig, environ: Mapping[str, str], checks: Checks = preflight) -> None:
    """To be called first in a job; looks at nothing if `check` has. Raises `InvalidConfig`."""
    register_resolvers()  # a launcher may have put the job into another process
    if not in_sweep():
        return
    if faults := checks.faults(cfg, environ, None, count_gpus):
        refuse(faults, environ)
    report_warnings(checks.warnings(cfg, count_gpus))


def refuse(faults: Sequence[Fault], environ: Mapping[str, str]) -> NoReturn:
    """Reports on one process of each machine, and exits with 2; in a job of a sweep, raises `InvalidConfig`."""
    if in_sweep():
        report_faults(faults, heading=f"Job {HydraConfig.get().job.num} was not started")
        raise InvalidConfig(faults)
    if _speaks(environ):
        report_faults(faults)
    else:
        time.sleep(10)  # torchrun ends all at the first that exits, and the one that speaks is to finish first
    raise SystemExit(_FAULTY)


def leads(environ: Mapping[str, str]) -> bool:
    """Whether this is the one process that has the run's folder, of those that torchrun or SLURM started."""
    return environ.get("RANK", environ.get("SLURM_PROCID", "0")) == "0"


def in_sweep() -> bool:
    """Whether this is a job of one."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _speaks(environ: Mapping[str, str]) -> bool:
    return environ.get("LOCAL_RANK", environ.get("SLURM_LOCALID", "0")) == "0"


def _is_no_run(args: Namespace) -> bool:
    # With a --config-path of the user's own, Hydra alone knows what it is relative to.
    shows = args.help or args.hydra_help or args.cfg or args.info or args.shell_completion
    return bool(shows or args.experimental_rerun or args.config_path)


def _overrides(args: Namespace) -> list[str]:
    searched = [f"hydra.searchpath=[file://{Path(args.config_dir).resolve()}]"] if args.config_dir else []
    return [*searched, *args.overrides]


def _begins_sweep(override: str) -> bool:
    """Without -m: a choice of the group `sweep` sets Hydra's mode."""
    return override == "hydra.mode=MULTIRUN" or override.lstrip("+").startswith("sweep=")


def _run(
    composed: Composed, environ: Mapping[str, str], gpus: Callable[[], int], checks: Checks
) -> tuple[list[Fault], list[str]]:
    try:
        with _as_in_job(composed.cfg, composed.cfg.hydra.run) as (cfg, folder):
            found = checks.faults(cfg, environ, folder, gpus)
            faults = [*composed.faults, *(fault for fault in found if not _rests_on(fault, composed))]
            return faults, [] if faults else checks.warnings(cfg, gpus)
    except OmegaConfBaseException as error:
        return [*composed.faults, Fault("hydra.run.dir", "", str(error).splitlines()[0])], []


def _sweep(composed: Composed) -> tuple[list[Fault], list[str]]:
    with _as_in_job(composed.cfg, composed.cfg.hydra.sweep) as (_, folder):
        return [*composed.faults, *folder_faults("hydra.sweep.dir", folder)], []


def _rests_on(fault: Fault, composed: Composed) -> bool:
    """Whether a fault may be no more than a consequence of a choice or a value that could not be made out."""
    text = f"{fault.key} {fault.message}"
    for lost in composed.lost:
        section = lost.partition(".")[0]
        if section not in composed.cfg and len(set(re.findall(r"[a-z]+\.[a-z_]+", text))) > 1:
            return True  # an experiment may have changed any of those keys
        if fault.key == section or f"{section}." in text:
            return True
    return False


@contextmanager
def _as_in_job(cfg: DictConfig, place: DictConfig) -> Iterator[tuple[DictConfig, Path]]:
    """The task's part of the config, in which `${hydra:...}` resolves as it will in the job, and the job's folder."""
    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    hydra_config.set_config(cfg)
    try:
        folder = Path(place.dir)
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.runtime.output_dir = str(folder.absolute())
        hydra_config.set_config(cfg)
        task = deepcopy(cfg)
        OmegaConf.set_readonly(task, False)
        with open_dict(task):
            del task["hydra"]
        yield task, folder
    finally:
        hydra_config.cfg = before
