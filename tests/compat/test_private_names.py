"""Private names of torch, Lightning, Hydra and wandb stand in `project/compat` alone."""

from pathlib import Path

import pytest

import project
from tests.compat.private_names import Use, foreign_private_names, module_of

# Names that must stand in a class of ours, where the package looks for them. Each has a test in this folder.
ELSEWHERE = {
    # `ParallelStyle` asks its subclasses for this method; `parallelize_module` calls it.
    "Channels._apply",
    "Columns._apply",
    "DispatchOverRanks._apply",
    "ReplicatedWeights._apply",
    "Rows._apply",
    "ShardedExperts._apply",
    "SummedOverRanks._apply",
    "VocabularyColumns._apply",
    "VocabularyRows._apply",
    "WholeSequence._apply",
    # The attribute behind `Strategy.precision_plugin`, which the Trainer reads before it chooses a precision.
    "HybridParallelStrategy: self._precision_plugin",
}


@pytest.fixture(scope="module")
def uses() -> list[Use]:
    return foreign_private_names(Path(project.__file__).parent)


def test_they_stand_in_compat_alone(uses: list[Use]) -> None:
    stray = [use for use in uses if not use.module.startswith("project.compat.") and use.name not in ELSEWHERE]
    listed = "\n".join(f"  {use.module}, line {use.line}: {use.name}" for use in stray)
    assert not stray, f"put each behind a function in project/compat, or use a public name:\n{listed}"


def test_the_exceptions_are_all_in_use(uses: list[Use]) -> None:
    assert {use.name for use in uses} >= ELSEWHERE


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose name no other test imports."""
    folder = tmp_path / f"strays_of_{tmp_path.name.replace('-', '_')}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from torch._ops import OpOverload", ["torch._ops.OpOverload"]),
        ("import torch._inductor.config", ["torch._inductor.config"]),
        ("def f(trainer):\n    return trainer._results", ["trainer._results"]),
        ("import torch\nclass A(torch.nn.Module):\n    def _apply(self, f): ...", ["A._apply"]),
        ("import torch\nclass A(torch.nn.Module):\n    def f(self):\n        self._buffers = 1", ["A: self._buffers"]),
        ("class A:\n    def _own(self):\n        return self._own()", []),
        ("from collections import namedtuple\nprint(namedtuple('A', 'b')(1)._asdict())", []),
        ("from json import _default_decoder", []),
    ],
)
def test_each_kind_is_found(package: Path, text: str, found: list[str]) -> None:
    (package / "stray.py").write_text(text)
    uses = foreign_private_names(package)
    assert [use.name for use in uses] == found
    assert {use.module for use in uses} <= {module_of(package / "stray.py", package)}
