"""`--help` leaves no key out and says the words that the check knows."""

import dataclasses
from typing import get_args, get_type_hints

import pytest

from project.command_line.key_help import MODEL, PARALLEL, key_help
from project.model.config import ModelConfig
from project.parallel.layout import SCHEDULES, ParallelLayout

SECTIONS = [(PARALLEL, ParallelLayout), (MODEL, ModelConfig)]


@pytest.mark.parametrize(("rows", "section"), SECTIONS)
def test_every_key_has_a_row_in_the_order_of_the_fields(rows: dict, section: type) -> None:
    assert list(rows) == [field.name for field in dataclasses.fields(section)]


@pytest.mark.parametrize(("rows", "section"), SECTIONS)
def test_a_row_says_every_word_that_is_legal(rows: dict, section: type) -> None:
    for key, hint in get_type_hints(section).items():
        words = SCHEDULES if key == "schedule" else [word for word in get_args(hint) if isinstance(word, str)]
        assert all(word in rows[key][0].split(", ") for word in words)


def test_it_fits_a_terminal() -> None:
    lines = key_help().splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 60
