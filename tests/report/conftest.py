"""A real run's folder, written once a session by the callbacks themselves, and one browser for all pages."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.browser import Browser, installed
from tests.harness.ranks import RankPools
from tests.harness.reported_run import CASE, CONFIG, write_run_folder


@pytest.fixture(scope="session")
def run_folder(ranks: RankPools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "tp2_ep2_pp2"
    folder.mkdir()
    ranks.run(CASE.layout.world_size, write_run_folder, str(folder))
    (folder / "config.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not installed():
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    profile = tempfile.mkdtemp()
    browser = Browser(profile)
    yield browser
    browser.close()
    shutil.rmtree(profile, ignore_errors=True)
