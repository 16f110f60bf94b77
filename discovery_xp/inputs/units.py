"""Quantities as people write them, to numbers whose names carry the unit.

Each `parse_*` takes what YAML gave (usually a string) and returns a number, or
raises `QuantityError` with the reason and a remedy.  A bare number is refused:
`delay: 10` has been read as seconds, milliseconds and microseconds by
different tools.
"""

from __future__ import annotations

import math
import re

from discovery_xp.text import short

_NUMBER_AND_UNIT = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*([A-Za-z%]*)\s*", re.ASCII)
# No number of use is longer, and what is longer takes its time to be looked at.
_LONGEST = 60

# Times of a load, which may be long; durations of links are in milliseconds.
TIME_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
# tc's decimal units: 1kbit is 1000 bits a second.
_RATE_MBIT = {"kbit": 0.001, "mbit": 1.0, "gbit": 1000.0}
_SIZE_BYTES = {
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}

MIN_MEMORY_BYTES = 32 * 2**20
MAX_MEMORY_BYTES = 2**44
MAX_DELAY_MS = 60_000.0
MAX_RATE_MBIT = 100_000.0


class QuantityError(ValueError):
    """A quantity that can't be read: `reason` and `remedy`, both without a full stop."""

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{reason}; {remedy}")


def _parse(value: object, units: dict[str, float], example_unit: str, quantity: str) -> float:
    names = ", ".join(units)
    is_scalar = isinstance(value, str | int | float) and not isinstance(value, bool)
    text = str(value) if is_scalar else short(value)
    match = _NUMBER_AND_UNIT.fullmatch(text) if is_scalar and len(text) <= _LONGEST else None
    text = short(text)
    if match is None:
        raise QuantityError(f"'{text}' is not a {quantity}", f"write a number and one of {names}")
    number, unit = float(match[1]), match[2]
    if not unit:
        raise QuantityError(f"'{text}' has no unit", f"write '{text.strip()}{example_unit}'")
    if unit.lower() not in units:
        raise QuantityError(f"'{text}' has the unknown unit '{unit}'", f"write one of {names}")
    if number < 0:
        raise QuantityError(f"'{text}' is negative", f"write a {quantity} of zero or more")
    return number * units[unit.lower()]


def parse_duration_ms(value: object) -> float:
    """'10ms', '0.5s' or '200us' to milliseconds."""
    duration_ms = _parse(value, _DURATION_MS, "ms", "duration")
    if duration_ms > MAX_DELAY_MS:
        raise QuantityError(f"'{value}' is over a minute", "write at most '60s'")
    return duration_ms


def parse_time_s(value: object) -> float:
    """'500ms', '30s', '5min' or '1h' to seconds."""
    return _parse(value, TIME_S, "s", "time")


def parse_rate_mbit(value: object) -> float:
    """'1gbit', '100mbit' or '64kbit' to Mbit/s (decimal, as tc counts)."""
    rate_mbit = _parse(value, _RATE_MBIT, "mbit", "rate")
    if rate_mbit == 0:
        raise QuantityError(f"'{value}' lets nothing through", "leave 'rate' out for no limit")
    if rate_mbit > MAX_RATE_MBIT:
        raise QuantityError(f"'{value}' is over 100gbit", "leave 'rate' out for no limit")
    if not math.isclose(rate_mbit * 1000, round(rate_mbit * 1000)):
        raise QuantityError(f"'{value}' is finer than 1kbit", "write whole kbit")
    return rate_mbit


def parse_percent(value: object) -> float:
    """'0.1%' to 0.1; between 0 and 100."""
    percent = _parse(value, {"%": 1.0}, "%", "percentage")
    if percent > 100:
        raise QuantityError(f"'{value}' is over 100%", "write at most '100%'")
    return percent


def parse_loss_percent(value: object) -> float:
    """'0.1%' to 0.1; a link that loses everything isn't a link."""
    percent = parse_percent(value)
    if percent >= 100:
        raise QuantityError(f"'{value}' loses every packet", "write less than '100%'")
    return percent


def parse_memory_bytes(value: object) -> int:
    """'512MiB' or '1GB' to bytes; at least what a host needs to boot."""
    size_bytes = round(_parse(value, dict(_SIZE_BYTES), "MiB", "size"))
    if size_bytes < MIN_MEMORY_BYTES:
        raise QuantityError(f"'{value}' is too small for a host", "write at least '32MiB'")
    if size_bytes > MAX_MEMORY_BYTES:
        raise QuantityError(f"'{value}' is over 16 TiB", "write at most '16384GiB'")
    return size_bytes


def format_ms(duration_ms: float) -> str:
    """Milliseconds as tc writes them: '10ms', '2.5ms'."""
    return f"{_trim(duration_ms)}ms"


def format_rate(rate_mbit: float) -> str:
    """Mbit/s in whole kbit as tc takes them: '1000000kbit', or '1gbit' where it is even."""
    for unit, factor in (("gbit", 1000.0), ("mbit", 1.0)):
        if rate_mbit / factor >= 1 and math.isclose(rate_mbit % factor, 0, abs_tol=1e-9):
            return f"{round(rate_mbit / factor)}{unit}"
    return f"{max(1, round(rate_mbit * 1000))}kbit"


def format_percent(percent: float) -> str:
    """0.1 to '0.1%'."""
    return f"{_trim(percent)}%"


def format_bytes(size_bytes: float) -> str:
    """Bytes for people: '1.6 GiB'."""
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"


def _trim(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")
