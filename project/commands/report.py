"""`project/report.py`: writes the report of a run's or a sweep's folder once more."""

import argparse
from pathlib import Path

from project.command_line.standard_streams import open_standard_streams
from project.report.run_page import write_run_page
from project.report.sweep_page import write_sweep_page
from project.spec.disk import NotWritten
from project.spec.fault import plain
from project.spec.untrusted import Unreadable

OF_A_RUN = ("summary.json", "metrics.csv", "trace.json", "plan.json")
OF_A_SWEEP = "sweep.json"


def main() -> None:
    open_standard_streams()
    parser = argparse.ArgumentParser(
        description="Writes report.html into the folder of a run, or of a sweep, from what is there by now."
    )
    parser.add_argument("folder", type=Path, help="of a run, or of a sweep with its jobs' folders in it")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        parser.error(f"{folder} is no folder; give that of a run or of a sweep")
    if (folder / OF_A_SWEEP).exists():
        write = write_sweep_page
    elif any((folder / name).exists() for name in OF_A_RUN):
        write = write_run_page
    else:
        parser.error(f"{folder} has nothing of a run ({', '.join(OF_A_RUN)}) nor of a sweep ({OF_A_SWEEP})")
    try:
        print(write(folder))
    except (Unreadable, NotWritten) as error:
        parser.exit(2, f"Nothing was written. {plain(str(error))}\n")
