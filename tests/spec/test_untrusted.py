"""A stranger's file is read only where it lies in the stranger's folder, and what it says is text."""

from pathlib import Path

import pytest

from project.spec.fault import plain
from project.spec.untrusted import Unreadable, read_json, read_yaml, regular


def test_links_inside_a_folder_are_followed_and_links_out_of_it_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a.json").write_text("{}")
    (folder / "b.json").symlink_to("a.json")
    (tmp_path / "secret.json").write_text("{}")
    (folder / "c.json").symlink_to("../secret.json")
    assert read_json(folder / "b.json", folder) == {}
    with pytest.raises(Unreadable, match="is a link out of its folder"):
        read_json(folder / "c.json", folder)


def test_a_snapshot_of_the_hub_s_cache_may_link_to_its_own_blobs_alone(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--x/snapshots/0a1b", tmp_path / "models--x/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "f00").write_text("{}")
    (tmp_path / "models--x/secret").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/f00")
    (snapshot / "other.json").symlink_to("../../secret")
    assert read_json(snapshot / "config.json", snapshot) == {}
    with pytest.raises(Unreadable, match="is a link out of its folder"):
        regular(snapshot / "other.json", snapshot)


def test_a_file_larger_than_may_be_read_is_refused_by_its_size(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_text(" " * 1000)
    with pytest.raises(Unreadable, match="has 1000 bytes; at most 999 are read"):
        read_json(tmp_path / "large.json", largest=999)


def test_an_interpolation_in_yaml_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: ${oc.env:HOME}\nb: 1e-3\nc: 2024-01-01\nd: 1.0e-05\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": "${oc.env:HOME}", "b": 1e-3, "c": "2024-01-01", "d": 1e-5}


@pytest.mark.parametrize(("text", "shown"), [("\x1b[2J", "\\x1b[2J"), ("a\rb", "a\\rb"), ("\x9b\x07", "\\x9b\\x07")])
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert plain("a\tb\nc é 漢") == "a\tb\nc é 漢"
