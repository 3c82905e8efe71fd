"""How much quota an environment takes while it is wanted running."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from ..models import Accelerator
from ..quantities import ACCELERATOR_SECONDS, ACCELERATORS, ENDLESS, accelerator_of, weight_thousandths, weighted_seconds
from ..shape import RoleShape, total


def running_amounts(shapes: Sequence[RoleShape], granted: timedelta | None) -> dict[str, int]:
    """Quota resources and amounts of an environment of these shapes that may run for `granted` (None: without end, counted as 31 days).

    With accelerators also `accelerators` (weighted, thousandths) and `accelerator_seconds` (those times `granted`, rounded up to whole
    seconds). An accelerator of weight 0 takes neither.
    """
    amounts = total(tuple(shapes))
    devices = {slug: amount for resource, amount in amounts.items() if (slug := accelerator_of(resource))}
    if devices:
        weights = {slug: weight_thousandths(weight) for slug, weight in Accelerator.objects.filter(slug__in=devices).values_list("slug", "quota_weight")}
        weighted = sum(amount * weights.get(slug, 1000) for slug, amount in devices.items())
        if weighted:
            amounts[ACCELERATORS] = weighted
            amounts[ACCELERATOR_SECONDS] = weighted_seconds(weighted, ENDLESS if granted is None else granted)
    return amounts
