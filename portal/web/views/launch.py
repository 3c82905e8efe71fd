"""Launch: choose a template, give it a name and a shape, see what it does to the quota, confirm."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from portal.domain import selectors, services
from portal.domain.allowed import family_of, why_not
from portal.domain.errors import DomainError, NotFound
from portal.domain.models import Priority, Team, Template, User
from portal.domain.selectors import FlavorCapacity
from portal.domain.services.checks import check_expiry
from portal.domain.services.requests import Preview

from .. import present
from ..forms import LaunchForm
from ..http import page, signed_in
from ..present import longest_expiry

FEW = 6  # templates that are looked through without a search


@require_GET
@page
def choose(request: HttpRequest) -> HttpResponse:
    """The templates as cards, those of one kind together."""
    rows = list(selectors.templates_enabled())
    groups = [(present.kind_title(kind), [row for row in rows if row.kind == kind]) for kind in Template.Kind.values]
    context = {"section": "launch", "groups": [group for group in groups if group[1]], "many": len(rows) > FEW, "teams": _teams(signed_in(request))}
    return render(request, "web/launch.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def form(request: HttpRequest, template: str) -> HttpResponse:
    """The form of one template. What the services refuse is shown at its field, with everything typed still there."""
    user = signed_in(request)
    row = _template(template)
    if request.method != "POST":
        return _form_page(request, row, _form(row, user, request))
    launch_form = _form(row, user, request)
    if launch_form.is_valid():
        try:
            environment = services.environment_request(**_request_of(launch_form, user))
        except NotFound as error:
            launch_form.refuse(error.detail, error.errors)
        except DomainError as error:
            launch_form.refuse(error.detail, error.errors)
        else:
            messages.success(request, _("%(name)s is on its way.") % {"name": environment.name})
            return redirect("environment", environment.pk)
    return _form_page(request, row, launch_form, status=422)


@require_POST
@page
def preview(request: HttpRequest, template: str) -> HttpResponse:
    """What launching this would do: a fragment beside the form. Nothing is made."""
    user = signed_in(request)
    row = _template(template)
    launch_form = _form(row, user, request)
    launch_form.fields["name"].required = False
    context: dict[str, Any] = {"incomplete": not launch_form.is_valid()}
    if not context["incomplete"]:
        # the effect on the quota is worth seeing before a name is thought of
        arguments = _request_of(launch_form, user)
        arguments["name"] = arguments["name"] or f"unnamed-{uuid4().hex[:12]}"
        try:
            effect = services.environment_preview(**arguments)
        except DomainError as error:
            lines = [message for several in error.errors.values() for message in several]
            context["refusals"] = list(dict.fromkeys(lines)) or [error.detail]
        else:
            context |= {"effect": effect, "refusals": effect.refusals, "bars": _bars(effect, user), "currency": settings.CURRENCY}
    return render(request, "web/_preview.html", context)


def _bars(effect: Preview, user: User) -> list[dict[str, Any]]:
    """Every limit that the request touches, the team's before the user's."""
    groups: dict[tuple[str, str], list[present.Bar]] = {}
    for item in sorted(effect.quota, key=lambda item: (item.scope != "team", present.resource_order(item.resource))):
        if item.limit is not None:
            groups.setdefault((item.scope, item.team), []).append(present.bar(item.resource, item.limit, item.used, item.amount))
    return [{"team": team, "person": user.username if scope == "user" else "", "bars": bars} for (scope, team), bars in groups.items()]


def _teams(user: User) -> list[Team]:
    """Teams in whose name the user may launch."""
    return list(Team.objects.filter(members=user).order_by("name"))


def _template(slug: str) -> Template:
    row = selectors.templates_enabled().filter(slug=slug).first()
    if row is None:
        raise NotFound("There is no such template.")
    return row


def _expiry_of(template: Template) -> tuple[int, timedelta]:
    """The template's default running time in seconds, and its longest."""
    return int(check_expiry(template.spec, None).total_seconds()), longest_expiry(template.spec)


def _form(row: Template, user: User, request: HttpRequest | None = None) -> LaunchForm:
    posted = request is not None and request.method == "POST"
    teams = _teams(user)
    priorities = _priorities(user, teams)
    usual = (row.spec.get("scheduling") or {}).get("priority", "")
    return LaunchForm(
        request.POST if request is not None and posted else None,
        initial=_chosen(request) if request is not None and not posted else None,
        storages=selectors.storages_usable_by(user),
        references=_references(user),
        template=row,
        teams=teams,
        expiry=_expiry_of(row),
        priorities=priorities,
        default_priority=usual if usual in {priority.slug for priority in priorities} else settings.DEFAULT_PRIORITY,
        own_zone=user.timezone,
    )


def _chosen(request: HttpRequest) -> dict[str, Any]:
    """What an address asks to have chosen already: datasets and models as `ref`, parameters as `param_<name>`."""
    chosen: dict[str, Any] = {name: value for name, value in request.GET.items() if name.startswith("param_")}
    return chosen | ({"refs": request.GET.getlist("ref")} if "ref" in request.GET else {})


def _references(user: User) -> list[tuple[str, str]]:
    """Versions of datasets and models that the user may choose from, newest first within each."""
    versions = selectors.versions_visible_to(user)
    return [(version.reference, f"{version.reference}{f' ({version.format})' if version.format else ''}") for version in versions]


def _priorities(user: User, teams: list[Team]) -> list[Priority]:
    """Classes that the user may use in one of the teams at least; which in the chosen one, the service says."""
    return [row for row in Priority.objects.all() if any(_may_use(user, team, row.slug) for team in teams)]


def _may_use(user: User, team: Team, slug: str) -> bool:
    try:
        services.priority_for(actor=user, team=team, slug=slug)
    except DomainError:
        return False
    return True


def _request_of(launch_form: LaunchForm, user: User) -> dict[str, Any]:
    """Arguments of `environment_request` and `environment_preview`."""
    typed = launch_form.cleaned_data
    return {
        "actor": user,
        "name": typed["name"],
        "template": launch_form.template_row.slug,
        "flavor": typed["flavor"],
        "team": typed["team"],
        "params": launch_form.params(),
        "expires_in": launch_form.expiry(),
        "priority": typed.get("priority") or "",
        "schedule": launch_form.schedule(),
        "mounts": launch_form.mounts(),
    }


def _by_family(flavors: list[FlavorCapacity]) -> list[tuple[str, list[FlavorCapacity]]]:
    """Flavors under the titles of their families of chips."""
    groups: dict[str, list[FlavorCapacity]] = {}
    for item in flavors:
        groups.setdefault(family_of(item.flavor), []).append(item)
    order = {family: number for number, family in enumerate(present.FAMILIES)}
    return [(present.family_title(family), groups[family]) for family in sorted(groups, key=lambda family: (order.get(family, len(order)), family))]


def _form_page(request: HttpRequest, row: Template, launch_form: LaunchForm, status: int = 200) -> HttpResponse:
    user = signed_in(request)
    flavors = [item for item in selectors.flavors_with_capacity(user) if not why_not(row.spec, item.flavor)]
    chosen = launch_form["flavor"].value() or next((item.flavor.slug for item in flavors if item.capacity.fits), "")
    context = {"section": "launch", "template": row, "form": launch_form, "chosen": chosen, "teams": _teams(user)}
    # What no node can hold is told, but not offered. While the nodes are not known everything is.
    context |= {"groups": _by_family([item for item in flavors if item.capacity.fits]), "absent": [item for item in flavors if not item.capacity.fits]}
    return render(request, "web/launch_form.html", context, status=status)
