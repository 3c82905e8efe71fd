"""The threshold of self-service: whether something has to be approved, why, and putting the question to those who may answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from .. import selectors
from ..durations import format_duration
from ..lifecycle import State
from ..models import Approval, ApprovalRule, Environment, Event, Flavor, Team, Template, User
from ..quantities import format_amount
from .events import append, move
from .notifications import notify

HOURS = "hours"  # of running time, as a rule names it


def reasons(
    *,
    team: Team,
    template: Template,
    flavor: Flavor,
    amounts: Mapping[str, int],
    granted: timedelta | None,
    approved: Mapping[str, float] | None = None,
) -> tuple[str, ...]:
    """Why this goes beyond self-service, a sentence each; empty when it does not, or when `approved` covers it.

    `amounts` are quota resources, `granted` the running time asked for (None: without end). `approved` is `Environment.approved`.
    """
    before = dict(approved or {})
    rules = ApprovalRule.objects.filter(
        Q(team=None) | Q(team=team), Q(template=None) | Q(template=template), Q(flavor=None) | Q(flavor=flavor), enabled=True
    ).select_related("template", "flavor")
    why: dict[str, None] = {}
    lowest: dict[str, ApprovalRule] = {}
    for rule in rules:
        if rule.resource:
            kept = lowest.get(rule.resource)
            if kept is None or (rule.above or 0) < (kept.above or 0):
                lowest[rule.resource] = rule
        elif not before:  # an environment keeps its template, and only an approval changes its flavor
            why[_names(rule, team)] = None
    for resource, rule in sorted(lowest.items()):
        above = rule.above or 0
        if resource == HOURS:
            if _beyond_hours(granted, above) and (HOURS not in before or _beyond_hours(granted, before[HOURS])):
                asked = format_duration(granted) if granted is not None else "an unlimited time"
                why[f"It is to run for {asked}; up to {format_duration(timedelta(hours=above))} needs no approval."] = None
        elif amounts.get(resource, 0) > max(above, before.get(resource, 0)):
            why[f"It takes {format_amount(resource, amounts[resource])}; up to {format_amount(resource, above)} needs no approval."] = None
    return tuple(why)


def _beyond_hours(granted: timedelta | None, hours: float) -> bool:
    return granted is None or granted.total_seconds() > round(hours * 3600)


def _names(rule: ApprovalRule, team: Team) -> str:
    if rule.template and rule.flavor:
        return f"Template {rule.template.slug} with flavor {rule.flavor.slug} needs approval in team {team.slug}."
    if rule.template:
        return f"Template {rule.template.slug} needs approval in team {team.slug}."
    return f"Flavor {rule.flavor.slug if rule.flavor else ''} needs approval in team {team.slug}."


def approved_amounts(amounts: Mapping[str, int], granted: timedelta | None) -> dict[str, float]:
    """What an approval of this covers, as `Environment.approved` keeps it. No end in sight covers any running time."""
    hours = 1e9 if granted is None else granted.total_seconds() / 3600
    return {**amounts, HOURS: hours}


def ask(environment: Environment, *, actor: User, why: tuple[str, ...]) -> Approval:
    """Put the question: the locked environment moves to awaiting approval, whoever may answer is told."""
    now = timezone.now()
    approval = Approval.objects.create(
        environment=environment,
        asked_by=actor,
        why=list(why),
        requested={"flavor": environment.flavor.slug, "workers": environment.workers, "expires_in": environment.expires_in},
        lapses_at=now + timedelta(hours=settings.APPROVAL_LAPSES_HOURS),
    )
    people = selectors.approvers_of(approval)
    names = ", ".join(person.username for person in people[:5]) or "a platform admin"
    move(environment, State.AWAITING_APPROVAL, message=f"Waiting for approval by {names}.", actor=actor)
    for sentence in why:
        append(environment, kind=Event.Kind.INFO, code="ApprovalNeeded", message=sentence)
    message = f"{actor.username} asks for approval of {environment.name} in team {environment.team.slug}. {' '.join(why)}"
    notify(people, "ApprovalAsked", message, environment, source=f"approval-{approval.pk}-asked")
    return approval
