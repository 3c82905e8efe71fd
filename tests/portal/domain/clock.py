"""A clock that tests set. What time does to quota cannot be waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

HOUR = 3600


class Clock:
    """Says what time it is until it is moved on."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> datetime:
        self.now += timedelta(**span)
        return self.now


@contextmanager
def clock_at(*moment: int) -> Iterator[Clock]:
    """Stop the clock of the domain at this moment in UTC."""
    clock = Clock(datetime(*moment, tzinfo=UTC))  # type: ignore[misc,arg-type]
    with patch("django.utils.timezone.now", clock):
        yield clock
