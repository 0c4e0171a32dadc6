"""`--help` leaves no key out and says the words that the check knows."""

import dataclasses
from typing import get_args, get_type_hints

import pytest

from project.command_line.command import Command
from project.command_line.help import MODEL, PARALLEL, command_help, key_help
from project.commands.generate.command import GENERATE
from project.commands.plan.command import PLAN
from project.commands.train.command import TRAIN
from project.configs import CONFIGS
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.schedules.table import SCHEDULES

SECTIONS = [(PARALLEL, ParallelLayout), (MODEL, ModelConfig)]


@pytest.mark.parametrize(("rows", "section"), SECTIONS)
def test_help_has_a_row_for_every_key_in_the_order_of_the_fields(rows: dict, section: type) -> None:
    assert list(rows) == [field.name for field in dataclasses.fields(section)]


@pytest.mark.parametrize(("rows", "section"), SECTIONS)
def test_help_lists_every_legal_word_of_a_key(rows: dict, section: type) -> None:
    for key, hint in get_type_hints(section).items():
        words = [word for word in get_args(hint) if isinstance(word, str)]
        assert all(word in rows[key][0].split(", ") for word in words)


def test_every_schedule_has_a_line_with_what_it_asks() -> None:
    lines = [line.split("  ") for line in key_help().splitlines()]
    for name, schedule in SCHEDULES.items():
        (line,) = [line for line in lines if line[1:2] == [name]]
        assert f"{schedule.stages_a_rank or '1 or more'} stage" in " ".join(line)
        assert schedule.words.split()[0] in " ".join(line)
        assert len(schedule.words) <= 38


@pytest.mark.parametrize("command", [TRAIN, PLAN, GENERATE], ids=lambda command: command.name)
def test_help_explains_the_groups_within_a_screen(command: Command) -> None:
    lines = command_help(command).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 32
    assert f"python project/{command.name}.py" in command_help(command)


def test_help_explains_every_group_of_training() -> None:
    folders = {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}
    assert folders - {"claims", "cluster"} == set(TRAIN.groups)  # those are plan.py's


def test_help_fits_a_terminal() -> None:
    lines = key_help().splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 60
