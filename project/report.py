"""Remake a folder's report.html: `python project/report.py RUN_OR_SWEEP_FOLDER`."""

import argparse
from pathlib import Path

from project.report.run_page import write_run_page


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes report.html into the folder of a run or of a sweep.")
    parser.add_argument("folder", type=Path, help="the folder of a run, or of a sweep with its jobs' folders in it")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        parser.error(f"{folder} is no folder")
    print(write_run_page(folder))


if __name__ == "__main__":
    main()
