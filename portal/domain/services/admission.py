"""The queue: which of the waiting environments may start now, in what order, and what the others are told.

The arithmetic is in `portal.domain.queueing`; here are the rows. One pass at a time, in one transaction, without any network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from .. import outbound
from ..durations import format_duration, parse_duration
from ..errors import ValidationError
from ..lifecycle import Desired, State
from ..models import Accelerator, Environment, Event, Membership, Mutex, Network, Node, Priority, Team, User
from ..queueing import Decision, Picture, Placement, Standing, Waiting, decide
from ..selectors import picture as read
from ..shape import RoleShape, total
from . import usage
from .events import append, lock, move
from .notifications import notify

logger = logging.getLogger(__name__)

_QUEUE = "queue"
_STALE = timedelta(minutes=10)  # nodes seen longer ago than this say nothing; the cluster's own scheduler decides then
_SLACK = timedelta(minutes=2)  # from admission to running, and from the end of the time to free room
_ETA_STEP = timedelta(minutes=5)  # estimates that differ by less are not news
_REQUEST = "request"  # stands for one that is not made yet


def queue_pass() -> list[UUID]:
    """Look at the whole queue once; the environments that were admitted."""
    with transaction.atomic():
        _take_turn()
        return _pass()


def queue_admit(environment_id: UUID | str) -> bool:
    """Whether the environment may start now. Looks at the queue when it has not been told anything yet; from then on, passes find it."""
    rows = Environment.objects.filter(pk=environment_id, state=State.QUEUED)
    found = rows.values_list("admitted_at", "queue").first()
    if found is None or found[0] is not None or found[1]:
        return found is not None and found[0] is not None
    with transaction.atomic():
        _take_turn()
        found = rows.values_list("admitted_at", "queue").first()
        if found is not None and found[0] is None and not found[1]:
            _pass()
    return rows.filter(admitted_at__isnull=False).exists()


def queue_return(environment_id: UUID | str, message: str, generation: int | None = None) -> bool:
    """Put one that was admitted, and whose pods found no room, back to its old place in the queue. It is not tried again until the nodes
    have changed, or for 30 seconds. False when it is not being set up (any more), or with `generation` when its owner asked for something since."""
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None or environment.state != State.PROVISIONING or environment.desired != Desired.RUNNING:
            return False
        if generation is not None and environment.desired_generation != generation:
            return False
        queued_at, now = environment.queued_at, timezone.now()
        if not move(environment, State.QUEUED, reason="NoRoom", message=message):
            return False
        digest = read.nodes_digest(list(Node.objects.all()), str(environment.pk))
        Environment.objects.filter(pk=environment.pk).update(
            queued_at=queued_at or environment.created_at,
            placement={"returned": {"at": now.isoformat(), "nodes": digest, "message": message}},
            observed={},
        )
        outbound.queue_run()
        return True


# --- one pass ---------------------------------------------------------------------


def _take_turn() -> None:
    """One pass at a time, until the transaction ends."""
    if Mutex.objects.select_for_update().filter(name=_QUEUE).first() is None:
        Mutex.objects.get_or_create(name=_QUEUE)
        Mutex.objects.select_for_update().get(name=_QUEUE)


def _pass() -> list[UUID]:
    rows = {str(row.pk): row for row in read.waiting_rows().select_related("flavor__accelerator", "flavor__network").order_by("queued_at", "pk")}
    if not rows and not _marked().exists():
        return []
    now = timezone.now()
    nodes = _fresh_nodes(now)
    if not nodes:
        return _admit(rows, dict.fromkeys(rows, None), now)
    seen = _picture(rows.values(), nodes, now)
    crowded = any(row.queue for row in rows.values())
    if crowded:
        seen = replace(seen, history=read.early_ends(now))
    decision = decide(seen)
    if decision.told and not crowded and (history := read.early_ends(now)):
        decision = decide(replace(seen, history=history))
    return _apply(decision, rows, now)


def _marked() -> Any:
    """Those that are to be stopped for another."""
    return Environment.objects.filter(state__in=[State.QUEUED, State.PROVISIONING, State.RUNNING], desired=Desired.RUNNING, preempt_at__isnull=False)


def _fresh_nodes(now: datetime) -> list[Node]:
    """The nodes, or nothing when what is known of them is too old to go by."""
    nodes = list(Node.objects.order_by("name"))
    return nodes if nodes and max(node.seen_at for node in nodes) > now - _STALE else []


def _picture(rows: Iterable[Environment], nodes: list[Node], now: datetime) -> Picture:
    needs = read.Needs()
    admitted = read.admitted_now(nodes, now, needs)
    preemptible = [one.id for one in admitted if one.preemptible or one.preempt_at]
    waiting = read.waiting_of(rows, nodes, needs, now, may_preempt=bool(preemptible))
    shared = len({one.team for one in waiting}) > 1
    window = timedelta(hours=settings.FAIR_SHARE_HOURS)
    return Picture(
        now=now,
        nodes=nodes,
        waiting=waiting,
        admitted=admitted,
        use=read.use_within(now, window) if shared else (),
        totals=read.cluster_totals(nodes) if shared else {},
        window=window,
        slack=_SLACK,
        grace=read.preempt_graces(preemptible) if any(one.preempts for one in waiting) else {},
        default_grace=timedelta(seconds=settings.PREEMPT_GRACE_SECONDS),
    )


def _apply(decision: Decision, rows: Mapping[str, Environment], now: datetime) -> list[UUID]:
    told = {key: news for key, standing in decision.told.items() if (news := _news(rows[key].queue, standing, now)) is not None}
    changed = [UUID(key) for key in (*decision.admit, *told, *decision.marks, *decision.unmarks)]
    # A row that somebody else is writing at this moment is left to the next pass: waiting for it could end in a deadlock.
    free = Environment.objects.select_for_update(of=("self",), skip_locked=True, no_key=True).filter(pk__in=changed).order_by("pk")
    mine = {str(key) for key in free.values_list("pk", flat=True)} if changed else set()
    admitted = _admit(rows, {key: placement for key, placement in decision.admit.items() if key in mine}, now)
    for key, (whom, when) in decision.marks.items():
        if key in mine and whom not in decision.admit:
            _mark(key, rows[whom], when, now)
    for key in decision.unmarks:
        if key in mine:
            _unmark(key)
    _tell({key: news for key, news in told.items() if key in mine}, rows)
    return admitted


def _admit(rows: Mapping[str, Environment], placements: Mapping[str, Placement | None], now: datetime) -> list[UUID]:
    let_go = []
    for key in sorted(placements):
        row, placement = rows[key], placements[key]
        place: dict[str, Any] = {"queue": ""}
        if placement is not None:
            place["nodes"] = {node: dict(roles) for node, roles in placement.seats.items()}
            if placement.topology is not None:
                place["topology"] = dict(zip(("key", "value", "required"), placement.topology, strict=True))
        changes = {"admitted_at": now, "placement": place, "queue": {}, "next_check_at": now}
        if not read.waiting_rows().filter(pk=row.pk).update(**changes):
            continue  # stopped or deleted meanwhile
        waited = bool(row.queue)
        for field, value in changes.items():
            setattr(row, field, value)
        if waited:
            span = format_duration(timedelta(seconds=int((now - (row.queued_at or row.created_at)).total_seconds())))
            append(row, kind=Event.Kind.INFO, code="Admitted", message=f"There is room now; it waited {span} in the queue.")
        outbound.announce(row, kind="observed")
        outbound.nudge(row.pk)
        let_go.append(row)
    if let_go:
        usage.begin(let_go, now)
        logger.info("queue admitted: environments=%d", len(let_go))
    return [row.pk for row in let_go]


def _news(known: Mapping[str, Any], standing: Standing, now: datetime) -> dict[str, Any] | None:
    """What is to be stored of where one stands; None when that is nothing new."""
    eta = None
    if standing.earliest is not None and standing.latest is not None:
        eta = {"earliest": standing.earliest.isoformat(), "latest": standing.latest.isoformat()}
    news = {"position": standing.position, "ahead": standing.ahead, "code": standing.code, "message": standing.message, "eta": eta}
    if standing.promised:
        news["promised"] = True
    same = {key: value for key, value in known.items() if key != "eta"} == {key: value for key, value in news.items() if key != "eta"}
    return None if same and not _moved(known.get("eta"), eta, now) else news


def _moved(before: Mapping[str, str] | None, after: Mapping[str, str] | None, now: datetime) -> bool:
    if before is None or after is None:
        return before is not after
    for end in ("earliest", "latest"):
        old, new = datetime.fromisoformat(before[end]), datetime.fromisoformat(after[end])
        if abs(new - old) >= max(_ETA_STEP, (new - now) / 10):
            return True
    return False


def _tell(news: Mapping[str, dict[str, Any]], rows: Mapping[str, Environment]) -> None:
    for key, queue in news.items():
        rows[key].queue = queue
    if news:
        read.waiting_rows().bulk_update([rows[key] for key in sorted(news)], ["queue"], batch_size=100)
        for key in sorted(news):
            outbound.announce(rows[key], kind="observed")


# --- preemption -------------------------------------------------------------------


def _mark(key: str, winner: Environment, when: datetime, now: datetime) -> None:
    """Warn one that it will be stopped for `winner`; the timer does it. Never while it is marked already."""
    if not _may_be_marked(key).update(preempt_at=when, preempted_for=winner.pk):
        return
    victim = Environment.objects.select_related("owner").get(pk=key)
    message = f"One of higher priority needs its room, so it will be stopped in {format_duration(when - now)}. Save your work; its home volume is kept."
    append(victim, kind=Event.Kind.WARNING, code="PreemptionSoon", message=message)
    notify([victim.owner], "PreemptionSoon", f"{victim.name}: {message}", victim, source=f"preempt:{victim.pk}:{victim.last_seq}")


def _may_be_marked(key: str) -> Any:
    states = [State.QUEUED, State.PROVISIONING, State.RUNNING]
    return Environment.objects.filter(pk=key, state__in=states, desired=Desired.RUNNING, admitted_at__isnull=False, preempt_at=None)


def _unmark(key: str) -> None:
    if _marked().filter(pk=key).update(preempt_at=None, preempted_for=None):
        victim = Environment.objects.select_related("owner").get(pk=key)
        message = "Its room is not needed any more, so it goes on running."
        append(victim, kind=Event.Kind.INFO, code="PreemptionOff", message=message)
        notify([victim.owner], "PreemptionOff", f"{victim.name}: {message}", victim, source=f"preempt:{victim.pk}:{victim.last_seq}")


# --- before there is a row --------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the queue would make of a request. Both times None: not known."""

    position: int  # 0: it would start at once
    ahead: int
    message: str
    earliest: datetime | None
    latest: datetime | None


def forecast(
    *, team: Team, shapes: Sequence[RoleShape], priority_value: int, template_spec: Mapping[str, Any], expires_in: timedelta | None = None
) -> Forecast | None:
    """Where a request would stand in the queue; None while nothing is known of the nodes. Reads only.

    `expires_in` None: the template's usual time.
    """
    now = timezone.now()
    nodes = _fresh_nodes(now)
    if not nodes:
        return None
    seen = _picture(read.waiting_rows().select_related("flavor__accelerator", "flavor__network"), nodes, now)
    if expires_in is None and template_spec.get("expires_in"):
        expires_in = parse_duration(template_spec["expires_in"])
    request = _request(team, shapes, priority_value, template_spec, expires_in, now)
    seen = replace(seen, waiting=[*seen.waiting, request])
    if len({one.team for one in seen.waiting}) > 1 and not seen.totals:
        seen = replace(seen, use=read.use_within(now, seen.window), totals=read.cluster_totals(nodes))
    decision = decide(seen)
    if _REQUEST in decision.told and (history := read.early_ends(now)):
        decision = decide(replace(seen, history=history))
    if _REQUEST in decision.admit:
        return Forecast(position=0, ahead=0, message="", earliest=now, latest=now)
    standing = decision.told[_REQUEST]
    return Forecast(position=standing.position, ahead=standing.ahead, message=standing.message, earliest=standing.earliest, latest=standing.latest)


def _request(
    team: Team, shapes: Sequence[RoleShape], priority_value: int, template_spec: Mapping[str, Any], expires_in: timedelta | None, now: datetime
) -> Waiting:
    chips = {chip.slug: chip for chip in Accelerator.objects.filter(slug__in={shape.accelerator for shape in shapes if shape.accelerator})}
    return Waiting(
        id=_REQUEST,
        team=str(team.pk),
        pods=read.Needs().pods_of(shapes, chips, gang=read.is_gang(template_spec)),
        queued_at=now,
        priority=priority_value,
        topology=read.topology_of(template_spec, Network.objects.filter(slug__in={shape.network for shape in shapes if shape.network}).first()),
        granted=expires_in,
        amounts=total(tuple(shapes)),
        label=next((shape.accelerator for shape in shapes if shape.accelerator), "pod"),
    )


# --- priorities -------------------------------------------------------------------


def priority_for(*, actor: User, team: Team, slug: str, usual: str = "") -> Priority:
    """The priority class, if `actor` may use it in `team`; empty means `usual` where he may use that, else the default.
    Raises ValidationError naming `priority`."""
    if not slug and usual:
        try:
            return priority_for(actor=actor, team=team, slug=usual)
        except ValidationError:
            pass  # what a template prefers is no right
    wanted = (slug or settings.DEFAULT_PRIORITY)[:40]
    known = {row.slug: row for row in Priority.objects.prefetch_related("teams")}
    if wanted not in known and not slug:
        return Priority(slug=wanted, value=50)  # a catalogue without priorities: all are equal
    leads = Membership.objects.filter(team=team, user=actor, role=Membership.Role.LEAD).exists() or actor.is_staff
    usable = [row for row in known.values() if (row.everyone or team in row.teams.all()) and (leads or not row.leads_only)]
    found = known.get(wanted)
    if found in usable or (found is not None and not slug):
        return found
    choice = f"you may use {', '.join(row.slug for row in usable)}" if usable else "there is none that you may use"
    why = "There is no such priority" if found is None else f"{wanted} is for {'leads of a team' if found.leads_only else 'certain teams'} only"
    raise ValidationError.field("priority", f"{why}; in team {team.slug} {choice}.")
