"""docs/architecture.md: what it names exists, and it leaves no room out."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")))
PAGE = (ROOT / "docs/architecture.md").read_text()
PATHS = sorted(set(re.findall(r"`((?:[\w.]+/)+(?:[\w.]+)?|\w+\.py)`", PAGE)))
OF_A_RUN = {"plan.json", "plan.md", "metrics.csv", "last.ckpt"}


def rooms() -> set[str]:
    """Folders and modules of `project/`, but for the scripts."""
    found = {
        path.stem for path in (ROOT / "project").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    return found - {"__init__"}


def drawn() -> list[set[str]]:
    """The picture's lines as sets of rooms, from the top."""
    (picture,) = re.findall(r"## The rooms\n.*?```\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for line in picture.splitlines() if not line.startswith("-")]
    return [set(re.split(r"   +", line)[0].split()) for line in lines]


def layers() -> list[set[str]]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (order,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return [{room.strip().removeprefix("project.") for room in layer.split(":")} for layer in order]


@pytest.mark.parametrize("path", [path for path in PATHS if path not in OF_A_RUN])
def test_the_architecture_page_names_only_what_exists(path: str) -> None:
    assert any((folder / path).exists() for folder in (ROOT, ROOT / "project")), path


def test_the_architecture_s_picture_is_the_import_contract() -> None:
    assert drawn() == layers()


def test_every_room_is_in_the_architecture_s_picture() -> None:
    assert rooms() - set().union(*drawn()) <= {"report"}


def test_every_room_has_its_paragraph_in_the_architecture() -> None:
    headings = " ".join(re.findall(r"^### (.*)$", PAGE, re.MULTILINE))
    scripts = {"train", "plan", "generate", "convert", "dashboard"}
    assert {room for room in rooms() - scripts if not re.search(rf"\b{room}\b", headings)} == set()


def test_every_folder_of_the_repository_is_in_the_tree() -> None:
    (tree,) = re.findall(r"## Around the project\n\n```\n(.*?)```", PAGE, re.DOTALL)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {path.partition("/")[0] for path in tracked if "/" in path and path[0] != "."}
    assert {line.partition("/")[0] for line in tree.splitlines()} == folders - {"project"}


@pytest.mark.parametrize("page", PAGES)
def test_links_between_documents_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, heading = target.partition("#")
        place = ((ROOT / page).parent / file) if file else ROOT / page
        assert place.exists(), f"{page} links to {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
