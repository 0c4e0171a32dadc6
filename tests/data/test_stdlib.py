"""The standard library as a corpus, without its tests."""

from __future__ import annotations

from project.data.stdlib import StdlibCorpus


def test_the_stdlib_corpus_is_hundreds_of_modules() -> None:
    corpus = StdlibCorpus()
    assert len(corpus.files) > 400
    assert corpus.size_bytes() > 6e6


def test_the_stdlib_corpus_leaves_out_tests_and_installed_packages() -> None:
    folders = {folder for name in StdlibCorpus().files for folder in name.split("/")[:-1]}
    assert "asyncio" in folders
    assert not folders & {"site-packages", "test", "tests", "encodings"}


def test_the_stdlib_corpus_is_ordered_by_name() -> None:
    names = [document.id for document in StdlibCorpus().documents()]
    assert names == sorted(names)
