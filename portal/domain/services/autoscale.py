"""Scaling by itself: what a person says of it, and what the rule of the template makes of a sample."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from .. import selectors
from ..autoscale import CPU, QUERY, decide, is_on, rule_of
from ..errors import Conflict, DomainError, NotFound
from ..lifecycle import Desired, State
from ..models import Environment, Event, User
from .environments import scale_locked
from .events import append, lock

logger = logging.getLogger(__name__)


def environment_autoscale_set(*, actor: User, environment_id: UUID | str, on: bool) -> Environment:
    """Let the rule of the template choose the number of workers, or not any more. Raises NotFound, Conflict."""
    with transaction.atomic():
        selectors.environment_get(actor, environment_id)
        environment = lock(environment_id)
        if environment is None:
            raise NotFound("There is no such environment.")
        rule = rule_of(environment.template_spec)
        if rule is None:
            raise Conflict(f"The template of {environment.name} has no rule by which it could be scaled; change the number of workers by hand.")
        if environment.desired == Desired.DELETED or environment.state in (State.DELETING, State.DELETED):
            raise Conflict(f"{environment.name} is deleted.")
        if is_on(environment.template_spec, environment.autoscale) == on:
            return environment
        _keep(environment, {"on": on})
        said = f"between {rule.least} and {rule.most} workers, as they are used" if on else "no more; the number of workers stays as it is"
        append(environment, kind=Event.Kind.ACTION, code="AutoscaleSet", message=f"{actor.username} lets it be scaled {said}.", actor=actor)
        return environment


def environment_autoscale(environment_id: UUID | str, load: float, now: datetime | None = None) -> str:
    """Judge one sample of `load` (see `autoscale.Rule.target`). What came of it: "" (nothing is judged), "kept", "scaled" or "refused".

    What quota, approval or a queue of the cluster refuses is told once for each number that is wanted, and tried again with the next sample.
    """
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None or environment.desired != Desired.RUNNING or environment.state != State.RUNNING:
            return ""
        rule = rule_of(environment.template_spec)
        if rule is None or not is_on(environment.template_spec, environment.autoscale):
            return ""
        count, kept = decide(rule, environment.workers, load, environment.autoscale, now or timezone.now())
        before = environment.workers
        refused = environment.autoscale.get("refused")
        _keep(environment, kept | {key: environment.autoscale[key] for key in ("on", "refused") if key in environment.autoscale})
        if count == before:
            return "kept"
    unit = "" if rule.metric == QUERY else " %"
    what = {CPU: "CPU use", QUERY: "the measured value"}.get(rule.metric, "use of accelerators")
    why = f"{what} of each worker is {load:.0f}{unit} where {rule.target:g}{unit} is aimed at"
    return _scale(environment.pk, before, count, why, refused)


def _scale(key: UUID, before: int, count: int, why: str, refused: Any) -> str:
    """In a transaction of its own: a refusal takes nothing of the sample back."""
    try:
        with transaction.atomic():
            environment = lock(key)
            if environment is None or environment.workers != before or environment.desired != Desired.RUNNING:
                return "kept"
            _keep(environment, {key: value for key, value in environment.autoscale.items() if key != "refused"})
            scale_locked(environment, count, actor=None, code="Autoscaled", message=f"{count} workers instead of {before}: {why}.")
            return "scaled"
    except DomainError as error:
        with transaction.atomic():
            environment = lock(key)
            if environment is not None:
                _keep(environment, environment.autoscale | {"refused": count})
                if refused != count:
                    append(environment, kind=Event.Kind.WARNING, code="AutoscaleRefused", message=f"It should have {count} workers, {why}, but: {error.detail}")
        return "refused"


def _keep(environment: Environment, state: dict[str, Any]) -> None:
    Environment.objects.filter(pk=environment.pk).update(autoscale=state)
    environment.autoscale = state
