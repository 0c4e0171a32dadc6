"""The waits and copies that a run may have: `allowed.csv`, one row for each event with the most that a rank of any case
has. It may only shrink: an event that is not in it, or occurs more often, is a fault, and so is a row that nothing
reaches any more."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.gpu_check.event import Event

TABLE = Path(__file__).with_name("allowed.csv")
Counts = Mapping[Event, int]


def read(table: Path = TABLE) -> dict[Event, int]:
    with table.open() as file:
        return {Event(what, place, how): int(most) for what, place, how, most in list(csv.reader(file))[1:]}


def write(allowed: Counts, table: Path = TABLE) -> None:
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*Event._fields, "most"])
        writer.writerows([*event, most] for event, most in sorted(allowed.items()))


def most(counts: Iterable[Counts]) -> Counter[Event]:
    """The largest count of each event."""
    largest: Counter[Event] = Counter()
    for each in counts:
        largest |= Counter(each)
    return largest


def beyond(seen: Counts, allowed: Counts) -> list[str]:
    """A line for each event that is not allowed so often."""
    return [
        f"{event.what} in {event.place} ({event.how}): {count} times, allowed {allowed.get(event, 0)}"
        for event, count in sorted(seen.items())
        if count > allowed.get(event, 0)
    ]


def lowered(seen: Counts, allowed: Counts) -> dict[Event, int]:
    """The table after all cases were seen."""
    return {event: min(count, seen[event]) for event, count in allowed.items() if event in seen}
