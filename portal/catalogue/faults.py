"""What is wrong with a catalogue document, and the checks that several kinds share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Fault:
    """What is wrong, and where in the document."""

    path: Path
    message: str

    @property
    def field(self) -> str:
        text = ""
        for part in self.path:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
        return text or "(document)"


def quantities(document: Mapping[str, Any], *at: str | int, **parsers: Callable[[str], int]) -> Iterator[Fault]:
    """Fields that hold no quantity, or one of nothing. `parsers`: field -> what reads it; `at`: where the document stands."""
    for field, parse in parsers.items():
        if field in document:
            try:
                if parse(str(document[field])) <= 0:
                    yield Fault((*at, field), "must be more than nothing")
            except ValueError as error:
                yield Fault((*at, field), str(error))
