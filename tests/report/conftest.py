"""One browser for all pages."""

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.harness.browser import Browser, installed


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not installed():
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    profile = tempfile.mkdtemp()
    browser = Browser(profile)
    yield browser
    browser.close()
    shutil.rmtree(profile, ignore_errors=True)
