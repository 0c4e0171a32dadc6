"""An override that Hydra cannot apply is explained, and the others are checked as if it had been spelt right."""

from collections.abc import Callable
from pathlib import Path

import pytest

from project.command_line.check import check
from project.command_line.command import register_resolvers
from project.command_line.composition import compose_or_explain
from project.command_line.misspelling import keys_of
from project.command_line.other_names import INSTEAD, RENAMED
from project.commands.plan.command import PLAN
from project.configs import CONFIGS

# Each row is one command; each of its lines is one complaint.
CASES = {
    "parallel.tpp=4 parallel.foo=4 data.files=[x] hydra.nope=3 seed=3=4": [
        "parallel.tpp=4: there is no such key; nearest parallel.tp",
        "parallel.foo=4: there is no such key; parallel has dp, dp_mode, ep, etp, microbatches",
        "data.files=[x]: there is no such key, but data=text has it",
        "hydra.nope=3: there is no such key",
        "seed=3=4: cannot be read",
    ],
    "tp=4 paralel.pp=2 ~parallel.mikrobatches modle=tiny": [
        "tp=4: there is no such key; nearest parallel.tp",
        "paralel.pp=2: there is no such key; nearest parallel.pp",
        "~parallel.mikrobatches: there is no such key; nearest parallel.microbatches",
        "modle=tiny: there is no such key; nearest model",
    ],
    "+experiment=nope model=huge data=txet logger=3 training= debug=nope trainer=null": [
        "+experiment=nope: there is no such choice; legal: ",
        "model=huge: there is no such choice; legal: llama3_8b, mixtral_8x22b",
        "data=txet: there is no such choice; legal: hf, stdlib, synthetic, text; nearest text",
        "logger=3: there is no such choice; legal: csv, wandb",
        "training: there is no such choice",
        "debug=nope: there is no such choice; legal: ",  # Hydra itself lets this pass
        "trainer=null: there is no such choice",
    ],
    "experiment=tp4_ep4_pp4 +model=tiny +seed=3 parallel.tp=1,2": [
        "experiment=tp4_ep4_pp4: adds a choice; write it with a plus, +experiment=tp4_ep4_pp4",
        "+model=tiny: replaces a choice; write it without a plus, model=tiny",
        "+seed=3: exists already; write it without a plus, seed=3",
        "parallel.tp=1,2: several values make a sweep, which needs -m",
    ],
    "parallel.tp=[1 parallel.pp": ["parallel.tp=[1: cannot be read", "parallel.pp: is not of the form key=value"],
    "lr=1e-3 model.optimizer.lr=1 ckpt_path=x.ckpt optimizer=adam hparams_search=optuna trainer.devices=4": [
        "lr=1e-3: there is no such key; nearest training.learning_rate",
        "model.optimizer.lr=1: there is no such key; nearest training.learning_rate",
        "ckpt_path=x.ckpt: there is no such key; nearest resume",
        "optimizer=adam: there is no such key: the section training is the optimizer and its schedule",
        "hparams_search=optuna: there is no such key: a search is a sweep: +sweep=optuna",
        "trainer.devices=4: there is no such key: it follows from parallel.pp x parallel.dp x parallel.tp",
    ],
    "hydra.run.dir=null": ["hydra.run.dir=null: field"],
    "--config-name=trian": ["--config-name=trian: cannot be composed: Cannot find primary config 'trian'"],
}


@pytest.mark.parametrize("command", CASES)
def test_an_override_that_does_not_apply_is_explained(command: str, complaint: Callable[..., str]) -> None:
    said = complaint(*command.split())
    for words in CASES[command]:
        assert words in said


def test_a_misspelt_override_s_other_keys_are_checked_as_meant(complaint: Callable[..., str]) -> None:
    said = complaint("parallel.tpp=3", "experiment=tp4_ep4_pp4")
    assert "parallel.tp=3: does not divide" in said
    assert "parallel.ep=4: ep x etp = 4 does not divide parallel.dp x parallel.tp = 3" in said


def test_keys_that_rest_on_an_unknown_choice_are_not_checked(complaint: Callable[..., str]) -> None:
    said = complaint("model=huge", "model.nope=3", "parallel.tp=3", "trainer.precision=fp8")
    assert "the config has 2 faults" in said
    assert "trainer.precision=fp8" in said


def test_an_experiment_that_is_unknown_may_have_changed_any_key(complaint: Callable[..., str]) -> None:
    said = complaint("+experiment=zzz", "parallel.ep=4", "parallel.recompute=ful")
    assert "the config has 2 faults" in said
    assert "parallel.recompute=ful" in said


def test_every_choice_of_a_sweep_is_composed(complaint: Callable[..., str], tmp_path) -> None:  # type: ignore[no-untyped-def]
    said = complaint("-m", f"hydra.sweep.dir={tmp_path}", "model=tiny,hug", "parallel.tpp=1,2", "seed=range(300)")
    assert "model=hug: there is no such choice" in said
    assert "parallel.tpp=1: there is no such key" in said


def test_a_space_before_an_equals_sign_is_named_and_no_parser_is(complaint: Callable[..., str]) -> None:
    said = complaint("trainer.max_steps = 5", "seed =a b", "parallel.tp={")
    assert "trainer.max_steps = 5: has a space before its equals sign; write trainer.max_steps=5" in said
    assert "seed =a b: has a space before its equals sign; write seed='a b'" in said
    assert "Exception" not in said


def test_a_key_that_the_start_fills_in_cannot_be_removed(complaint: Callable[..., str]) -> None:
    said = complaint("~logger.run_folder")
    assert "~logger.run_folder: cannot be removed, for its value ${hydra:runtime.output_dir} is filled in" in said
    assert "HydraConfig" not in said


def test_a_choice_that_nobody_typed_has_no_faults(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The nearest cluster has fewer GPUs than the layout needs, and nobody asked for it."""
    with pytest.raises(SystemExit):
        check(["cluster=h100", "parallel=tp4_ep4_pp4", f"hydra.run.dir={tmp_path}"], PLAN, {})
    said = capsys.readouterr().err
    assert "the config has 1 fault" in said
    assert "nearest h200" in " ".join(said.split())


def test_every_key_of_another_name_is_a_key_here() -> None:
    register_resolvers()
    known = keys_of(compose_or_explain(CONFIGS, "train", []).cfg)
    assert set(RENAMED.values()) <= set(known)
    assert not (RENAMED.keys() | INSTEAD.keys()) & set(known), "what is a key here needs no other name"
