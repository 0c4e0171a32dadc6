"""The default corpus is there on every machine, and is prose rather than tests."""

from __future__ import annotations

from project.data.stdlib import StdlibCorpus


def test_it_is_hundreds_of_modules() -> None:
    corpus = StdlibCorpus()
    assert len(corpus.files) > 400
    assert corpus.size_bytes() > 6e6


def test_it_leaves_out_tests_and_installed_packages() -> None:
    folders = {folder for name in StdlibCorpus().files for folder in name.split("/")[:-1]}
    assert "asyncio" in folders
    assert not folders & {"site-packages", "test", "tests", "encodings"}


def test_its_order_is_that_of_names() -> None:
    names = [document.id for document in StdlibCorpus().documents()]
    assert names == sorted(names)
