"""An override that Hydra cannot apply is explained, and the rest judged as what was meant."""

from collections.abc import Callable

import pytest

CASES = [
    (["parallel.tpp=4"], "parallel.tpp=4: there is no such key; nearest parallel.tp"),
    (["tp=4"], "tp=4: there is no such key; nearest parallel.tp"),
    (["paralel.pp=2"], "paralel.pp=2: there is no such key; nearest parallel.pp"),
    (["parallel.foo=4"], "parallel.foo=4: there is no such key; parallel has dp, ep, etp, microbatches, partition, pp"),
    (["~parallel.tpp"], "~parallel.tpp: there is no such key; nearest parallel.tp"),
    (["data.files=[x]"], "data.files=[x]: there is no such key, but data=text has it"),
    (["modle=tiny"], "modle=tiny: there is no such key; nearest model"),
    (["model=huge"], "model=huge: there is no such choice; legal: moe_8x4, small, tiny"),
    (["model=tyni"], "nearest tiny"),
    (["model=3"], "model=3: there is no such choice"),
    (["model="], "model: there is no such choice"),
    (["+experiment=nope"], "+experiment=nope: there is no such choice; legal: "),
    (["debug=nope"], "debug=nope: there is no such choice; legal: "),  # Hydra itself lets this pass
    (
        ["experiment=tp4_ep4_pp4"],
        "experiment=tp4_ep4_pp4: adds a choice; write it with a plus, +experiment=tp4_ep4_pp4",
    ),
    (["+model=tiny"], "+model=tiny: replaces a choice; write it without a plus, model=tiny"),
    (["+seed=3"], "+seed=3: exists already; write it without a plus, seed=3"),
    (["parallel.tp=1,2"], "parallel.tp=1,2: several values make a sweep, which needs -m"),
    (["parallel.tp=[1"], "parallel.tp=[1: cannot be read"),
    (["parallel.tp"], "parallel.tp: is not of the form key=value"),
    (["--config-name=trian"], "The config files cannot be composed: Cannot find primary config 'trian'"),
]


@pytest.mark.parametrize(("overrides", "words"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_an_override_that_does_not_apply_is_explained(
    overrides: list[str], words: str, complaint: Callable[..., str]
) -> None:
    assert words in complaint(*overrides)


def test_the_rest_is_judged_as_what_was_meant(complaint: Callable[..., str]) -> None:
    said = complaint("parallel.tpp=3", "experiment=tp4_ep4_pp4")
    assert "parallel.tp=3: does not divide" in said
    assert "parallel.ep=4: ep x etp = 4 does not divide parallel.dp x parallel.tp = 3" in said


def test_nothing_is_said_of_what_rests_on_an_unknown_choice(complaint: Callable[..., str]) -> None:
    said = complaint("model=huge", "model.nope=3", "parallel.tp=3", "trainer.precision=fp8")
    assert "the config has 2 faults" in said
    assert "trainer.precision=fp8" in said


def test_an_experiment_that_is_unknown_may_have_changed_any_key(complaint: Callable[..., str]) -> None:
    said = complaint("+experiment=zzz", "parallel.ep=4", "parallel.recompute=ful")
    assert "the config has 2 faults" in said
    assert "parallel.recompute=ful" in said


def test_every_value_of_a_sweep_is_composed(complaint: Callable[..., str], tmp_path) -> None:  # type: ignore[no-untyped-def]
    said = complaint("-m", f"hydra.sweep.dir={tmp_path}", "model=tiny,hug", "parallel.tpp=1,2", "seed=range(3)")
    assert "model=hug: there is no such choice" in said
    assert "parallel.tpp=2: there is no such key" in said
