"""Objects of others that a configuration names are built before the data are prepared; one that cannot be, or has no
effect under the strategy, ends the command with status 2 and its key."""

from pathlib import Path

import pytest

from project.commands.train.run import trainer_of
from tests.fuzz.test_configs import SMALL, composed, hydra_as_it_was  # noqa: F401 - a fixture

LIGHTNING = "lightning.pytorch.callbacks"
CASES = {
    f"+callbacks.a={{_target_:{LIGHTNING}.EarlyStopping,monitor:val/loss,mode:up}}": "callbacks.a=_target_: cannot be",
    f"+callbacks.a={{_target_:{LIGHTNING}.Timer,duration:x}}": "callbacks.a=_target_: cannot be built",
    f"+callbacks.a={{_target_:{LIGHTNING}.Callback,_args_:[1]}}": "callbacks.a=_target_: cannot be built",
    f"+callbacks.a={{_target_:{LIGHTNING}.Callback,_partial_:true}}": "is no Callback of Lightning's",
    "+callbacks.a={_target_:os.getcwd}": "is no Callback of Lightning's",
    "+callbacks.a={_target_:datetime.timedelta}": "is no Callback of Lightning's",
    "+trainer.profiler={_target_:datetime.timedelta,days:1}": "is no Profiler of Lightning's",
    f"+callbacks.a={{_target_:{LIGHTNING}.StochasticWeightAveraging,swa_lrs:0.1}}": "StochasticWeightAveraging: it",
    f"+callbacks.a={{_target_:{LIGHTNING}.LearningRateFinder}}": "LearningRateFinder: it saves and restores",
}


@pytest.mark.usefixtures("hydra_as_it_was")
@pytest.mark.parametrize("override", CASES)
def test_an_object_that_cannot_serve_is_refused_by_its_key(
    override: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        trainer_of(composed("train", [*SMALL, override], tmp_path), 0.0, None)
    assert ended.value.code == 2
    assert CASES[override] in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("hydra_as_it_was")
def test_a_sound_callback_of_others_is_built(tmp_path: Path) -> None:
    override = f"+callbacks.a={{_target_:{LIGHTNING}.EarlyStopping,monitor:val/loss}}"
    assert trainer_of(composed("train", [*SMALL, override], tmp_path), 0.0, None).callbacks  # type: ignore[attr-defined]
