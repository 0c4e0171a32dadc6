"""The known bugs that `make mutations` puts in: each finds the code that it changes."""

import pytest

from tests.harness.paths import ROOT
from tests.parity.mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.bug)
def test_the_code_that_a_known_bug_changes_stands_once(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.sound) == 1


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.bug)
def test_the_tests_that_may_notice_a_known_bug_are_there(mutation: Mutation) -> None:
    for test in mutation.tests:
        assert test.startswith("-") or (ROOT / test.partition("::")[0]).exists()
