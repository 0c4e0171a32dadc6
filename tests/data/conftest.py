"""Small corpora that are quick to prepare."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from project.data.datamodule import TokenDataModule
from project.data.text import TextCorpus

WORDS = ["the", "expert", "router", "sends", "every", "token", "to", "two", "of", "four", "experts", "and", "weighs"]


def prose(seed: int, words: int) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(WORDS) + rng.choice("   \n") for _ in range(words))


@pytest.fixture
def text_files(tmp_path: Path) -> Path:
    """A folder of 60 documents of about 1,000 characters each."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02}.txt").write_text(f"document {number}\n{prose(number, 180)}", encoding="utf-8")
    return folder


@pytest.fixture
def make_datamodule(tmp_path: Path, text_files: Path) -> Callable[..., TokenDataModule]:
    def make(**options: object) -> TokenDataModule:
        defaults = {"seq_len": 16, "batch_size": 4, "vocab_size": 300, "cache_dir": str(tmp_path / "cache")}
        return TokenDataModule(TextCorpus(str(text_files / "*.txt")), **(defaults | options))  # type: ignore[arg-type]

    return make
