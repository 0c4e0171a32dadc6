from __future__ import annotations

import pytest

from tests.gpu_check.runs import Runs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pretend-gpus", action="store_true", help="train on GPUs that are not there")
    parser.addoption("--lower-table", action="store_true", help="write what all cases have left into allowed.csv")


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    if not request.config.getoption("--pretend-gpus", default=False):
        pytest.skip("needs a CUDA build of torch in an environment of its own: make gpu-check")
    return Runs(tmp_path_factory.mktemp("pretended"))
