"""Configurations that nobody would write: each is refused with status 2 and no traceback, or can be built.

A few of each command here; `make fuzz` draws thousands, and trains some of those that are accepted.
"""

import random
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hypothesis import given, note
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict

from project.command_line.check import checked, register_resolvers
from project.command_line.command import Command
from project.command_line.misspelling import keys_of
from project.commands import convert, report
from project.commands.generate.command import GENERATE
from project.commands.plan.command import PLAN
from project.commands.train.command import TRAIN
from project.configs import CONFIGS
from project.planner.config import plan_of
from tests.harness.a_run import Run
from tests.harness.command import run as run_command
from tests.harness.draws import settled

SMALL = [
    *("model=tiny", "model.num_layers=2", "model.vocab_size=64", "data=synthetic", "data.seq_len=16"),
    *("data.batch_size=4", "parallel.microbatches=2", "logger=csv", "trainer.accelerator=cpu", "trainer.max_steps=1"),
    *("trainer.limit_val_batches=1", "verbosity=quiet"),
]
NUMBERS = [
    *("0", "-1", "1", "2", "3", "4", "7", "8", "16"),
    *("64", "1000000007", "1e308", "-0.5", "0.5", "1e-9", "nan", "inf"),
]
WORDS = [
    *("null", "true", "false", "''", "x", "none", "auto", "full"),
    *("shard", "???", "${nope}", "${seed}", "é", "a/b", "../x"),
]
NESTED = [
    *("[]", "{}", "[1,2]", "[[1]]", "{a:1}"),
    *("[null]", "{_target_:nowhere.X}", "{_target_:datetime.timedelta}", "[x,y]"),
    *("{_target_:lightning.pytorch.callbacks.StochasticWeightAveraging,swa_lrs:0.1}", "{_target_:os.getcwd}"),
    *("{_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val/loss,mode:up}", "{minutes:1}", "{minutes:x}"),
]
GROUPS = ["model", "parallel", "data", "training", "trainer", "callbacks", "logger", "cluster", "debug", "verbosity"]
EXTRA = [
    *("trainer.max_epochs", "trainer.limit_train_batches", "trainer.profiler", "trainer.devices", "trainer.precision"),
    *("callbacks.mine", "callbacks.checkpoint.every_n_epochs", "nothing", "a.b.c", "hydra.run.dir", "hydra.job.name"),
    *("trainer.barebones", "trainer.max_time", "trainer.model_registry", "trainer.fast_dev_run", "trainer.min_steps"),
    *("trainer.default_root_dir", "trainer.overfit_batches", "callbacks.checkpoint.dirpath", "callbacks.another"),
    *("hydra.output_subdir", "hydra.verbose", "experiment", "sweep", "document", "init_from", "resume", "compare"),
]


def keys(name: str) -> list[str]:
    register_resolvers()
    with initialize_config_dir(str(CONFIGS), version_base="1.3", job_name="fuzz"):
        return keys_of(compose(name))


def overrides(name: str) -> st.SearchStrategy[list[str]]:
    """Some overrides of a command, most of keys that it has."""
    values = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.sampled_from(NESTED), st.text(max_size=6))
    known = st.sampled_from(keys(name))
    key = st.one_of(known, known, known, st.sampled_from(EXTRA), st.sampled_from(GROUPS))
    prefix = st.sampled_from(["", "", "", "", "+", "++"])
    given_value = st.builds(lambda p, k, v: f"{p}{k}={v}", prefix, key, values)
    deleted = st.builds("~{}".format, st.one_of(known, st.sampled_from(GROUPS)))
    return st.lists(st.one_of(given_value, given_value, given_value, given_value, deleted), min_size=1, max_size=3)


def outcome(command: Command, argv: list[str]) -> list[str] | None:
    """The arguments for Hydra of a command line that is accepted; None for one that is refused, with status 2."""
    try:
        return checked(argv, command, {})
    except SystemExit as ended:
        if ended.code != 2:
            pytest.fail(f"refused with status {ended.code}: {shlex.join(argv)}")
        return None


@pytest.fixture(autouse=True)
def hydra_as_it_was() -> Iterator[None]:
    """Lets no test after these find a job's configuration in Hydra."""
    instance = HydraConfig.instance()
    before = instance.cfg
    yield
    instance.cfg = before


def composed(name: str, argv: list[str], folder: Path) -> Any:
    """The configuration as the job will have it."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3", job_name=name):
        cfg = compose(name, argv, return_hydra_config=True)
    with open_dict(cfg.hydra):
        cfg.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(cfg)
    task = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    OmegaConf.resolve(task)
    return task


def built_or_refused(cfg: Any) -> bool:
    """Whether the Trainer can be built; where an object of others cannot, the command ends with status 2."""
    from project.commands.train.run import trainer_of

    try:
        return bool(trainer_of(cfg, 0.0, None))
    except SystemExit as ended:
        if ended.code != 2:
            raise
        return False


def fuzz(few: int, name: str, body: Callable[[list[str]], None]) -> None:
    """Calls `body` with as many lists of overrides as were asked for."""

    def noted(drawn: list[str]) -> None:
        note(shlex.join(["python", f"project/{name}.py", *drawn]))
        body(drawn)

    settled(few)(given(overrides(name))(noted))()


def is_of_a_job(argv: list[str]) -> bool:
    """True but for what Hydra itself would do something else with: a sweep."""
    return not any(override.lstrip("+~").startswith(("hydra", "sweep")) for override in argv)


def is_built(drawn: list[str], tmp_path: Path) -> bool:
    """Whether training is accepted with these overrides, whereupon all that a run is made of can be built."""
    from hydra.utils import instantiate

    from project.spec.sections import model_of, without_hydra_keys
    from project.training.module import MoEModule
    from project.training.optimizer import OptimizerConfig

    argv = outcome(TRAIN, [*SMALL, *drawn, f"hydra.run.dir={tmp_path}"])
    if argv is None or not is_of_a_job(drawn):
        return False
    cfg = composed("train", argv, tmp_path)
    if not built_or_refused(cfg):
        return False
    data = instantiate(cfg.data, _convert_="all")
    MoEModule(
        model_of(cfg.model), OptimizerConfig(**without_hydra_keys(cfg.training)), cfg.seed, cfg.data.seq_len, None
    )
    if "data" not in " ".join(drawn):
        data.prepare()
    return True


def test_every_config_of_training_is_refused_or_can_be_built(few: int, tmp_path: Path) -> None:
    accepted: list[list[str]] = []

    def body(drawn: list[str]) -> None:
        if is_built(drawn, tmp_path):
            accepted.append(drawn)

    fuzz(few, "train", body)
    assert accepted, "some are sound"
    for drawn in accepted[:: max(1, len(accepted) // max(1, few // 100))] if few >= 100 else ():
        done = run_command(*SMALL, *drawn, f"hydra.run.dir={tmp_path / 'run'}", "resume=null", status=None)
        assert done.returncode == 0, f"{shlex.join(drawn)}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("change", ["~{}", "{}=null"])
def test_every_key_of_training_may_be_left_out_or_is_asked_for(change: str, few: int, tmp_path: Path) -> None:
    asked = keys("train")
    chosen = asked if few >= 100 else random.Random(0).sample(asked, few)
    built = [key for key in chosen if is_built([change.format(key)], tmp_path)]
    assert built or few < 100, "some may be"


def test_every_config_of_a_plan_is_refused_or_makes_one(few: int, tmp_path: Path) -> None:
    made: list[list[str]] = []

    def body(drawn: list[str]) -> None:
        argv = outcome(PLAN, ["model=tiny", *drawn, f"hydra.run.dir={tmp_path}"])
        if argv is None or not is_of_a_job(drawn) or any("calibrate" in one or "compare" in one for one in drawn):
            return
        plan_of(OmegaConf.to_container(composed("plan", argv, tmp_path)))  # type: ignore[arg-type]
        made.append(drawn)

    fuzz(max(few // 2, 1), "plan", body)
    assert made or few < 100, "of a hundred some are sound"


def test_every_config_of_generation_is_refused_or_can_be_built(few: int, tmp_path: Path, a_run: Run) -> None:
    from project.commands.generate.run import build_trainer, generator_of

    accepted: list[list[str]] = []

    def body(drawn: list[str]) -> None:
        argv = outcome(GENERATE, [f"checkpoint={a_run.folder}", "prompt=x", "max_new_tokens=2", *drawn])
        if argv is not None and is_of_a_job(drawn) and "checkpoint" not in " ".join(drawn):
            cfg = composed("generate", argv, tmp_path)
            build_trainer(cfg)
            generator_of(cfg)
            accepted.append(drawn)

    fuzz(max(few // 4, 1), "generate", body)
    assert accepted or few < 100, "some are sound"


@pytest.mark.parametrize("main", [convert.main, report.main], ids=["convert", "report"])
def test_every_argument_of_the_other_commands_is_refused(
    main: Callable[[], None], few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "config.yaml").write_text("[]")
    words = ["to_hf", "from_hf", str(tmp_path), str(tmp_path / "nowhere"), "/dev/null", "", "-x", "--help", "--dtype"]
    monkeypatch.chdir(tmp_path)

    def body(argv: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", ["command", *argv])
        note(shlex.join(argv))
        try:
            main()
        except SystemExit as ended:
            if ended.code not in (0, 1, 2) and not isinstance(ended.code, str):
                pytest.fail(f"status {ended.code}")

    arguments = st.lists(st.one_of(st.sampled_from(words), st.text(max_size=8)), max_size=4)
    settled(few)(given(arguments)(body))()
