"""What admins decide about storages: grants, secrets, and what becomes of claims that teams share."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from .. import outbound, selectors, vault
from ..errors import Conflict, Forbidden, NotFound, ValidationError
from ..models import Access, ArtifactVersion, Storage, StorageGrant, StorageSecret, Team, TeamClaim, User
from ..quantities import STORAGE
from . import ledger

MAX_SECRET = 512 * 1024  # an object of Kubernetes holds 1 MiB, and base64 makes a third more of it


def _check_admin(actor: User | None) -> None:
    if actor is not None and not (actor.is_active and actor.is_staff):
        raise Forbidden("Storages are for platform admins to grant and to set up.")


def storage_grant_set(*, actor: User | None, storage: Storage, team: Team, access: str) -> StorageGrant:
    """Let a team read, or read and write; its namespace gets what that needs after commit. `actor` None is the installation.
    Raises Forbidden, ValidationError."""
    _check_admin(actor)
    if access not in Access.values:
        raise ValidationError.field("access", f"Must be one of {', '.join(Access.values)}.")
    with transaction.atomic():
        row, _ = StorageGrant.objects.update_or_create(storage=storage, team=team, defaults={"access": access, "granted_by": actor})
        outbound.team_sync(team.slug)
        return row


def storage_grant_remove(*, actor: User | None, storage: Storage, team: Team) -> bool:
    """Take a grant away: secrets and volumes leave the team's namespace; what runs keeps what it has mounted until it stops. Raises Forbidden."""
    _check_admin(actor)
    with transaction.atomic():
        removed, _ = StorageGrant.objects.filter(storage=storage, team=team).delete()
        outbound.team_sync(team.slug)
        return bool(removed)


def storage_secret_set(*, actor: User | None, storage: Storage, key: str, value: bytes) -> StorageSecret:
    """Write a secret; it is never shown again. Raises Forbidden, ValidationError."""
    _check_admin(actor)
    if key not in storage.secret_keys:
        raise ValidationError.field("key", f"{storage.slug} has no secret {key!r}; there are {', '.join(storage.secret_keys) or 'none'}.")
    if not value or len(value) > MAX_SECRET:
        raise ValidationError.field("value", f"Must be 1 to {MAX_SECRET} bytes.")
    with transaction.atomic():
        defaults = {"sealed": vault.seal(value), "set_by": actor, "set_at": timezone.now()}
        row, _ = StorageSecret.objects.update_or_create(storage=storage, key=key, defaults=defaults)
        storage_changed(storage)
        return row


def storage_secret_clear(*, actor: User | None, storage: Storage, key: str) -> bool:
    """Forget a secret; False when it was not set. Raises Forbidden."""
    _check_admin(actor)
    with transaction.atomic():
        removed, _ = StorageSecret.objects.filter(storage=storage, key=key).delete()
        storage_changed(storage)
        return bool(removed)


def storage_changed(storage: Storage) -> None:
    """Have the namespaces of all teams that may use it brought in line, after commit."""
    for slug in selectors.teams_using(storage).values_list("slug", flat=True):
        outbound.team_sync(slug)


def storage_secrets(storage: Storage) -> dict[str, bytes]:
    """The values, for workers that put them into namespaces. Raises `vault.VaultError`."""
    return {row.key: vault.unseal(row.sealed) for row in StorageSecret.objects.filter(storage=storage)}


def team_claim_purge(*, actor: User | None, claim_id: UUID | str) -> TeamClaim:
    """Ask for a shared claim and all that is in it to be destroyed; its storage is given back when it is gone. For platform admins.

    Raises Forbidden, NotFound, Conflict (something still mounts it, or a dataset or model lies in it).
    """
    _check_admin(actor)
    with transaction.atomic():
        claim = TeamClaim.objects.select_for_update(of=("self",), no_key=True).select_related("team", "storage").filter(pk=claim_id).first()
        if claim is None:
            raise NotFound("There is no such shared volume.")
        users = selectors.environments_mounting(storage=claim.storage.slug, team=claim.team)
        if users:
            raise Conflict(f"It is mounted by {', '.join(user.name for user in users[:5])}; delete that first.")
        versions = ArtifactVersion.objects.filter(storage=claim.storage, artifact__team=claim.team).select_related("artifact")
        if versions:
            raise Conflict(f"{selectors.references(versions[:5])} lies in it; delete that first.")
        if claim.purge_requested_at is None:
            claim.purge_requested_at = timezone.now()
            claim.save(update_fields=["purge_requested_at"])
        outbound.team_sync(claim.team.slug)
        return claim


def team_claim_forget(claim_id: UUID | str) -> bool:
    """The claim is gone from the cluster: its row goes and the team's storage is given back. For the observer."""
    with transaction.atomic():
        claim = TeamClaim.objects.select_for_update(no_key=True).filter(pk=claim_id).first()
        if claim is None:
            return False
        if TeamClaim.objects.filter(pk=claim.pk).delete()[0]:
            ledger.release_team(claim.team_id, {STORAGE: claim.size_bytes})
            return True
        return False
