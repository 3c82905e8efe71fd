"""How much quota an environment takes while it is wanted running."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from ..shape import RoleShape, total


def running_amounts(shapes: Sequence[RoleShape], granted: timedelta | None) -> dict[str, int]:
    """Quota resources and amounts of an environment of these shapes that may run for `granted` (None: without end)."""
    return total(tuple(shapes))
