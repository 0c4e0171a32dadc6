"""Numbers in words: the same units and digits on the terminal, in documents, in tables and on the pages."""

UNITS = {
    "B": (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1)),
    "s": (("s", 1), ("ms", 1e-3), ("us", 1e-6)),
    "FLOP": (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("FLOP", 1)),
}
"""The units in which bytes, seconds and operations are said, the largest first. All are decimal, as data sheets and
strategy documents have them."""


def number(value: float | None, unit: str) -> str:
    """A value in its unit, scaled to three digits: 54.6 MB, 12.3 ms; `-` for None."""
    if value is None:
        return "-"
    if unit in UNITS:
        return _scaled(value, UNITS[unit])
    if unit == "tokens/s":
        return f"{value:,.0f} tokens/s"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    if value == 0:
        return f"0 {units[-1][0] if units[-1][1] == 1 else units[0][0]}"
    rounds_up = 0.9995  # to 1 of the next larger unit
    name, size = next(((name, size) for name, size in units if abs(value) >= rounds_up * size), units[-1])
    return f"{value / size:.3g} {name}" if abs(value) < 999.5 * size else f"{value / size:,.0f} {name}"
