"""metrics.csv, row by row."""

import math

import pytest

from project.observe.metrics_file import MetricsFile, read_rows


def test_every_row_of_metrics_csv_is_on_disk_as_soon_as_it_is_written(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        file.write(step, {"loss": 1 / step})
        assert read_rows(file.path)[-1] == {"step": str(step), "loss": repr(1 / step)}


def test_a_new_column_of_metrics_csv_leaves_earlier_rows_empty(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.write(1, {"loss": 3.0})
    file.write(2, {"loss": 2.0})
    file.write(2, {"val/loss": 2.5})
    file.write(3, {"loss": 1.0})
    assert file.path.read_text() == "step,loss,val/loss\n1,3.0,\n2,2.0,2.5\n3,1.0,\n"


def test_a_known_column_of_metrics_csv_is_filled_in_place(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.write(1, {"loss": 3.0, "val/loss": 9.0})
    file.write(2, {"loss": 2.0})
    file.write(2, {"val/loss": 2.5})
    file.write(2, {"val/loss": 2.0625})
    file.write(2, {"val/loss": 2.5})
    assert file.path.read_text() == "step,loss,val/loss\n1,3.0,9.0\n2,2.0,2.5\n"


def test_metrics_csv_of_a_resumed_run_goes_on_from_its_step(tmp_path):
    first = MetricsFile(tmp_path / "metrics.csv")
    for step in (1, 2, 3, 4):
        first.write(step, {"loss": float(step)})
    resumed = MetricsFile(first.path)
    resumed.write(3, {"loss": 30.0, "extra": 1.0})
    assert resumed.path.read_text() == "step,loss,extra\n1,1.0,\n2,2.0,\n3,30.0,1.0\n"


def test_metrics_csv_holds_nan_and_infinity(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.write(1, {"loss": math.nan, "norm": math.inf})
    assert file.path.read_text() == "step,loss,norm\n1,nan,inf\n"


def test_writing_metrics_csv_leaves_no_other_file(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.write(1, {"loss": 1.0})
    file.write(2, {"norm": 1.0})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


WHOLE = b"step,loss\n1,3.0\n2,2.0\n"


@pytest.mark.parametrize(
    "torn",
    [
        WHOLE + b"3,1.",
        WHOLE + b"3,1.0,7,8\n",
        WHOLE + b"3\n",
        WHOLE + b"\0\0\0\0\0\0",
        WHOLE + b"\0\0\0,\0\0\n",
        WHOLE + b"3,\xff\xfe\n",
        WHOLE + b"loss,3\n",
        WHOLE + b"-3,1.0\n",
        WHOLE + b'3,"1.0\n',
        b"step,loss\n1,3.0\n\0\0\0\0\0\0\n2,2.0\n",
    ],
)
def test_a_torn_metrics_csv_loses_what_is_torn_with_a_warning_and_a_run_goes_on(tmp_path, torn):
    path = tmp_path / "metrics.csv"
    path.write_bytes(torn)
    with pytest.warns(UserWarning, match="metrics.csv: 1 lines that are no rows are left out"):
        assert read_rows(path) == [{"step": "1", "loss": "3.0"}, {"step": "2", "loss": "2.0"}]
    with pytest.warns(UserWarning, match="left out"):
        MetricsFile(path).write(3, {"loss": 1.0})
    assert path.read_bytes() == WHOLE + b"3,1.0\n"


@pytest.mark.parametrize("torn", [b"\0" * 64, b"st", b"a,b\n1,2\n"])
def test_a_metrics_csv_without_a_header_of_ours_has_no_rows(tmp_path, torn):
    path = tmp_path / "metrics.csv"
    path.write_bytes(torn)
    with pytest.warns(UserWarning, match="left out"):
        assert read_rows(path) == []
    with pytest.warns(UserWarning, match="left out"):
        MetricsFile(path).write(1, {"loss": 1.0})
    assert path.read_bytes() == b"step,loss\n1,1.0\n"


def test_a_whole_metrics_csv_is_read_without_a_warning(tmp_path, recwarn):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,loss\n1,nan\n2,\n3,1e-05\n")
    assert [row["loss"] for row in read_rows(path)] == ["nan", "", "1e-05"]
    path.write_bytes(b"")
    assert read_rows(path) == []
    assert not recwarn.list
