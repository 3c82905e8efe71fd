"""Data: datasets, models, the storages one may use, and registering more."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from portal.domain import selectors, services
from portal.domain.errors import DomainError, Forbidden, NotFound
from portal.domain.models import Artifact, ArtifactVersion, Environment, Team, User

from ..forms.data import ArtifactChangeForm, ArtifactForm, RegisterForm, VersionForm
from ..http import complain, page, signed_in
from ..present import localized

_SHOWN = 200


def _kind(kind: str) -> str:
    if kind not in Artifact.Kind.values:
        raise NotFound("There is nothing of that kind.")
    return kind


def _teams(user: User) -> list[Team]:
    return list(Team.objects.filter(members=user).order_by("name"))


@require_GET
@page
def index(request: HttpRequest) -> HttpResponse:
    """Datasets, models, and storages that one's teams may use."""
    user, text = signed_in(request), request.GET.get("q", "")
    found = {
        kind: list(selectors.artifacts_search(selectors.artifacts_visible_to(user, kind), text).order_by("name")[:_SHOWN]) for kind in Artifact.Kind.values
    }
    context = {
        "section": "data",
        "q": text,
        "groups": [{"kind": kind, "rows": rows} for kind, rows in found.items()],
        "storages": selectors.storages_usable_by(user),
        "teams": _teams(user),
    }
    return render(request, "web/data.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def new(request: HttpRequest, kind: str) -> HttpResponse:
    """Register a name."""
    user = signed_in(request)
    form = ArtifactForm(request.POST if request.method == "POST" else None, teams=_teams(user))
    status = 200
    if request.method == "POST":
        if form.is_valid():
            try:
                artifact = services.artifact_create(actor=user, kind=_kind(kind), **form.cleaned_data)
            except DomainError as error:
                form.refuse(error.detail, error.errors)
            else:
                return redirect("artifact", kind, artifact.name)
        status = 422
    return render(request, "web/artifact_new.html", {"section": "data", "kind": _kind(kind), "form": form, "teams": _teams(user)}, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def detail(request: HttpRequest, kind: str, name: str) -> HttpResponse:
    """One dataset or model and its versions; posting adds a version."""
    user = signed_in(request)
    artifact = selectors.artifact_get(user, _kind(kind), name)
    form = VersionForm(request.POST if request.method == "POST" else None, storages=_storages(artifact))
    status = 200
    if request.method == "POST":
        if form.is_valid():
            try:
                version = services.artifact_version_add(actor=user, kind=kind, name=name, **form.version())
            except (NotFound, Forbidden):
                raise
            except DomainError as error:
                form.refuse(error.detail, error.errors)
            else:
                messages.success(request, _("%(reference)s is registered.") % {"reference": version.reference})
                return redirect("artifact", kind, name)
        status = 422
    editable = selectors.artifact_editable_by(user, artifact)
    context = {
        "section": "data",
        "artifact": artifact,
        "versions": [{"version": version, "serve": _serve(version)} for version in selectors.versions_of(artifact)],
        "editable": editable,
        "form": form if editable else None,
        "change_form": ArtifactChangeForm(initial={"visibility": artifact.visibility, "description": artifact.description}) if editable else None,
    }
    return render(request, "web/artifact.html", context, status=status)


def _storages(artifact: Artifact) -> list[tuple[str, str]]:
    access = selectors.storage_access(artifact.team)
    return [(slug, localized(storage.title) or slug) for slug, (storage, _may) in access.items() if selectors.mountable(storage)]


def _serve(version: ArtifactVersion) -> list[dict[str, str]]:
    """Templates that serve the version, each with the address of its launch form, the model chosen already."""
    if version.artifact.kind != Artifact.Kind.MODEL:
        return []
    serving = selectors.templates_serving()
    place = f"/models/{version.artifact.name}"
    inside = place if "." in version.path.rsplit("/", 1)[-1] else f"{place}/model.{version.format or 'bin'}"
    found = []
    for template in [*serving.get(version.format, []), *(serving.get("", []) if version.format else [])]:
        param = template.spec["serves"].get("param", "model")
        query = urlencode({"ref": version.reference, f"param_{param}": inside})
        found.append({"slug": template.slug, "title": localized(template.title), "query": query})
    return found


@require_POST
@page
def change(request: HttpRequest, kind: str, name: str) -> HttpResponse:
    user, form = signed_in(request), ArtifactChangeForm(request.POST)
    selectors.artifact_get(user, _kind(kind), name)
    if form.is_valid():
        services.artifact_update(actor=user, kind=kind, name=name, **form.cleaned_data)
        messages.success(request, _("It was changed."))
    return redirect("artifact", kind, name)


@require_POST
@page
def delete(request: HttpRequest, kind: str, name: str) -> HttpResponse:
    try:
        services.artifact_delete(actor=signed_in(request), kind=_kind(kind), name=name)
    except (NotFound, Forbidden):
        raise
    except DomainError as error:
        complain(request, error)
        return redirect("artifact", kind, name)
    messages.success(request, _("It is off the list. Its files stay where they are."))
    return redirect("data")


@require_POST
@page
def version_delete(request: HttpRequest, kind: str, name: str, number: int) -> HttpResponse:
    try:
        services.artifact_version_delete(actor=signed_in(request), kind=_kind(kind), name=name, number=number)
    except (NotFound, Forbidden):
        raise
    except DomainError as error:
        complain(request, error)
    else:
        messages.success(request, _("It is off the list. Its files stay where they are."))
    return redirect("artifact", kind, name)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def register(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Register what an environment made, with its lineage."""
    user = signed_in(request)
    environment = selectors.environment_get(user, environment_id)
    form = RegisterForm(request.POST if request.method == "POST" else None, storages=_places(environment))
    status = 200
    if request.method == "POST":
        if form.is_valid():
            try:
                version = _register(user, environment, form)
            except (NotFound, Forbidden):
                raise
            except DomainError as error:
                form.refuse(error.detail, error.errors)
            else:
                messages.success(request, _("%(reference)s is registered.") % {"reference": version.reference})
                return redirect("artifact", version.artifact.kind, version.artifact.name)
        status = 422
    return render(request, "web/artifact_register.html", {"section": "data", "environment": environment, "form": form}, status=status)


def _register(user: User, environment: Environment, form: RegisterForm) -> ArtifactVersion:
    typed = form.cleaned_data
    with transaction.atomic():
        if not selectors.artifacts_visible_to(user, typed["kind"]).filter(name=typed["name"]).exists():
            services.artifact_create(actor=user, kind=typed["kind"], name=typed["name"], team=environment.team.slug, visibility=typed["visibility"])
        return services.artifact_version_add(actor=user, kind=typed["kind"], name=typed["name"], environment_id=environment.pk, **form.version())


def _places(environment: Environment) -> list[tuple[str, str]]:
    """Where an environment can have left something that outlives it: its home volume, and what it mounts to write."""
    access = selectors.storage_access(environment.team)
    found = [("", _("Home volume"))] if environment.volume_id else []
    for entry in environment.mounts:
        storage = access.get(entry["storage"], (None, ""))[0]
        if storage is not None and not entry["ref"] and not entry["read_only"] and selectors.mountable(storage):
            found.append((storage.slug, f"{localized(storage.title)} ({entry['mount_path']})"))
    return found
