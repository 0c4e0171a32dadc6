"""metrics.csv, row by row."""

import math

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
