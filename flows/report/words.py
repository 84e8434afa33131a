"""Numbers as people read them: counts, sizes, durations, shares."""

from __future__ import annotations


def count(number: int) -> str:
    """Return a whole number with a comma between thousands."""
    return f"{number:,}"


def short(number: float) -> str:
    """Return a number in three figures: 999, 12.4 k, 3.10 M, 2 G."""
    return _scaled(number, ("", " k", " M", " G", " T"))


def size(number: int) -> str:
    """Return a size in decimal units: 999 B, 12.4 kB, 3.10 MB."""
    return _scaled(number, (" B", " kB", " MB", " GB", " TB"))


def _scaled(number: float, units: tuple[str, ...]) -> str:
    scaled, unit = float(number), units[0]
    for unit in units:
        # 999.5 would round to "1000": it belongs to the next unit.
        if abs(scaled) < 999.5 or unit == units[-1]:
            break
        scaled /= 1000
    if unit == units[0]:
        return f"{scaled:.0f}{unit}"
    return f"{scaled:.{0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2}f}{unit}"


def duration(seconds: float) -> str:
    """Return a time span in two units at most: 8.2 s, 3 min 05 s, 2 h 10 min, 4 d 06 h."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def share(part: float, whole: float) -> str:
    """Return a share in percent; a non-zero one is never shown as 0 %, nor one below the whole as 100 %."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %" if 0 < percent < 100 else f"{percent:.0f} %"
