"""Hydra and W&B do what `project.compat` relies on; each message says which of our features would go wrong."""

import json

import pytest
from hydra import compose, initialize_config_dir

from project.compat import hydra_internals, wandb_internals
from project.configs import CONFIGS


def test_hydra_s_command_line_is_read_as_hydra_reads_it() -> None:
    parsed = hydra_internals.command_line_parser().parse_args(["-m", "--config-name", "train", "a=1", "+b=2"])
    assert (parsed.multirun, parsed.config_name, parsed.overrides) == (True, "train", ["a=1", "+b=2"]), (
        "a command line would not be checked before Hydra sees it"
    )
    flags = {"help", "hydra_help", "cfg", "info", "shell_completion", "experimental_rerun", "config_dir", "config_path"}
    assert flags <= set(vars(parsed)), "commands that ask for no run would be checked like runs"


def test_hydra_s_own_sweeper_is_known_by_its_configuration() -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        hydra = compose("train", return_hydra_config=True).hydra
    assert not hydra_internals.optimizes(hydra), "a sweep that lists its jobs would be asked for an objective"
    hydra.sweeper._target_ = "somebody.Sweeper"
    assert hydra_internals.optimizes(hydra)


def test_a_workspace_is_json_without_a_server() -> None:
    workspaces = pytest.importorskip("wandb_workspaces.workspaces", reason="needs the extra `dashboard`")
    workspace = workspaces.Workspace(entity="e", project="p", sections=[workspaces.Section(name="losses")])
    text = wandb_internals.workspace_json(workspace)
    sections = json.loads(text)["section"]["panelBankConfig"]["sections"]
    assert "losses" in [section["name"] for section in sections], "dashboard.py --print would print nothing"
