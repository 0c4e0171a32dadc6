from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.ranks import RankPools, rank_pools

# `make parity` asks for many more random cases than `make test`.
settings.register_profile("parity", max_examples=500)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-cases", type=int, default=64, help="how many cases the parity matrix has")


@pytest.fixture(scope="session")
def ranks() -> Iterator[RankPools]:
    with rank_pools() as pools:
        yield pools


@pytest.fixture(scope="session")
def saved_by_transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with `transformers`' own initial weights, in several files."""
    from tests.weights.mixtral import saved_mixtral  # which imports transformers

    return saved_mixtral(tmp_path_factory.mktemp("theirs"))
