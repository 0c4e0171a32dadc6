"""The command line, checked whole before Hydra reads it: `check` ends the program with status 2, all faults listed.

In a sweep (`-m`) `check` composes the jobs, and each job checks its own configuration by `check_job`.
"""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from project.command_line.command import Command, register_resolvers
from project.command_line.composition import Composed, compose_or_explain, compose_or_explain_sweep
from project.command_line.document import with_document
from project.command_line.help import register_help
from project.command_line.model_of_weights import with_model
from project.command_line.refusal import in_sweep, refuse, report_warnings, speaks
from project.command_line.standard_streams import open_standard_streams
from project.command_line.verbatim import verbatim
from project.compat.hydra_internals import command_line_parser, optimizes
from project.configs import CONFIGS
from project.engine.host import count_gpus, torch_build
from project.preflight.gpus import Hardware
from project.preflight.machine import Surroundings, folder_faults, machine_memory
from project.preflight.nvml import ask_driver
from project.preflight.settings import at
from project.spec.fault import Fault, said

Found = tuple[list[Fault], list[str]]
"""Faults, and warnings where there are no faults."""


def stand_somewhere() -> None:
    """Ends the program with status 2 where its working folder is gone: Hydra, and every relative path, need one. Opens
    the standard streams that are closed."""
    open_standard_streams()
    try:
        os.getcwd()
    except OSError:
        print("Nothing was started. The working folder is gone; cd to one that is there.", file=sys.stderr)
        raise SystemExit(2) from None


HARDWARE = Hardware(torch_build, ask_driver)


def checked(argv: Sequence[str], command: Command, environ: Mapping[str, str]) -> list[str]:
    """The arguments for Hydra, after `check`: values that are meant verbatim quoted, and what a strategy document or
    weights say."""
    quoted = verbatim(argv, texts=command.texts, paths=command.paths)
    if command.reads_documents:
        quoted = with_document(quoted, command.name, environ)
    if command.begins_with_weights:
        quoted = with_model(quoted, environ)
    check(quoted, command, environ)
    return quoted


def check(
    argv: Sequence[str],
    command: Command,
    environ: Mapping[str, str],
    gpus: Callable[[], int] = count_gpus,
    memory: Callable[[], float] = machine_memory,
    hardware: Hardware = HARDWARE,
) -> None:
    """Returns if the command line is sound, warnings printed, or if it asks for no run; exits with 2 on faults."""
    register_resolvers()
    register_help(command)
    args = command_line_parser().parse_args(list(argv))
    if _is_no_run(args):
        return
    name, overrides = args.config_name or command.name, _overrides(args)
    sweeps = args.multirun or any(map(_begins_sweep, overrides))
    compose = compose_or_explain_sweep if sweeps else compose_or_explain
    try:
        composed = compose(CONFIGS, name, overrides)
    except HydraException as error:
        reason = f"cannot be composed: {error} {error.__cause__ or ''}".strip().splitlines()[0]
        refuse([Fault("--config-name", name, reason)], environ)
    around = Surroundings(environ, gpus, hardware, memory=memory)
    faults, warnings = _sweep(composed, command, around) if sweeps else _run(composed, command, around)
    if faults:
        refuse(faults, environ)
    if warnings and speaks(environ):
        report_warnings(warnings)


def check_job(cfg: DictConfig, command: Command, environ: Mapping[str, str]) -> None:
    """Checks the configuration of a sweep's job; called first in a job, and does nothing outside of a sweep, where
    `check` has done so.

    Raises:
        InvalidConfig: where there are faults.
    """
    register_resolvers()  # a launcher may have put the job into another process
    if not in_sweep():
        return
    faults, warnings = _found(cfg, command, Surroundings(environ, count_gpus, HARDWARE))
    if faults:
        refuse(faults, environ)
    report_warnings(warnings)


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


def _run(composed: Composed, command: Command, around: Surroundings) -> Found:
    try:
        with _as_in_job(composed.cfg, composed.cfg.hydra.run) as (cfg, folder):
            found, warnings = _found(cfg, command, replace(around, run_folder=folder))
            logs = list(_log_faults(composed.cfg.hydra))
            faults = [*composed.faults, *(fault for fault in found if not _rests_on(fault, composed)), *logs]
            return faults, [] if faults else warnings
    except OmegaConfBaseException as error:
        return [*composed.faults, Fault("hydra.run.dir", "", str(error).splitlines()[0])], []


def _log_faults(hydra: DictConfig) -> Iterator[Fault]:
    """Faults of log files of the user's own: Hydra opens them before the command begins."""
    for name, handler in (hydra.job_logging.get("handlers") or {}).items():
        file = handler.get("filename") if isinstance(handler, DictConfig) else None
        if isinstance(file, str) and Path(file).parent != Path(hydra.runtime.output_dir):
            key, folder = f"hydra.job_logging.handlers.{name}.filename", Path(file).parent
            if not folder.is_dir():
                yield Fault(key, file, f"cannot be opened: there is no folder {folder}")


def _sweep(composed: Composed, command: Command, around: Surroundings) -> Found:
    with _as_in_job(composed.cfg, composed.cfg.hydra.sweep) as (cfg, folder):
        asks = optimizes(composed.cfg.hydra) and not composed.faults
        objective = _objective_faults(cfg, command, around) if asks else ()
        return [*composed.faults, *objective, *folder_faults("hydra.sweep.dir", folder)], []


def _objective_faults(cfg: DictConfig, command: Command, around: Surroundings) -> Iterable[Fault]:
    """None of a configuration that cannot be resolved, or lacks a key: its job says so."""
    try:
        config: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException:
        return ()
    complete = not OmegaConf.missing_keys(cfg) and all(at(config, key) is not None for key in command.needed)
    return command.objective_faults(config, around) if complete else ()


def _found(cfg: DictConfig, command: Command, around: Surroundings) -> Found:
    """`cfg` is the composed configuration without Hydra's own part."""
    try:
        config: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        return [_unresolvable(cfg, error, command)], []
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        given = {key: f": {what}" for key, what in command.missing.items()}
        return [Fault(key, "???", f"must be given{given.get(key, '')}") for key in missing], []
    if absent := [key for key in command.needed if at(config, key) is None]:
        highest = [key for key in absent if not any(key.startswith(f"{other}.") for other in absent)]
        return [Fault(key, "null", "must not be left out") for key in highest], []
    faults = command.faults(config, around)
    return faults, [] if faults else command.warnings(config, around)


def _unresolvable(cfg: DictConfig, error: OmegaConfBaseException, command: Command) -> Fault:
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    groups = {named for named in re.findall(r"'([a-z_]+)", str(error)) if named in command.groups and named not in raw}
    if groups:
        return Fault(min(groups), "null", "must not be left out")
    value = at(raw, error.full_key or "")
    return Fault(error.full_key or "config", said(value), str(error).splitlines()[0])


def _rests_on(fault: Fault, composed: Composed) -> bool:
    """True if a fault may be no more than a consequence of a choice or a value that could not be made out."""
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
    """The task's part of the configuration, in which `${hydra:...}` resolves as it will in the job, and the job's
    folder."""
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
