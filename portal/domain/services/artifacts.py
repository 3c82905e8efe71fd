"""Datasets and models: registering them and their versions, and taking them off the list. The data itself is never touched."""

from __future__ import annotations

import posixpath
import re
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F

from .. import selectors
from ..errors import Conflict, Forbidden, NotFound, ValidationError
from ..models import Artifact, ArtifactVersion, Environment, Membership, Storage, Team, User, Volume
from .mounts import why_not_in

NAME = re.compile(r"[a-z0-9]([-._a-z0-9]{0,58}[a-z0-9])?", re.ASCII)
_CHECKSUM = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}|md5:[0-9a-f]{32})")
_FORMAT = re.compile(r"[a-z0-9][-._a-z0-9]{0,39}")


def _team_for(actor: User, slug: str) -> Team:
    mine = list(Team.objects.filter(memberships__user=actor))
    chosen = mine[0] if not slug and len(mine) == 1 else next((team for team in mine if team.slug == slug), None)
    if chosen is None:
        raise ValidationError.field("team", f"You are in no team of that name; yours: {', '.join(team.slug for team in mine) or 'none'}.")
    return chosen


def artifact_create(*, actor: User, kind: str, name: str, team: str = "", description: str = "", visibility: str = "team") -> Artifact:
    """Register a dataset or a model, still without a version. Raises ValidationError, Forbidden."""
    if not User.objects.filter(pk=actor.pk, is_active=True).exists():
        raise Forbidden("This account is deactivated.")
    if kind not in Artifact.Kind.values:
        raise ValidationError.field("kind", f"Must be one of {', '.join(Artifact.Kind.values)}.")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValidationError.field("name", "Use 1 to 60 lower-case letters, digits, dots, underscores and hyphens, such as imagenet-1k.")
    owner_team = _team_for(actor, team)
    _check_visibility(visibility)
    taken = ValidationError.field("name", f"There is a {kind} called {name} already; choose another name.")
    try:
        with transaction.atomic():
            return Artifact.objects.create(
                kind=kind, name=name, owner=actor, team=owner_team, description=_text(description, "description"), visibility=visibility
            )
    except IntegrityError:
        raise taken from None


def _check_visibility(visibility: str) -> None:
    if visibility not in Artifact.Visibility.values:
        raise ValidationError.field("visibility", f"Must be one of {', '.join(Artifact.Visibility.values)}.")


def _text(text: str, field: str) -> str:
    if not isinstance(text, str) or len(text) > 4000 or "\x00" in text:
        raise ValidationError.field(field, "Must be text of at most 4000 characters.")
    return text


def _editable(actor: User, kind: str, name: str) -> Artifact:
    """Locked. Raises NotFound for those who may not see it, Forbidden for those who may only look."""
    artifact = selectors.artifact_get(actor, kind, name)
    if not selectors.artifact_editable_by(actor, artifact):
        raise Forbidden(f"{artifact} is changed by {artifact.owner.username}, the leads of team {artifact.team.slug}, and platform admins.")
    locked = Artifact.objects.select_for_update(of=("self",), no_key=True).select_related("owner", "team").filter(pk=artifact.pk).first()
    if locked is None:
        raise NotFound(f"There is no such {kind}.")
    return locked


def artifact_update(*, actor: User, kind: str, name: str, description: str | None = None, visibility: str | None = None) -> Artifact:
    """Change what is said of it and who sees it; what is mounted already stays. Raises NotFound, Forbidden, ValidationError."""
    with transaction.atomic():
        artifact = _editable(actor, kind, name)
        if description is not None:
            artifact.description = _text(description, "description")
        if visibility is not None:
            _check_visibility(visibility)
            artifact.visibility = visibility
        artifact.save(update_fields=["description", "visibility"])
        return artifact


def artifact_delete(*, actor: User, kind: str, name: str) -> None:
    """Take it with all its versions off the list; the files stay where they are. Raises NotFound, Forbidden, Conflict (something mounts it)."""
    with transaction.atomic():
        artifact = _editable(actor, kind, name)
        for version in artifact.versions.all():
            _refuse_mounted(version)
        artifact.delete()


def artifact_version_delete(*, actor: User, kind: str, name: str, number: int) -> None:
    """Take one version off the list; its number is not given again. Raises NotFound, Forbidden, Conflict (something mounts it)."""
    with transaction.atomic():
        artifact = _editable(actor, kind, name)
        version = artifact.versions.filter(number=number).select_related("artifact").first()
        if version is None:
            raise NotFound(f"{artifact} has no such version.")
        _refuse_mounted(version)
        version.delete()


def _refuse_mounted(version: ArtifactVersion) -> None:
    users = selectors.environments_mounting(reference=version.reference)
    if users:
        named = ", ".join(f"{user.name} of {user.owner.username}" for user in users[:5])
        raise Conflict(f"{version.reference} is mounted by {named}; delete that environment first.")


def artifact_version_add(
    *,
    actor: User,
    kind: str,
    name: str,
    path: str,
    storage: str = "",
    environment_id: UUID | str = "",
    description: str = "",
    format: str = "",
    size_bytes: int | None = None,
    checksum: str = "",
) -> ArtifactVersion:
    """Register what lies at `path` of a storage, or of an environment's home volume or shared volume, as the next version.

    With `environment_id` the lineage is kept: the environment, its template's version, and what it mounts. `storage` may be left out then:
    the home volume is meant. The checksum is the caller's own, kept as given. Raises NotFound, Forbidden, ValidationError.
    """
    errors: dict[str, list[str]] = {}
    where = _checked_path(path, errors)
    if checksum and not _CHECKSUM.fullmatch(checksum):
        errors["checksum"] = ["Must be sha256:, sha512: or md5: and the digest in lower-case hex."]
    if format and not _FORMAT.fullmatch(format):
        errors["format"] = ["Must be a word such as onnx, safetensors or parquet."]
    if size_bytes is not None and (isinstance(size_bytes, bool) or not isinstance(size_bytes, int) or not 0 <= size_bytes < 2**62):
        errors["size_bytes"] = ["Must be a whole number of bytes."]
    if errors:
        raise ValidationError(" ".join(message for messages in errors.values() for message in messages), errors=errors)
    text = _text(description, "description")
    with transaction.atomic():
        artifact = _editable(actor, kind, name)
        environment = selectors.environment_get(actor, environment_id) if environment_id else None
        place = _place(actor, artifact, storage, environment)
        Artifact.objects.filter(pk=artifact.pk).update(last_number=F("last_number") + 1)
        version = ArtifactVersion(
            artifact=artifact,
            number=Artifact.objects.values_list("last_number", flat=True).get(pk=artifact.pk),
            path=where,
            description=text,
            format=format,
            size_bytes=size_bytes,
            checksum=checksum,
            environment=environment,
            lineage=_lineage(environment),
            created_by=actor,
            **place,
        )
        why = why_not_in(artifact.team, version, selectors.storage_access(artifact.team))
        if why:
            raise ValidationError.field("storage" if storage else "environment", why)
        version.save()
        return version


def _checked_path(path: Any, errors: dict[str, list[str]]) -> str:
    """`path` without a leading slash, so that it cannot leave the volume. A subPath of Kubernetes refuses `..` too."""
    where = path.strip().strip("/") if isinstance(path, str) else ""
    if not where or len(where) > 500 or ".." in where.split("/") or posixpath.normpath(where) != where or any(ord(c) < 32 or c in "\\:" for c in where):
        errors["path"] = ["Must be a folder or file within the volume, such as runs/7/model, without .. in it."]
    return where


def _place(actor: User, artifact: Artifact, storage: str, environment: Environment | None) -> dict[str, Any]:
    """The storage or the locked home volume in which it lies."""
    if storage:
        found = selectors.storage_access(artifact.team).get(storage)
        member = actor.is_staff or Membership.objects.filter(team=artifact.team, user=actor).exists()
        if found is None or not member:
            raise ValidationError.field("storage", f"Team {artifact.team.slug} may use no storage of that name.")
        if not selectors.mountable(found[0]):
            raise ValidationError.field("storage", f"{storage} is not a folder that outlives environments, so nothing can be registered from it.")
        return {"storage": Storage.objects.get(pk=found[0].pk)}
    if environment is None:
        raise ValidationError.field("storage", "Name the storage in which it lies, or the environment in whose home volume it does.")
    if environment.volume_id is None:
        raise ValidationError.field("environment", f"{environment.name} has no home volume; name the storage in which it lies.")
    volume = Volume.objects.select_for_update(no_key=True).get(pk=environment.volume_id)
    if volume.purge_requested_at or environment.purge:
        raise ValidationError.field("environment", f"The home volume of {environment.name} is being purged.")
    return {"volume": volume}


def _lineage(environment: Environment | None) -> dict[str, Any]:
    if environment is None:
        return {}
    return {
        "environment": str(environment.pk),
        "name": environment.name,
        "template": environment.template.slug,
        "template_version": environment.template_version,
        "inputs": [entry["ref"] for entry in environment.mounts if entry["ref"]],
    }
