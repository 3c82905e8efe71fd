"""Spans of time as people write them: 90s, 30m, 8h, 2d, 1h30m. Pure."""

from __future__ import annotations

import re
from datetime import timedelta

_PATTERN = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """The span that `text` names. Raises ValueError with a message for people."""
    match = _PATTERN.fullmatch(text) if text else None
    if not match:
        raise ValueError(f"{text[:40]!r} is not a span of time such as 30m, 8h, 2d or 1h30m")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def format_duration(span: timedelta) -> str:
    """The shortest text that `parse_duration` reads back as `span` (whole seconds)."""
    rest = int(span.total_seconds())
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
