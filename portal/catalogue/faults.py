"""What is wrong with a catalogue document, and the checks that several kinds share."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
Known = Mapping[str, Collection[str]]  # kind -> slugs that documents may name


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


def unfit(value: Any, path: Path = (), within: tuple[int, ...] = ()) -> Iterator[Fault]:
    """What YAML can say and JSON cannot: dates, keys that are no text, numbers without a value, a list that holds itself."""
    if isinstance(value, Mapping | list):
        if id(value) in within:
            yield Fault(path, "holds itself")
            return
        within = (*within, id(value))
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str):
                yield from unfit(item, (*path, key), within)
            else:
                yield Fault(path, f"the key {key!r} is not text; put it in quotes")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from unfit(item, (*path, index), within)
    elif isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, f"{value} is not a number that can be kept")
    elif isinstance(value, str) and ("\x00" in value or any("\ud800" <= letter <= "\udfff" for letter in value)):
        yield Fault(path, "holds a NUL character or broken Unicode")
    elif value is not None and not isinstance(value, str | int | float | bool):
        yield Fault(path, f"{value} is a {type(value).__name__}; put it in quotes to make it text")
