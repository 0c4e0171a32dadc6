"""docs/extend.md: every file on the page is written as it stands there, and every command is run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import dense_gpt
from tests.harness.paths import ROOT

PAGE = (ROOT / "docs/extend.md").read_text()
FILES = dict(re.findall(r"`((?:mine|project)/[\w./]+)`(?:[^`\n]*):\n\n```\w+\n(.*?)```", PAGE, flags=re.DOTALL))
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)\n```", PAGE, flags=re.DOTALL) for line in block.splitlines()]
RECORD = "project/spec/schedules/ahead.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's root as a reader has it who followed the page: with `mine/` in it."""
    root = tmp_path_factory.mktemp("extend")
    for name in ("project", "configs"):
        (root / name).symlink_to(ROOT / name)
    for name in FILES.keys() - {RECORD}:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(FILES[name])
    shutil.copyfile(Path(dense_gpt.__file__), root / "mine/gpt.py")
    return root


@pytest.fixture(scope="module")
def changed_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the record of the page in its table of schedules."""
    root = tmp_path_factory.mktemp("record")
    for name in ("project", "configs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / RECORD).write_text(FILES[RECORD])
    table = root / "project/spec/schedules/table.py"
    text = table.read_text()
    imported = "from project.spec.schedules.ahead import AHEAD\nfrom project.spec.schedules."
    text = text.replace("from project.spec.schedules.", imported, 1).replace(
        "        GPIPE,\n", "        GPIPE,\n        AHEAD,\n"
    )
    assert text.count("AHEAD") == 2
    table.write_text(text)
    return root


def run(command: str, folder: Path) -> str:
    """Runs a line of the page in a shell, with this Python and the folder's project, and returns what it printed."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = command.replace("python ", f"{sys.executable} ", 1)
    done = subprocess.run(command, cwd=folder, env=environment, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def command_with(*words: str) -> str:
    (found,) = [command for command in COMMANDS if all(word in command for word in words)]
    return found


def run_folder(printed: str, folder: Path) -> Path:
    return folder / re.findall(r"run folder: (\S+)", printed)[-1]


def test_the_extension_page_has_a_file_for_each_thing_it_adds() -> None:
    assert set(FILES) == {
        "mine/train_gpt.py",
        "mine/ahead.csv",
        RECORD,
        "mine/configs/cluster/ours.yaml",
        "mine/claims.yaml",
        "mine/stop_below.py",
        "mine/configs/experiment/wide.yaml",
    }


def test_the_model_of_ones_own_is_the_tested_one_word_for_word() -> None:
    (code,) = re.findall(r"```python\n(class GPTModule.*?)```", PAGE, re.DOTALL)
    assert code in Path(dense_gpt.__file__).read_text()


def test_the_model_of_ones_own_trains_on_four_ranks(folder: Path) -> None:
    assert re.search(r"\nloss \d\.\d\d\n", run(command_with("train_gpt.py"), folder))


def test_the_schedule_of_ones_own_is_planned_with_what_it_holds_in_flight(folder: Path) -> None:
    printed = run(command_with("plan.py", "ahead.csv"), folder)
    plan = json.loads((run_folder(printed, folder) / "plan.json").read_text())
    assert "mine/ahead.csv" in printed
    assert plan["quantities"]["activation_bytes"]["how"].startswith("pp 0: 3 microbatches of stage 0 in flight")


def test_the_schedule_in_the_table_is_planned_with_what_it_holds_in_flight(changed_project: Path) -> None:
    printed = run(command_with("plan.py", "Ahead1F1B"), changed_project)
    plan = json.loads((run_folder(printed, changed_project) / "plan.json").read_text())
    assert plan["quantities"]["activation_bytes"]["how"].startswith("pp 0: 3 microbatches of stage 0 in flight")
    assert plan["quantities"]["bubble_closed_form"]["value"] == pytest.approx(0.2)


def test_the_schedule_in_the_table_trains_to_the_loss_of_the_file_s(folder: Path, changed_project: Path) -> None:
    """Both run the same actions."""
    commands = {folder: command_with("train.py", "ahead.csv"), changed_project: command_with("train.py", "Ahead1F1B")}
    summaries = []
    for root, command in commands.items():
        summaries.append(json.loads((run_folder(run(command, root), root) / "summary.json").read_text()))
    assert [(summary["status"], summary["steps"]) for summary in summaries] == [("completed", 2)] * 2
    assert summaries[0]["train_loss_last"] == summaries[1]["train_loss_last"]


def test_the_cluster_of_ones_own_is_what_the_plan_is_on(folder: Path) -> None:
    (command,) = [one for one in COMMANDS if one.endswith("cluster=ours")]
    plan = json.loads((run_folder(run(command, folder), folder) / "plan.json").read_text())
    assert plan["cluster"] == "ours"
    assert plan["quantities"]["gpus_available"]["value"] == 32


def test_the_cluster_of_ones_own_is_searched_by_its_price(folder: Path) -> None:
    printed = run(command_with("cluster=ours", "search=true"), folder)
    assert json.loads((run_folder(printed, folder) / "search.json").read_text())["best"]


def test_the_claims_of_ones_own_are_checked(folder: Path) -> None:
    printed = run(command_with("document=mine/claims.yaml"), folder)
    plan = json.loads((run_folder(printed, folder) / "plan.json").read_text())
    assert [claim["verdict"] for claim in plan["claims"]] == ["holds", "holds", "holds"]


def test_the_callback_of_ones_own_ends_the_run(folder: Path) -> None:
    printed = run(command_with("callbacks.stop_below"), folder)
    summary = json.loads((run_folder(printed, folder) / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("completed", 1)


def test_the_experiment_of_ones_own_is_planned(folder: Path) -> None:
    assert "d_ff 256" in run(command_with("+experiment=wide"), folder)


def test_every_command_of_the_extension_page_is_run_by_a_test() -> None:
    assert len(COMMANDS) == 10
