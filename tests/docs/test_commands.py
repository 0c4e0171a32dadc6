"""Every command in README.md and in docs/ is one that the commands accept: no key, choice or option has another name.

A command is composed and checked as when it is typed, and nothing is run. Words in capitals stand for something of the
reader's (`RUN_FOLDER`, `NAME`): what is at fault with such a value is not the page's.
"""

import importlib
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness.paths import ROOT

PAGES = ("README.md", "docs/recipes.md", "docs/architecture.md", "docs/glossary.md", "CONTRIBUTING.md")
COMPOSED = ("train", "plan", "generate")
PARSED = ("report", "convert")  # dashboard's one argument is tried by tests/test_wandb.py
COMMAND = re.compile(r"python project/(\w+)\.py ?(.*)")
PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]+\b")
TYPED = re.compile(r"`{1,3}(?:sh\n)?((?:[A-Z]+=\S+ )?(?:python|torchrun|srun) [^`]+)`")


def commands(page: str) -> list[str]:
    """What the page gives to type, each without what starts it (torchrun, srun)."""
    found = [line for block in TYPED.findall((ROOT / page).read_text()) for line in block.splitlines()]
    return [re.sub(r"^.*?(?:python )?(?=project/\w+\.py)", "python ", line).strip() for line in found]


ALL = [(page, line) for page in PAGES if (ROOT / page).exists() for line in commands(page)]


def of(*names: str) -> list:
    chosen = [(page, line) for page, line in ALL if (found := COMMAND.match(line)) and found[1] in names]
    return [pytest.param(line, id=f"{page}: {line}") for page, line in dict.fromkeys(chosen)]


def open_keys(words: list[str]) -> set[str]:
    """The keys whose values the reader fills in."""
    pairs = (word.lstrip("+~").partition("=") for word in words)
    return {key for key, _, value in pairs if PLACEHOLDER.search(value) or re.search(r"\*|\.jsonl", value)}


@pytest.fixture
def complaint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., str]:
    """What a command says before it ends with status 2; nothing if it would have been run."""

    def typed(name: str, words: list[str]) -> str:
        started: list[str] = []
        (tmp_path / "FOLDER").mkdir()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"project/{name}.py", *words])
        if any(word.startswith("trainer.num_nodes=") for word in words):  # which a launcher starts on each node
            for variable, value in {"NODE_RANK": "0", "MASTER_ADDR": "HOST", "MASTER_PORT": "29500"}.items():
                monkeypatch.setenv(variable, value)
        command = importlib.import_module(f"project.{name}")
        monkeypatch.setattr(command, "run", lambda: started.append(name))
        with suppress(SystemExit):
            command.main()
        said = capsys.readouterr().err
        assert started or said.startswith("Nothing was started"), said
        return "" if started else said

    return typed


@pytest.mark.parametrize("line", of(*COMPOSED))
def test_every_composed_command_in_the_documents_is_legal(line: str, complaint: Callable[..., str]) -> None:
    name, rest = COMMAND.match(line).groups()
    words = shlex.split(rest)
    if said := complaint(name, words):
        at_fault = set(re.findall(r"^  (\S+?)=", said, re.MULTILINE))
        assert at_fault, said
        assert at_fault <= open_keys(words), said


def test_a_renamed_key_in_a_documented_command_is_noticed(complaint: Callable[..., str]) -> None:
    said = complaint("train", ["parallel.recomputed=full", "resume=RUN_FOLDER"])
    assert re.findall(r"^  (\S+?)=", said, re.MULTILINE) == ["parallel.recomputed", "resume"]


@pytest.mark.parametrize("line", of(*PARSED))
def test_the_arguments_of_every_other_command_in_the_documents_are_understood(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    name, rest = COMMAND.match(line).groups()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"project/{name}.py", *shlex.split(rest)])
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FOLDER/summary.json").write_text("{}")
    try:
        runpy.run_path(str(ROOT / f"project/{name}.py"), run_name="__main__")
    except SystemExit:
        assert "usage:" not in capsys.readouterr().err


def test_every_document_s_commands_are_found() -> None:
    assert len(of(*COMPOSED)) > 30
    assert len(of(*PARSED)) == 3
    assert all(COMMAND.match(line) for _, line in ALL)
