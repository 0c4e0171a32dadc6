import pytest


@pytest.fixture
def few(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--fuzz-configs"))
