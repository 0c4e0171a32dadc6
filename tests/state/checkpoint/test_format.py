"""The format on the disk, which torch's reader opens too."""

import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint import HuggingFaceStorageReader

from project.state.checkpoint.reader import Checkpoint
from project.state.checkpoint.values import dumps, loads
from tests.harness.checkpoint_files import WHOLE, write_checkpoint


def test_torch_s_reader_finds_the_same_tensors_in_a_checkpoint_s_files(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "step=3.ckpt")
    theirs = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    assert theirs.keys() == WHOLE.keys()
    for name, tensor in WHOLE.items():
        assert theirs[name].size == tensor.shape
        assert theirs[name].properties.dtype == tensor.dtype
        ours = Checkpoint(folder).stored(name).chunks.values()
        assert {(*c.offsets, *c.sizes) for c in theirs[name].chunks} == {(*c.offsets, *c.sizes) for c in ours}


def test_a_slice_of_a_tensor_is_read_across_chunks(tmp_path: Path) -> None:
    checkpoint = Checkpoint(write_checkpoint(tmp_path / "step=3.ckpt"))
    for name, slices in {
        "layers.0.wq.weight": (slice(1, 3), slice(2, 5)),
        "layers.0.moe.experts.w1": (slice(1, 4), slice(None), slice(-2, None)),
        "norm.weight": (slice(2, 2),),
    }.items():
        assert checkpoint.read(name, slices).equal(WHOLE[name][slices])


def test_a_new_checkpoint_takes_the_place_of_one_of_its_name(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "step=3.ckpt")
    (folder / "of the older one").touch()
    write_checkpoint(folder, token="1")
    assert not (folder / "of the older one").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["step=3.ckpt"]


STATE = {
    "numbers": [1, -2.5, math.inf, True, None, 2**70],
    "names": {"a": {"nested": ("tuple", ("of", 1))}, 3: "whole number as key", ("x", 1): "tuple as key", "!": "tag"},
    "tensors": [torch.tensor(float("nan")), torch.arange(6, dtype=torch.int16).reshape(2, 3), torch.empty(0, 3)],
    "half": torch.ones(3, dtype=torch.bfloat16),
    "array": np.arange(5, dtype=np.uint32),
    "path": Path("a/b"),
}


def test_checkpointed_state_comes_back_with_its_types() -> None:
    back = loads(dumps(STATE))
    assert back["numbers"] == STATE["numbers"]
    assert back["names"] == STATE["names"]
    assert back["path"] == STATE["path"]
    assert np.array_equal(back["array"], STATE["array"])
    assert back["array"].dtype == np.uint32
    for one, other in zip((*back["tensors"], back["half"]), (*STATE["tensors"], STATE["half"]), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert torch.equal(one.nan_to_num(), other.nan_to_num())


def test_checkpointed_state_that_json_cannot_hold_is_named() -> None:
    with pytest.raises(TypeError, match=r"callbacks\.Mine\.things\[1\] is a object"):
        dumps({"callbacks": OrderedDict(Mine={"things": [1, object()]})})
