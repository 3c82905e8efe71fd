"""My environments, one environment, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template import TemplateDoesNotExist
from django.template.loader import get_template
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from portal.domain import selectors, services
from portal.domain.errors import DomainError, NotFound
from portal.domain.lifecycle import State
from portal.domain.models import Environment, Membership, Node, Team, User, Volume

from .. import notices, present
from ..forms import ExtendForm, RenameForm, ScaleForm, ScheduleForm, Styled
from ..http import complain, is_refresh, page, signed_in

EVENTS_SHOWN = 200


@require_GET
@page
def index(request: HttpRequest) -> HttpResponse:
    """Environments of the one who looks; leads and admins may look at everybody's they may see."""
    user = signed_in(request)
    leads = user.is_staff or Membership.objects.filter(user=user, role=Membership.Role.LEAD).exists()
    everyone = leads and request.GET.get("of") == "everyone"
    rows = (
        selectors.environments_visible_to(user)
        .select_related("team", "owner", "template", "flavor", "flavor__accelerator", "flavor__network")
        .exclude(state=State.DELETED)
    )
    if not everyone:
        rows = rows.filter(owner=user)
    environments = list(rows.order_by("-created_at")[:500])
    volumes = Volume.objects.filter(owner=user, purge_requested_at=None).select_related("team")
    in_use = set(Environment.objects.filter(owner=user).exclude(state=State.DELETED).values_list("volume_id", flat=True))
    simulated_nodes = _simulated_nodes()
    context = {
        "section": "environments",
        "rows": [_row(environment, user, simulated_nodes) for environment in environments],
        "everyone": everyone,
        "leads": leads,
        "volumes": [volume for volume in volumes if volume.pk not in in_use],
        "live_url": "/ws/environments/",
        "has_team": user.is_staff or Team.objects.filter(members=user).exists(),
    }
    return render(request, "web/_environments.html" if is_refresh(request) else "web/environments.html", context)


def _simulated_nodes() -> set[str]:
    return set(Node.objects.filter(simulated=True).values_list("name", flat=True))


def _row(environment: Environment, user: User, simulated_nodes: set[str]) -> dict[str, Any]:
    replicas = present.replicas_of(environment, simulated_nodes)
    return {
        "environment": environment,
        "actions": present.actions(environment, user, settings.HUB_PUBLIC_URL),
        "remedy": present.remedy(environment.reason, environment.message),
        "simulated": any(replica["simulated"] for replica in replicas),
        "ready": sum(1 for replica in replicas if replica.get("ready")),
        "replicas": len(replicas),
    }


@require_GET
@page
def detail(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """One environment. Asked by htmx it answers with the live part only."""
    user = signed_in(request)
    environment = selectors.environment_get(user, environment_id)
    context = detail_context(environment, user)
    return render(request, "web/_environment.html" if is_refresh(request) else "web/environment.html", context)


def detail_context(environment: Environment, user: User) -> dict[str, Any]:
    """What the page of an environment shows."""
    observed = environment.observed or {}
    first = max(0, environment.last_seq - EVENTS_SHOWN)
    events = list(selectors.events_after(environment, first, EVENTS_SHOWN))
    events.reverse()
    replicas = present.replicas_of(environment, _simulated_nodes())
    return {
        "section": "environments",
        "environment": environment,
        "params": present.shown_params(environment),
        "next_version": selectors.next_version(environment),
        "observed": observed,
        "replicas": replicas,
        "steps": observed.get("steps", []),
        "endpoints": observed.get("endpoints", []),
        "snippet": observed.get("snippet", ""),
        "events": events,
        "earlier_events": first,
        "actions": present.actions(environment, user, settings.HUB_PUBLIC_URL),
        "remedy": present.remedy(environment.reason, environment.message),
        "simulated": any(replica["simulated"] for replica in replicas),
        "mine": environment.owner_id == user.pk,
        "live_url": f"/ws/environments/{environment.pk}/",
        "logs_template": _logs_template(),
        "scale_form": ScaleForm(initial={"workers": environment.workers}),
        "extend_form": ExtendForm(longest=present.longest_expiry(environment.template_spec), initial={"expires_in": str(environment.expires_in or "")}),
        "rename_form": RenameForm(initial={"name": environment.name}),
        "schedule_form": ScheduleForm(own_zone=user.timezone, current=environment.schedule),
        "notices": notices.notices(environment),
        "place": notices.place(environment),
        "question": notices.question(environment, user),
    }


def _logs_template() -> Any:
    """The log viewer of the live room, when it is installed."""
    try:
        return get_template("live/logs.html").template  # type: ignore[attr-defined]
    except TemplateDoesNotExist:
        return None


def act(request: HttpRequest, environment_id: UUID, verb: Callable[[User], object], done: str, *, leave: bool = False) -> HttpResponse:
    """Run a verb, say how it went, and go back to where it was asked for."""
    user = signed_in(request)
    selectors.environment_get(user, environment_id)
    try:
        verb(user)
    except NotFound:
        raise
    except DomainError as error:
        complain(request, error)
    else:
        messages.success(request, done)
        if leave:
            return redirect("environments")
    if request.POST.get("next") == "environments":
        return redirect("environments")
    return redirect("environment", environment_id)


def act_with(form: Styled, request: HttpRequest, environment_id: UUID, verb: Callable[[User], object], done: str) -> HttpResponse:
    """Like `act`, for verbs with a field; what cannot be read is said above the page."""
    if not form.is_valid():
        selectors.environment_get(signed_in(request), environment_id)
        for field_messages in form.errors.values():
            for message in field_messages:
                messages.error(request, str(message))
        return redirect("environment", environment_id)
    return act(request, environment_id, verb, done)


@require_POST
@page
def start(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    return act(request, environment_id, lambda user: services.environment_start(actor=user, environment_id=environment_id), _("It is starting."))


@require_POST
@page
def stop(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    return act(request, environment_id, lambda user: services.environment_stop(actor=user, environment_id=environment_id), _("It is stopping."))


@require_POST
@page
def retry(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    return act(request, environment_id, lambda user: services.environment_retry(actor=user, environment_id=environment_id), _("It is tried again."))


@require_POST
@page
def scale(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    form = ScaleForm(request.POST)

    def verb(user: User) -> object:
        return services.environment_scale(actor=user, environment_id=environment_id, workers=form.cleaned_data["workers"])

    return act_with(form, request, environment_id, verb, _("The number of workers was changed."))


@require_POST
@page
def extend(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    environment = selectors.environment_get(signed_in(request), environment_id)
    form = ExtendForm(request.POST, longest=present.longest_expiry(environment.template_spec))

    def verb(user: User) -> object:
        return services.environment_extend(actor=user, environment_id=environment_id, expires_in=form.expiry())

    return act_with(form, request, environment_id, verb, _("Its time was extended."))


@require_POST
@page
def rename(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    form = RenameForm(request.POST)

    def verb(user: User) -> object:
        return services.environment_rename(actor=user, environment_id=environment_id, name=form.cleaned_data["name"])

    return act_with(form, request, environment_id, verb, _("It was renamed."))


@require_POST
@page
def delete(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    purge_home = request.POST.get("purge") == "on"
    return act(
        request,
        environment_id,
        lambda user: services.environment_delete(actor=user, environment_id=environment_id, purge=purge_home),
        _("It is being deleted."),
        leave=True,
    )


@require_POST
@page
def purge(request: HttpRequest, volume_id: UUID) -> HttpResponse:
    """Delete a home volume that no environment uses."""
    try:
        services.volume_purge(actor=signed_in(request), volume_id=volume_id)
    except NotFound:
        raise
    except DomainError as error:
        complain(request, error)
    else:
        messages.success(request, _("The home volume is being deleted."))
    return redirect("environments")
