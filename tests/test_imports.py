"""Which rooms know which, held by import-linter's contracts in `pyproject.toml`; and no circle of modules anywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

from tests.harness.paths import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
BELOW_THE_WALL = next(one for one in CONTRACTS if one["name"] == "facts know no torch, no Lightning and no Hydra")


def circles(graph: grimp.ImportGraph) -> set[frozenset[str]]:
    """The strongly connected components of several modules (Tarjan). Imports for type checking count."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        path.append(module)
        for imported in graph.find_modules_directly_imported_by(module):
            if imported not in order:
                visit(imported)
            if imported in path:
                lowest[module] = min(lowest[module], lowest[imported])
        if lowest[module] == order[module]:
            circle = path[path.index(module) :]
            del path[path.index(module) :]
            if len(circle) > 1:
                found.add(frozenset(circle))

    for module in sorted(graph.modules):
        if module not in order:
            visit(module)
    return found


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("project", cache_dir=None)


def test_a_circle_of_imports_is_found() -> None:
    graph = grimp.ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e"), ("x", "a")):
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == {frozenset("abc")}


def test_no_modules_import_one_another_in_a_circle(graph: grimp.ImportGraph) -> None:
    assert [sorted(circle) for circle in circles(graph)] == []


def test_torch_in_any_room_below_the_wall_is_refused_by_the_linter(tmp_path: Path) -> None:
    """A copy of the code, in which a module of each of these rooms imports torch."""
    shutil.copytree(ROOT / "project", tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    spoilt = [_a_module(tmp_path / name.replace(".", "/")) for name in BELOW_THE_WALL["source_modules"]]
    for path in spoilt:
        path.write_text(f"{path.read_text(encoding='utf-8')}\nimport torch\n", encoding="utf-8")
    linter = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    ended = subprocess.run(linter, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1, ended.stderr
    for path in spoilt:
        module = ".".join(path.relative_to(tmp_path).with_suffix("").parts)
        assert f"{module} -> torch" in ended.stdout


def _a_module(place: Path) -> Path:
    """The module, or the deepest and last of a room."""
    module = place.with_suffix(".py")
    return max(place.rglob("[!_]*.py"), key=lambda path: (len(path.parts), path)) if place.is_dir() else module
