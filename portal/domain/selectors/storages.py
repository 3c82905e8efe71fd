"""Storages: which team may do what with which, and what is found of datasets and models."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Q, QuerySet

from ..errors import NotFound, ValidationError
from ..lifecycle import State
from ..models import Access, Artifact, ArtifactVersion, Environment, Storage, StorageGrant, Team, TeamClaim, Template, User
from .capacity import templates_enabled
from .teams import teams_led_by

REFERENCE = re.compile(r"(dataset|model):([a-z0-9](?:[-._a-z0-9]{0,58}[a-z0-9])?)(?:@(latest|[1-9][0-9]{0,8}))?")


@dataclass(frozen=True, kw_only=True)
class StorageUse:
    """A storage as a user may use it: what each of the user's teams may do, by slug."""

    storage: Storage
    access: dict[str, str]  # team slug -> "read" | "write"


def storage_access(team: Team) -> dict[str, tuple[Storage, str]]:
    """Storages that the team may use, by slug, with "read" or "write": by a grant, else by what everyone may."""
    grants = dict(StorageGrant.objects.filter(team=team).values_list("storage_id", "access"))
    found = {}
    for storage in Storage.objects.filter(enabled=True):
        access = grants.get(storage.pk) or storage.everyone
        if Access.WRITE in (access, storage.everyone):
            access = Access.WRITE.value
        if access:
            found[storage.slug] = (storage, access)
    return found


def storages_usable_by(user: User) -> list[StorageUse]:
    """Storages that at least one of the user's teams may use."""
    if not user.is_active or not user.is_authenticated:
        return []
    uses: dict[str, StorageUse] = {}
    for team in Team.objects.filter(memberships__user=user).order_by("slug"):
        for slug, (storage, access) in storage_access(team).items():
            uses.setdefault(slug, StorageUse(storage=storage, access={})).access[team.slug] = access
    return sorted(uses.values(), key=lambda use: (use.storage.position, use.storage.slug))


def teams_using(storage: Storage) -> QuerySet[Team]:
    """Teams in whose namespaces something of the storage may be."""
    return Team.objects.all() if storage.everyone else Team.objects.filter(storage_grants__storage=storage)


def mountable(storage: Storage) -> bool:
    """Whether it appears as a folder that outlives environments, so that datasets and models can lie in it."""
    return storage.kind in (Storage.Kind.CLAIM, Storage.Kind.NFS) or "csi" in storage.spec


def environments_mounting(*, storage: str = "", reference: str = "", team: Team | None = None) -> list[Environment]:
    """Environments that are not deleted and mount the storage, or the version of a dataset or model. JSON is searched here: two databases, few rows."""
    query = Environment.objects.exclude(state=State.DELETED).exclude(mounts=[])
    if team is not None:
        query = query.filter(team=team)
    return [
        environment
        for environment in query.select_related("team", "owner")
        if any((storage and entry.get("storage") == storage) or (reference and entry.get("ref") == reference) for entry in environment.mounts)
    ]


def team_claims(team: Team | None = None) -> QuerySet[TeamClaim]:
    """Shared claims of a team, or of all."""
    query = TeamClaim.objects.select_related("team", "storage")
    return query if team is None else query.filter(team=team)


def artifacts_visible_to(user: User, kind: str = "") -> QuerySet[Artifact]:
    """Datasets and models: one's own, those of one's team that are shown to it, those shown to everyone; leads see all of their team."""
    query = Artifact.objects.select_related("owner", "team")
    if kind:
        query = query.filter(kind=kind)
    if not user.is_active or not user.is_authenticated:
        return query.none()
    if user.is_staff:
        return query
    shown = Q(visibility=Artifact.Visibility.TEAM) & Q(team__memberships__user=user)
    mine = Q(owner=user) | Q(visibility=Artifact.Visibility.EVERYONE) | shown | Q(team__in=teams_led_by(user))
    return query.filter(mine).distinct()


def artifacts_search(rows: QuerySet[Artifact], text: str) -> QuerySet[Artifact]:
    """Those of `rows` whose name or description holds the text."""
    text = text[:100].replace("\x00", "")
    return rows.filter(Q(name__icontains=text) | Q(description__icontains=text)) if text else rows


def artifact_get(user: User, kind: str, name: str) -> Artifact:
    """The dataset or model, or NotFound when it is absent or not visible to `user`."""
    found = artifacts_visible_to(user, kind).filter(name=str(name)[:60].replace("\x00", "")).first()
    if found is None:
        raise NotFound(f"There is no such {kind}.")
    return found


def templates_serving() -> dict[str, list[Template]]:
    """Templates that serve models, by the format they serve; under "" those that serve any."""
    found: dict[str, list[Template]] = {}
    for template in templates_enabled():
        serves = template.spec.get("serves")
        for name in (serves.get("formats") or [""]) if serves else ():
            found.setdefault(name, []).append(template)
    return found


def artifact_editable_by(user: User, artifact: Artifact) -> bool:
    """Its owner, the leads of its team and platform admins may change it."""
    return user.is_active and (user.is_staff or artifact.owner_id == user.pk or teams_led_by(user).filter(pk=artifact.team_id).exists())


def version_find(user: User, reference: str, *, field: str) -> ArtifactVersion:
    """The version that `dataset:NAME@3` or `model:NAME@latest` names; no number means the latest. Raises ValidationError for `field`."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise ValidationError.field(field, "Write a reference such as dataset:imagenet@3 or model:resnet@latest.")
    kind, name, number = match.groups()
    artifact = artifacts_visible_to(user, kind).filter(name=name).first()
    if artifact is None:
        raise ValidationError.field(field, f"There is no such {kind}, or it is not shown to you.")
    versions = ArtifactVersion.objects.filter(artifact=artifact).select_related("artifact__team", "storage", "volume__team")
    version = versions.order_by("-number").first() if number in (None, "latest") else versions.filter(number=int(number)).first()
    if version is None:
        there = ", ".join(str(each) for each in versions.order_by("number").values_list("number", flat=True)[:20])
        raise ValidationError.field(field, f"{kind}:{name} has no such version; there are {there or 'none yet'}.")
    return version


def versions_of(artifact: Artifact) -> QuerySet[ArtifactVersion]:
    """Newest first."""
    return artifact.versions.select_related("artifact", "storage", "volume", "environment", "created_by").order_by("-number")


def versions_visible_to(user: User, limit: int = 300) -> list[ArtifactVersion]:
    """Versions of datasets and models that are shown to the user, by name, newest first within each."""
    rows = ArtifactVersion.objects.filter(artifact__in=artifacts_visible_to(user)).select_related("artifact")
    return list(rows.order_by("artifact__kind", "artifact__name", "-number")[:limit])


def references(versions: Iterable[ArtifactVersion]) -> str:
    """As words: model:resnet@1, model:resnet@2."""
    return ", ".join(version.reference for version in versions)
