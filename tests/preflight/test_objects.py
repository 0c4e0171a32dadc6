"""Callbacks, loggers and whatever else is built by its `_target_` are checked before anything starts; so are sizes that
no machine has, nodes that nobody has started, and groups that were deleted."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from project.data.datamodule import TokenDataModule
from project.preflight.machine import machine_memory
from project.preflight.objects import RECORDS
from project.preflight.settings import DATAMODULE

CHECKPOINT = "callbacks.checkpoint"
CASES = {
    f"{CHECKPOINT}.save_top_k=many": f"{CHECKPOINT}.save_top_k=many: must be a whole number of checkpoints to keep",
    f"{CHECKPOINT}.save_top_k=-2": f"{CHECKPOINT}.save_top_k=-2: must be a whole number of checkpoints to keep",
    f"{CHECKPOINT}.save_top_k=3 {CHECKPOINT}.monitor=null": "needs a monitor; without one legal: -1, 0, 1",
    f"{CHECKPOINT}.every_n_train_steps=x": "must be null or a number of steps",
    f"{CHECKPOINT}.every_n_train_steps=2 +{CHECKPOINT}.every_n_epochs=3": f"excludes {CHECKPOINT}.every_n_epochs",
    f"{CHECKPOINT}.train_time_interval=30": "must be null or {_target_: datetime.timedelta, minutes: 30}",
    f"{CHECKPOINT}.mode=up": "is not known; legal: min, max",
    f"{CHECKPOINT}.monitor=val/los": "is no metric of a run; legal: val/loss",
    f"{CHECKPOINT}.monitor=val/loss trainer.limit_val_batches=0": "which trainer.limit_val_batches=0 leaves out",
    f"{CHECKPOINT}.filename=a/b": "must be null or a name without /",
    f"{CHECKPOINT}.filename=last": "must be null or a name without /, not last",
    f"{CHECKPOINT}.save_last=2": "must be true, false, null or link",
    f"+{CHECKPOINT}.save_top=1": f"is no key of {CHECKPOINT}; legal: dirpath",
    f"{CHECKPOINT}._target_=project.callbacks.checkpoint.Chekpoint": "nearest project.callbacks.checkpoint.Checkpoint",
    f"{CHECKPOINT}=3": "must be null or a section with a _target_",
    f"~{CHECKPOINT}._target_": "must be null or a section with a _target_",
    "callbacks.trace.first=-1": "callbacks.trace.first=-1: must be a whole number, 0 or more",
    "callbacks.progress.every_n_steps=0": "must be a whole number of at least 1",
    "~callbacks.progress.every_n_steps": "callbacks.progress.every_n_steps=null: must not be left out",
    "+callbacks.mine={_target_:nowhere.Mine}": "cannot be imported (No module named 'nowhere')",
    "+callbacks.mine={_target_:math.pi}": "is a float, which cannot be called",
    "+callbacks.mine={_target_:datetime.timedelta,days:{_target_:nowhere.days}}": "callbacks.mine.days._target_=",
    "+callbacks.mine={_target_:logging.Filter,named:x}": "cannot be built from its keys",
    "logger.offline=maybe": "logger.offline=maybe: must be true, false or null",
    "logger.tags=word": "logger.tags=word: must be a list of words",
    "+logger.nmae=x": "is no key of logger; legal: run_folder, project, name",
    "logger.project=null": "logger.project=null: must be a name",
    "watchdog.timeout_s=1e308": "must be a number of seconds above 0, at most",
    "watchdog.timeout_s=nan": "must be a number of seconds above 0, at most",
    "checkpoint.asynchronous=1": "checkpoint.asynchronous=1: must be true or false",
    "data.vocab_size=0": "data.vocab_size=0: must be a whole number of at least 1",
    "data.show_progress=1": "data.show_progress=1: must be true or false",
    "data.corpus._target_=project.data.nowhere.Corpus": "data.corpus._target_=project.data.nowhere.Corpus: cannot be",
    "+trainer.devices=2": "is given by the command: it follows from parallel.pp x parallel.dp x parallel.tp",
    "+trainer.strategy=ddp": "is given by the command",
    "+trainer.max_epochs=x": "must be null, -1 or a number of epochs",
    "+trainer.detect_anomaly=true": "must be false",
    "+trainer.barebones=true": "must be false: a run has its checkpoints",
    "+trainer.max_time=abc": "must be null or a time, as in '00:12:00:00'",
    "+trainer.max_time={moons:5}": "must be null or a time, as in '00:12:00:00'",
    "+trainer.model_registry=[1]": "must be null or a name",
    "+trainer.default_root_dir=/dev/null/x": "cannot be created, because /dev/null is a file",
    f"{CHECKPOINT}.dirpath=/dev/null": "cannot be created, because /dev/null is a file",
    "experiment_name=a/b": "must be a name without /, by which the run's folder is found again",
    "experiment_name=''": "must be a name without /",
    "experiment_name=[a]": "must be a name without /",
    "data.num_workers=1000000": "must be a whole number, 0 or more, of at most 1024",
    "trainer._target_=lightning.pytorch.Trainr": "must be lightning.pytorch.Trainer",
    "trainer.num_nodes=3 +experiment=tp4_ep4_pp4": "does not divide the layout's 16 ranks; legal: 1, 2, 4, 8, 16",
    "trainer.num_nodes=2 +experiment=tp4_ep4_pp4": "would wait for the others for ever",
    "model.num_layers=1000000": "is more than the 1000",
    "parallel.microbatches=100000000 data.batch_size=100000000": "makes 100000000 actions",
    "parallel.tp=100000000": "is more than 1048576 ranks",
    "model.d_model=100000000": "weights, gradients and optimizer need 708 TB on the 1 ranks of this machine",
    "model.num_experts=10000000": "more than the",
    "data={_target_:os.getcwd}": "data._target_=os.getcwd: is no TokenDataModule, nor a class derived from it",
    "data._target_=datetime.timedelta": "data._target_=datetime.timedelta: is no TokenDataModule",
    "data.corpus={_target_:os.getcwd}": "data.corpus=os.getcwd: is no corpus; project.data.corpus.Corpus says",
    "data.corpus._target_=builtins.dict": "data.corpus=builtins.dict: is no corpus; project.data.corpus.Corpus says",
    "+training.foo=1": "training.foo=1: is no key of training; legal: learning_rate, weight_decay, betas",
    "+watchdog.foo=1": "watchdog.foo=1: is no key of watchdog; legal: not_finite, timeout_s",
    "+checkpoint.every=1": "checkpoint.every=1: is no key of checkpoint; legal: asynchronous",
    "+data.foo=1": "data.foo=1: is no key of data;",
    "+training={minutes:x}": "training.minutes=x: is no key of training;",
    "+data={minutes:x}": "data.minutes=x: is no key of data;",
    "~trainer.max_steps": "trainer.max_steps=null: must not be left out",
    "~data": "data=null: must not be left out",
    "~data._target_": "data._target_=null: must not be left out",
    "~data.vocab_size": "data.vocab_size=null: must not be left out",
    "~data.corpus": "data.corpus=null: must not be left out",
    "~data.corpus._target_": "data.corpus._target_=null: must not be left out",
    "~model": "model=null: must not be left out",
    "~parallel": "parallel=null: must not be left out",
    "~callbacks": "callbacks=null: must not be left out",
    "~logger": "logger=null: must not be left out",
    "~training": "training=null: must not be left out",
    "~cluster": "cluster=null: must not be left out",
    "hydra.job_logging.handlers.file.filename=/nowhere/run.log": "cannot be opened: there is no folder /nowhere",
}


@pytest.mark.parametrize("command", CASES)
def test_what_would_die_in_a_rank_is_refused_before_there_is_one(command: str, complaint: Callable[..., str]) -> None:
    assert CASES[command] in complaint(*command.split())


@pytest.mark.parametrize(
    "command",
    [
        f"{CHECKPOINT}.monitor=val/loss {CHECKPOINT}.mode=min",
        f"{CHECKPOINT}.train_time_interval={{_target_:datetime.timedelta,minutes:30}}",
        "+callbacks.mine={_target_:logging.Filter,name:x} callbacks.checkpoint.monitor=mine/metric",
        "callbacks.checkpoint=null callbacks.progress=null",
        "~callbacks.trace",
        "~verbosity",
        "experiment_name=3",
        "experiment_name='a_1'",
        "+trainer.max_time={hours:1}",
        "+trainer.max_time='00:01:00:00'",
        "debug=memory",
        "logger=csv +trainer.limit_train_batches=0.5 +trainer.deterministic=warn",
    ],
)
def test_what_a_user_may_say_is_not_refused(command: str, accepted: Callable[..., str]) -> None:
    assert accepted(*command.split()) == ""


def test_nodes_are_accepted_where_a_launcher_has_started_them(accepted: Callable[..., str]) -> None:
    nodes = ["parallel.tp=4", "trainer.num_nodes=2"]
    torchrun = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    assert accepted(*nodes, environ=torchrun) == ""
    assert accepted(*nodes, environ={"NODE_RANK": "1"}) == ""


def test_a_container_has_as_much_memory_as_it_may_use(tmp_path: Path) -> None:
    info, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    info.write_text("MemTotal:       1000 kB\nMemFree: 10 kB\nSwapTotal:       24 kB\n")
    assert machine_memory(info, limit) == 1024 * 1024
    limit.write_text("max\n")
    assert machine_memory(info, limit) == 1024 * 1024
    limit.write_text("4096\n")
    assert machine_memory(info, limit) == 4096
    assert machine_memory(tmp_path / "nowhere", limit) == float("inf")


def test_every_record_is_of_something_that_there_is_and_takes_its_keys() -> None:
    from inspect import signature
    from pkgutil import resolve_name

    for target, record in RECORDS.items():
        taken = signature(resolve_name(target)).parameters
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
        assert open_ended or record.model_fields.keys() <= taken.keys(), target


def test_the_keys_of_data_are_the_datamodule_s_arguments() -> None:
    parameters = inspect.signature(TokenDataModule).parameters
    assert set(DATAMODULE) == {name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD}
