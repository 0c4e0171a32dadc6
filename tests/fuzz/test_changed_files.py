"""Files of a stranger's folder in which a value or two were changed: each is refused by its name, or can be used."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, note
from hypothesis import strategies as st

from project.configs import CONFIGS
from project.data.tokenizer import tokenizer_faults, train_tokenizer
from project.generation.prompt import Prompt
from project.planner.document.claims import check, claim_faults, read_claims
from project.planner.document.quantities import Quantity
from project.planner.machine.cluster_file import CLUSTERS, ImpossibleCluster, load_cluster
from project.report.run_page import write_run_page
from project.run_folder import mark_failed
from project.spec.untrusted import Unreadable
from project.state.checkpoint.form import check_state
from project.state.checkpoint.manifest import CheckpointError
from project.state.checkpoint.reader import Checkpoint
from project.state.weights.source import open_weights
from project.state.weights.weights import WeightsError
from tests.harness.a_run import Run
from tests.harness.checkpoint_files import reseal
from tests.harness.draws import settled

ODD = [
    *(
        None,
        True,
        0,
        -1,
        2,
        3.5,
        1e300,
        10**30,
        2**63,
        "",
        "x",
        "NaN",
        "é",
        "\x1b[2J",
        "=1+1",
        "${oc.env:HOME}",
        "../x",
    ),
    *([], {}, [[]], {"a": 1}, [None], [1, 2, 3], "<script>alert(1)</script>"),
]
GONE = object()
Place = tuple[Any, ...]


def places(content: Any, here: Place = ()) -> Iterator[Place]:
    """The keys that lead to each value; of a list the first few."""
    inner = (
        content.items() if isinstance(content, dict) else enumerate(content[:3]) if isinstance(content, list) else ()
    )
    for key, value in inner:
        yield (*here, key)
        yield from places(value, (*here, key))


def changed(content: Any, place: Place, value: Any) -> Any:
    copy = json.loads(json.dumps(content))
    at = copy
    for key in place[:-1]:
        at = at[key]
    if value is GONE:
        del at[place[-1]]
    else:
        at[place[-1]] = value
    return copy


def each_change(few: int, file: Path, use: Callable[[], None], plain: Callable[[str], Any] = json.loads) -> None:
    """Calls `use` with as many changes of the file as were asked for."""
    content = plain(file.read_text())
    change = st.tuples(st.sampled_from(list(places(content))), st.sampled_from([*ODD, GONE]))

    def body(change: tuple[Place, Any]) -> None:
        note(f"{file.name}: {change}")
        file.write_text(json.dumps(changed(content, *change)))
        use()

    settled(few)(given(change)(body))()


@pytest.mark.parametrize("name", ["summary.json", "plan.json", "trace.json"])
def test_a_page_of_a_changed_run_folder_is_made_or_refused(
    name: str, few: int, planned_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(planned_folder, tmp_path / "run"))

    def use() -> None:
        try:
            page = write_run_page(folder).read_text()
        except Unreadable as error:
            assert error.path == folder / name  # noqa: PT017 - either is right
        else:
            assert "\x1b" not in page
            assert "<script>alert" not in page
        if name == "summary.json":
            mark_failed(folder, "over")

    each_change(few, folder / name, use)


@pytest.mark.parametrize("name", ["meta.json", "manifest.json", "rank-00001.json"])
def test_a_changed_checkpoint_is_read_or_refused(name: str, few: int, a_run: Run, tmp_path: Path) -> None:
    (made,) = (a_run.folder / "checkpoints").glob("step=*.ckpt")
    folder = Path(shutil.copytree(made, tmp_path / made.name))

    def use() -> None:
        if name != "manifest.json":
            reseal(folder)
        try:
            check_state(Checkpoint(folder))
        except CheckpointError as error:
            assert error.path.is_relative_to(folder)  # noqa: PT017 - either is right

    each_change(few, folder / name, use)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_changed_folder_of_weights_is_opened_or_refused(name: str, few: int, exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "hf"))

    def use() -> None:
        try:
            weights = open_weights(folder)
            weights.check_tensors()
        except WeightsError as error:
            assert error.reasons  # noqa: PT017 - either is right

    each_change(few, folder / name, use)


def test_a_changed_tokenizer_is_refused_or_opened(few: int, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    train_tokenizer(["to be or not"] * 50, 300).save(str(file))

    def use() -> None:
        if not list(tokenizer_faults(str(file), 300)):
            assert Prompt(file, "to be").length(1, 1) >= 1

    each_change(few, file, use)


def test_changed_claims_are_refused_or_checked(few: int, tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text((CONFIGS / "claims" / "reference_document.yaml").read_text())
    one = Quantity(1.0, "1", "derived", "by hand")
    quantities = {claim["quantity"]: one for claim in read_claims(file)}

    def use() -> None:
        faults = claim_faults("document", file, quantities)
        assert "\x1b" not in str(faults)
        if not faults:
            check(read_claims(file), quantities)

    each_change(few, file, use, yaml.safe_load)


def test_a_changed_cluster_is_refused_or_built(few: int, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text((CLUSTERS / "h100_8x.yaml").read_text())

    def use() -> None:
        try:
            load_cluster("mine", tmp_path)
        except (ImpossibleCluster, Unreadable) as error:
            assert str(error)  # noqa: PT017 - either is right

    each_change(few, file, use, yaml.safe_load)
