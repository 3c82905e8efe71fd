"""Is anybody using it? Judges samples of use by the rule of the environment's template. The judge is pure; the verb keeps its findings.

`Environment.activity` is `{"at": time of the last sample, "signs": the sample, "seen": {sign: last measured}, "used": {sign: last busy},
"quiet": {sign: since}}`; times are RFC 3339. A sign is quiet while there is no use to be seen: a notebook with no busy kernel is quiet since
its last activity, a percentage that is below the rule's is quiet since the first sample in a row that was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from .. import outbound, selectors
from ..durations import parse_duration
from ..errors import Conflict, NotFound
from ..lifecycle import Desired, State
from ..models import Environment, Event, User
from .events import append, lock
from .expiry import in_words, stop_by_itself, told
from .schedules import local_time

NOTEBOOK, CPU, ACCELERATOR = "notebook", "cpu", "accelerator"
PERSON = "person"  # somebody said so; never measured, so only ever among what was used
_WARN = timedelta(minutes=10)
_PERCENT = 5.0
_GAP = timedelta(minutes=5)  # without a sample for longer than this, nothing is known of the time between


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When an environment is idle: every sign below its percentage for `after`. The warning comes `warn` before the stop."""

    after: timedelta
    warn: timedelta
    cpu_percent: float
    accelerator_percent: float


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a sample says. `since` None: in use, or nothing is known. `kept`: what to remember for the next one."""

    since: datetime | None
    kept: dict[str, Any]


def rule_of(template_spec: Mapping[str, Any]) -> Rule | None:
    """The template's rule; None: it is never idle."""
    idle = template_spec.get("idle")
    if not idle:
        return None
    after = parse_duration(idle["after"])
    warn = parse_duration(idle["warn"]) if idle.get("warn") else _WARN
    percents = {field: float(idle.get(field, _PERCENT)) for field in ("cpu_percent", "accelerator_percent")}
    return Rule(after=after, warn=min(warn, after / 2), **percents)


def _time(value: object) -> datetime | None:
    try:
        found = parse_datetime(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is None or timezone.is_aware(found) else None


def _times(kept: object, started: datetime) -> dict[str, datetime]:
    """Times that were kept of this run."""
    items = kept.items() if isinstance(kept, Mapping) else ()
    return {sign: moment for sign, text in items if (moment := _time(text)) and moment >= started}


def _busy(since: Mapping[str, datetime | None]) -> set[str]:
    return {sign for sign, moment in since.items() if moment is None}


def judge(rule: Rule, signs: Mapping[str, Any], before: Mapping[str, Any], *, started: datetime, now: datetime) -> Judgement:
    """Since when nothing was used, from this sample and what was kept of the ones before (`Environment.activity`, from this run).

    Every sign that is measured has to be quiet. One that was measured earlier and is not now is unknown since then, so it counts as
    used until then. Nothing measured at all is not idle.
    """
    last_sample = _time(before.get("at"))
    # Samples that come late or twice must not make time run backwards.
    follows = last_sample is not None and timedelta(0) <= now - last_sample <= _GAP
    seen, used, quiet = (_times(before.get(field), started) for field in ("seen", "used", "quiet"))
    since: dict[str, datetime | None] = {}
    notebook = signs.get("notebook")
    if notebook is not None:
        # The Hub may know of less than we saw: it hears of activity late, and of a kernel that works in silence not at all.
        last = min(_time(notebook.get("last")) or started, now)
        since[NOTEBOOK] = None if notebook.get("kernels_busy") else max(last, used.get(NOTEBOOK, started), started)
    for sign, field, threshold in ((CPU, "cpu_percent", rule.cpu_percent), (ACCELERATOR, "accelerator_percent", rule.accelerator_percent)):
        if signs.get(field) is not None:
            kept = quiet.get(sign) if follows else None
            since[sign] = (kept or now) if float(signs[field]) < threshold else None
    kept_signs = {
        "at": now.isoformat(),
        "signs": {key: signs.get(key) for key in ("notebook", "cpu_percent", "accelerator_percent")},
        "seen": {sign: (now if sign in since else seen[sign]).isoformat() for sign in since.keys() | seen.keys()},
        "used": {sign: (now if sign in since and since[sign] is None else used[sign]).isoformat() for sign in _busy(since) | used.keys()},
        "quiet": {sign: moment.isoformat() for sign, moment in since.items() if moment is not None},
    }
    if not since or None in since.values():
        return Judgement(since=None, kept=kept_signs)
    unknown = [moment for sign, moment in seen.items() if sign not in since]
    quiet_since = [moment for moment in since.values() if moment is not None]
    return Judgement(since=max([started, used.get(PERSON, started), *unknown, *quiet_since]), kept=kept_signs)


def quiet_signs(signs: Mapping[str, Any]) -> str:
    """The signs that were measured, for people: `no notebook activity, CPU 1 %, accelerator 0 %`."""
    parts = ["no notebook activity"] if signs.get("notebook") is not None else []
    percents = (("CPU", signs.get("cpu_percent")), ("accelerator", signs.get("accelerator_percent")))
    parts += [f"{name} {float(percent):.0f} %" for name, percent in percents if percent is not None]
    return ", ".join(parts)


def activity_record(environment_id: UUID | str, signs: Mapping[str, Any], now: datetime | None = None) -> str:
    """Judge one sample of use. `signs`: `{"notebook": {"last": rfc3339 | None, "kernels_busy": n} | None, "cpu_percent": x | None,
    "accelerator_percent": y | None}`; None means not measured.

    Returns what came of it: "" (nothing is judged: no rule, or not running), "busy", "idle", "warned" or "stopped". A stop never comes
    without a warning before it, and not sooner after it than the rule says.
    """
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None or environment.desired != Desired.RUNNING or environment.state != State.RUNNING:
            return ""
        rule = rule_of(environment.template_spec)
        if rule is None or environment.started_at is None:
            return ""
        moment = now or timezone.now()
        found = judge(rule, signs, environment.activity, started=environment.started_at, now=moment)
        return _act(environment, rule, found, moment)


def environment_in_use(*, actor: User, environment_id: UUID | str) -> Environment:
    """Somebody says that he uses it: the time without use begins anew. Raises NotFound, Conflict."""
    with transaction.atomic():
        selectors.environment_get(actor, environment_id)
        environment = lock(environment_id)
        if environment is None:
            raise NotFound("There is no such environment.")
        if environment.desired != Desired.RUNNING or environment.state != State.RUNNING:
            raise Conflict(f"{environment.name} does not run, so it is not idle either.")
        used = {**environment.activity.get("used", {}), PERSON: timezone.now().isoformat()}
        changes: dict[str, Any] = {"activity": environment.activity | {"used": used}, "idle_since": None, "idle_warned_at": None}
        Environment.objects.filter(pk=environment.pk).update(**changes)
        for field, value in changes.items():
            setattr(environment, field, value)
        append(environment, kind=Event.Kind.ACTION, code="InUse", message=f"{actor.username} says that it is in use.", actor=actor)
        return environment


def _act(environment: Environment, rule: Rule, found: Judgement, now: datetime) -> str:
    warned = environment.idle_warned_at
    over = warned is not None and (found.since is None or found.since > warned)
    changes: dict[str, Any] = {"activity": found.kept, "idle_since": found.since, "idle_warned_at": None if over else warned}
    turned = (found.since is None) != (environment.idle_since is None)
    Environment.objects.filter(pk=environment.pk).update(**changes)
    for field, value in changes.items():
        setattr(environment, field, value)
    if over:
        append(environment, kind=Event.Kind.INFO, code="IdleOver", message="It is in use again, so it is not stopped.")
    if found.since is None:
        if turned and not over:
            outbound.announce(environment, kind="observed")
        return "busy"
    if environment.idle_warned_at is None:
        if now < found.since + rule.after - rule.warn:
            return "idle"
        return _warn(environment, rule, found.since, now)
    if now < found.since + rule.after or now < environment.idle_warned_at + rule.warn:
        return "idle"
    _stop(environment, found)
    return "stopped"


def _warn(environment: Environment, rule: Rule, since: datetime, now: datetime) -> str:
    Environment.objects.filter(pk=environment.pk).update(idle_warned_at=now)
    environment.idle_warned_at = now
    left, clock = in_words(max(since + rule.after - now, rule.warn)), local_time(since, environment.owner)
    append(environment, kind=Event.Kind.WARNING, code="IdleSoon", message=f"Nobody has used it since {clock}; it is stopped in {left} unless somebody does.")
    told(environment, "IdleSoon", f"Nobody has used {environment.name} since {clock}; it is stopped in {left} unless somebody does.")
    return "warned"


def _stop(environment: Environment, found: Judgement) -> None:
    assert found.since is not None  # noqa: S101 - only what is idle comes here
    clock, signs = local_time(found.since, environment.owner), quiet_signs(found.kept["signs"])
    message = f"Nobody has used it since {clock} ({signs}), so it is stopped. Start it again to go on; its home volume is kept."
    notification = f"Nobody has used {environment.name} since {clock} ({signs}), so it was stopped. Start it again to go on; its home volume is kept."
    stop_by_itself(environment, reason="Idle", message=message, notification=notification, deletes=True)
