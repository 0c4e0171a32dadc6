from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.harness.ranks import RankPools, rank_pools

if TYPE_CHECKING:
    from tests.harness.a_run import Run

if TYPE_CHECKING:
    from tests.harness.case import Case

# `make parity` asks for many more random cases than `make test`.
settings.register_profile("parity", max_examples=500)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-cases", type=int, default=71, help="how many cases the parity matrix has")
    parser.addoption("--fuzz-configs", type=int, default=20, help="how many configurations of training are drawn")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "index" in metafunc.fixturenames:
        metafunc.parametrize("index", range(metafunc.config.getoption("parity_cases")))


@pytest.fixture
def case(index: int, request: pytest.FixtureRequest) -> Case:
    """Each case of the parity matrix."""
    from tests.parity import matrix

    chosen = matrix.case(matrix.matrix(request.config.getoption("parity_cases"))[index])
    print(chosen)  # shown with a failure
    return chosen


@pytest.fixture(scope="session")
def ranks() -> Iterator[RankPools]:
    with rank_pools() as pools:
        yield pools


@pytest.fixture(scope="session")
def saved_by_transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with `transformers`' own initial weights, in several files."""
    from tests.harness.of_transformers import saved_model  # which imports transformers

    return saved_model(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="session")
def a_run(tmp_path_factory: pytest.TempPathFactory, ranks: RankPools) -> Run:
    """Two steps on four ranks, with a checkpoint and a tokenizer."""
    from tests.harness.a_run import train

    return train(tmp_path_factory.mktemp("run"), ranks)


@pytest.fixture(scope="session")
def exported(a_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's weights in a folder that `transformers` opens."""
    from tests.harness.a_run import export

    return export(a_run, tmp_path_factory.mktemp("exported") / "hf")


@pytest.fixture(scope="session")
def run_folder(ranks: RankPools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run's folder, written by the callbacks themselves."""
    from tests.harness.reported_run import CASE, CONFIG, write_run_folder

    folder = tmp_path_factory.mktemp("report") / "tp2_ep2_pp2"
    folder.mkdir()
    ranks.run(CASE.layout.world_size, write_run_folder, str(folder))
    (folder / "config.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="session")
def planned_folder(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a plan."""
    from tests.harness.reported_run import write_plan

    folder = shutil.copytree(run_folder, tmp_path_factory.mktemp("planned") / "run")
    write_plan(folder)
    return folder
