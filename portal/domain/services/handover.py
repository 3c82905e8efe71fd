"""What others in the cluster do for an environment: a queue (Kueue, Volcano) that decides when it starts, an operator that makes its pods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from .. import outbound
from ..lifecycle import Desired, State
from ..models import Environment
from .events import lock


def queue_hand_over(environment_id: UUID | str, system: str) -> bool:
    """Admit a waiting environment so that the cluster's queue `system` sees its pods; whether it is admitted now."""
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None or environment.state != State.QUEUED or environment.desired != Desired.RUNNING:
            return False
        if environment.admitted_at is None:
            # What it holds is counted from provisioning on: until then the other queue may keep it waiting.
            Environment.objects.filter(pk=environment.pk).update(admitted_at=timezone.now(), placement={"queue": system}, queue={})
        return True


def queue_told(environment_id: UUID | str, queue: Mapping[str, Any]) -> bool:
    """Store what the other queue says of one that waits in it (the form of `Environment.queue`); whether it was news."""
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None or environment.state != State.QUEUED or environment.queue == dict(queue):
            return False
        Environment.objects.filter(pk=environment.pk).update(queue=dict(queue))
        outbound.announce(environment, kind="observed")
        return True


def operator_chosen(environment_id: UUID | str, key: str) -> str:
    """Note which operator makes the pods of an admitted environment, empty for none; the one that was noted first counts until it is
    admitted anew."""
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None or environment.admitted_at is None:
            return ""
        if "operator" not in environment.placement:
            Environment.objects.filter(pk=environment.pk).update(placement=environment.placement | {"operator": key})
            return key
        return str(environment.placement["operator"])
