"""`python project/generate.py` and its faults, which are reported before anything starts."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from project.command_line.check import check
from project.command_line.composition import compose_or_explain
from project.command_line.verbatim import verbatim
from project.commands.generate.command import GENERATE
from project.configs import CONFIGS
from project.generation.prompt import Prompt
from tests.harness.a_run import Run
from tests.harness.command import run
from tests.harness.paths import ROOT


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def complain(*overrides: str) -> str:
        with pytest.raises(SystemExit) as ended:
            check(overrides, GENERATE, {}, gpus=lambda: 0)
        assert ended.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    return complain


def test_a_run_continues_a_prompt_on_four_ranks(a_run: Run, tmp_path: Path) -> None:
    (checkpoint,) = (a_run.folder / "checkpoints").glob("step=*.ckpt")
    asked = [f"checkpoint={checkpoint}", "prompt=def f(x): ", "temperature=0", "max_new_tokens=4", "samples=2"]
    command = [sys.executable, str(ROOT / "project/generate.py"), "parallel=tp2_ep2_pp2", "trainer.accelerator=cpu"]
    done = run(*asked, command=command, cwd=tmp_path)
    first, _, second = done.stdout.partition(f"\n{'-' * 40}\n")
    assert first == second.removesuffix("\n")
    assert first.startswith("def f(x): ")
    assert first != "def f(x): "
    assert list(tmp_path.iterdir()) == []


def test_generate_py_lists_all_faults_at_once(a_run: Run, complaint: Callable[..., str]) -> None:
    said = complaint(f"checkpoint={a_run.folder}", "temperature=-1", "top_k=0", "samples=0", "trainer.precision=8")
    assert "the config has 4 faults" in said
    assert "temperature=-1: must be a number, 0 or more" in said
    assert "trainer.precision=8: is not known" in said


def test_generating_from_a_path_without_a_checkpoint_is_refused(complaint: Callable[..., str], tmp_path: Path) -> None:
    assert "checkpoint=???: must be given: a run's folder, a checkpoint, or a Hugging Face folder" in complaint()
    assert f"checkpoint={tmp_path}: {tmp_path}: is no checkpoint" in complaint(f"checkpoint={tmp_path}")
    (tmp_path / "checkpoints").mkdir()
    assert "has no whole checkpoint yet" in complaint(f"checkpoint={tmp_path}")


def test_generating_more_tokens_than_the_model_has_positions_is_refused(
    a_run: Run, complaint: Callable[..., str]
) -> None:
    said = complaint(f"checkpoint={a_run.folder}", "prompt='def f'", "max_new_tokens=64")
    assert "max_new_tokens=64: is too many: the prompt has" in said
    assert "and the model 64 positions" in said


def test_generating_under_a_layout_that_the_model_does_not_divide_into_is_refused(
    a_run: Run, complaint: Callable[..., str]
) -> None:
    said = complaint(f"checkpoint={a_run.folder}", "parallel.tp=3", "parallel.pp=4")
    assert "parallel.tp=3: does not divide" in said
    assert "parallel.pp=4: makes 4 stages" in said


def test_generating_without_a_tokenizer_is_refused(saved_by_transformers: Path, complaint: Callable[..., str]) -> None:
    said = complaint(f"checkpoint={saved_by_transformers}")
    assert f"tokenizer=null: {saved_by_transformers} has none" in said


@pytest.mark.parametrize(
    "text", ["def ", "42", "a,b", "f(x): [1, {2}]", "it's", "back\\", "\\'", "${x}", "#", "", "é\n\t"]
)
def test_a_prompt_reaches_the_model_as_the_shell_gave_it(text: str) -> None:
    argv = verbatim([f"prompt={text}", "checkpoint=a/step=1.ckpt", "seed=1"], texts=["prompt"], paths=["checkpoint"])
    composed = compose_or_explain(CONFIGS, "generate", argv)
    assert composed.faults == []
    assert OmegaConf.select(composed.cfg, "prompt") == text
    assert OmegaConf.select(composed.cfg, "checkpoint") == "a/step=1.ckpt"


def test_generated_text_ends_at_the_end_of_text_token(a_run: Run) -> None:
    prompt = Prompt(a_run.folder / "tokenizer.json", "def f")
    more = prompt.tokenizer.encode("(x)").ids
    assert prompt.continued([*more, prompt.end, *more]) == "def f(x)"
    assert Prompt(a_run.folder / "tokenizer.json", "").tokens == [prompt.end]
