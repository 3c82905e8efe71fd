"""What the measurements share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Row:
    """One line of the table; all times in seconds."""

    what: str
    ours: list[float]
    peer: list[float] = field(default_factory=list)
    goal: str = ""


def timed(act: Callable[[], Any]) -> float:
    """Seconds that `act` took."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
