"""Remake a folder's report.html: `python project/report.py RUN_OR_SWEEP_FOLDER`."""

import argparse
from pathlib import Path

from project.report.run_page import write_run_page
from project.report.sweep_page import write_sweep_page
from project.sweep.jobs import jobs, write_sweep

OF_A_RUN = ("summary.json", "metrics.csv", "trace.json", "plan.json")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Writes report.html into the folder of a run, or of a sweep, from what is there by now."
    )
    parser.add_argument("folder", type=Path, help="of a run, or of a sweep with its jobs' folders in it")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        parser.error(f"{folder} is no folder; give that of a run or of a sweep")
    if any((folder / name).exists() for name in OF_A_RUN):
        print(write_run_page(folder))
    elif found := jobs(folder):
        write_sweep(folder, found)
        print(write_sweep_page(folder))
    else:
        parser.error(f"{folder} holds no run ({', '.join(OF_A_RUN)}) and no jobs of a sweep")


if __name__ == "__main__":
    main()
