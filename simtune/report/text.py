# SPDX-License-Identifier: Apache-2.0
"""Numbers and dates as people read them, and text that is safe to put into a page or a figure."""

from __future__ import annotations

import datetime
import html
import math
import re

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))

#: Short units: a count of instructions or lines needs no unit beside its heading.
SYMBOLS = {"s": "s", "J": "J", "bytes": "B"}

# What XML 1.0 forbids; error tails of crashed tools do hold such characters.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def clean(text: object) -> str:
    """Text without characters that neither HTML nor SVG may hold."""
    return _FORBIDDEN.sub("\ufffd", str(text))


def escape(text: object) -> str:
    """Text for HTML, in elements and in quoted attributes."""
    return html.escape(clean(text))


def quantity(value: float | None, unit: str = "", digits: int = 3) -> str:
    """A number with a metric prefix and its unit, such as ``1.23 ms`` or ``45.6 M``."""
    if value is None or not math.isfinite(value):
        return "–"
    symbol = SYMBOLS.get(unit, "")
    size = abs(value)
    if size == 0:
        return f"0 {symbol}".rstrip()
    # Only physical units have milli and micro; a count of 0.5 stays 0.5.
    scales = _PREFIXES + _SMALL if symbol in ("s", "J") else _PREFIXES
    for scale, prefix in scales:  # noqa: B007  # both are those of the last round
        # Rounding first, so that 999.9 us is 1 ms and not 1e+03 us.
        if float(f"{size:.{digits}g}") >= scale:
            break
    scaled = value / scale
    # The "g" format would write 123456 as 1.23e+05; beyond peta that is what is wanted.
    number = f"{scaled:.{digits}g}"
    return f"{number} {prefix}{symbol}".rstrip()


def percent(part: float, whole: float) -> str:
    """A share, such as ``12 %``; small ones as ``<1 %``."""
    if not whole:
        return "–"
    share = 100 * part / whole
    return "<1 %" if 0 < share < 1 else f"{share:.0f} %"


def ratio(value: float | None) -> str:
    """A factor, such as ``2.31×``."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}×" if value >= 100 else f"{value:.3g}×"


def moment(seconds: float) -> str:
    """A point in time in local time, with its zone."""
    try:
        when = datetime.datetime.fromtimestamp(seconds, datetime.UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return "unknown"
    return when.strftime("%Y-%m-%d %H:%M %Z").strip()


def duration(seconds: float) -> str:
    """A span such as ``48 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if seconds < 60:
        return quantity(seconds, "s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
