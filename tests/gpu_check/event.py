"""What is noted about a pretended device."""

from typing import NamedTuple


class Event(NamedTuple):
    """`what` is "wait" (the host waits for the device) or "copy" (between the two), `place` is FILE:FUNCTION, `how` the
    operator or the call."""

    what: str
    place: str
    how: str
