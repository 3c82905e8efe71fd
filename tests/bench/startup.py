"""`make up`: time to ready, on a first run and when resuming."""

from __future__ import annotations

from pathlib import Path

from tests.stack import Stack

from .common import Row


def measure(folder: Path, runs: int) -> list[Row]:
    first, again = [], []
    for number in range(max(2, runs // 2)):
        stack = Stack(folder / str(number) / "var")
        try:
            first.append(stack.start())
            stack.interrupt()
            again.append(stack.start())
        finally:
            stack.stop()
    return [Row("make up to ready, first run", first, goal="15 s"), Row("make up to ready, resumed", again, goal="15 s")]
