"""Remake a folder's report.html: `python project/report.py RUN_OR_SWEEP_FOLDER`."""

from project.commands.report import main

if __name__ == "__main__":
    main()
