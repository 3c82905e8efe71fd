"""Exceptions to restricted Pod Security: a platform admin allows a team's pods one Linux capability, and takes that back."""

from __future__ import annotations

import logging
import re

from django.db import transaction
from django.utils import timezone

from .. import outbound
from ..errors import Conflict, Forbidden, NotFound, ValidationError
from ..lifecycle import Desired
from ..models import Environment, Flavor, PodException, Team, User
from ..selectors import platform_admins
from .teams import stop_all

logger = logging.getLogger(__name__)

_CAPABILITY = re.compile(r"[A-Z][A-Z_]{1,38}[A-Z]", re.ASCII)
# What gives a pod its node, or the network of all: no device needs it.
_NEVER = frozenset(
    {"ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "SYS_BOOT", "NET_ADMIN", "DAC_READ_SEARCH", "BPF", "MAC_ADMIN", "MAC_OVERRIDE"}
)


def _check_may_grant(actor: User | None) -> None:
    """Platform admins; `actor` None is the installation itself (seeds)."""
    if actor is not None and not (actor.is_active and actor.is_staff):
        raise Forbidden("Exceptions to Pod Security are granted and revoked by platform admins.")


def check_capability(capability: object) -> str:
    """`capability` when it is one that may be granted. Raises ValidationError."""
    name = capability.removeprefix("CAP_") if isinstance(capability, str) else ""
    if not _CAPABILITY.fullmatch(name):
        raise ValidationError.field("capability", "Name a Linux capability in capitals, such as IPC_LOCK.")
    if name in _NEVER:
        raise ValidationError.field("capability", f"{name} would give a pod power over its node; it cannot be granted.")
    return name


def exception_grant(*, actor: User | None, team: Team, capability: str, reason: str) -> PodException:
    """Let the team's pods have a capability. Raises Forbidden, ValidationError, Conflict (it has it already)."""
    _check_may_grant(actor)
    name = check_capability(capability)
    reason = str(reason).strip()
    if not reason or len(reason) > 300:
        raise ValidationError.field("reason", "Say in up to 300 characters what the team needs it for.")
    with transaction.atomic():
        Team.objects.select_for_update(no_key=True).get(pk=team.pk)  # two grants at once: the second finds the first
        if PodException.objects.filter(team=team, capability=name, revoked_at=None).exists():
            raise Conflict(f"Team {team.slug} has an exception for {name} already.")
        row = PodException.objects.create(team=team, capability=name, reason=reason, granted_by=actor)
        outbound.team_sync(team.slug)
    logger.info("pod exception granted: team=%s capability=%s by=%s", team.slug, name, actor.username if actor else "installation")
    return row


def exception_revoke(*, actor: User | None, exception_id: int) -> PodException:
    """Take it back; the team's environments that need it are stopped. Raises Forbidden, NotFound, Conflict (revoked before)."""
    _check_may_grant(actor)
    with transaction.atomic():
        row = PodException.objects.select_for_update(no_key=True, of=("self",)).select_related("team").filter(pk=exception_id).first()
        if row is None:
            raise NotFound("There is no such exception.")
        if row.revoked_at is not None:
            raise Conflict(f"The exception of team {row.team.slug} for {row.capability} was revoked before.")
        row.revoked_at, row.revoked_by = timezone.now(), actor
        row.save(update_fields=["revoked_at", "revoked_by"])
        running = Environment.objects.filter(team=row.team, desired=Desired.RUNNING).select_related("flavor__accelerator", "flavor__network").order_by("pk")
        affected = [one.pk for one in running if row.capability in one.flavor.capabilities()]
        stop_all(
            Environment.objects.filter(pk__in=affected),
            actor,
            reason="ExceptionRevoked",
            message=f"Team {row.team.slug} may no longer use {row.capability}, which its flavor needs, so it is stopped.",
        )
        outbound.team_sync(row.team.slug)
    logger.info("pod exception revoked: team=%s capability=%s by=%s", row.team.slug, row.capability, actor.username if actor else "installation")
    return row


def check_exceptions(team: Team, flavor: Flavor, *, lock: bool = False) -> None:
    """Whether the team's pods may have what the flavor needs. Raises ValidationError naming `flavor` and who can grant it.

    `lock`: keep that so until the transaction ends.
    """
    needed = flavor.capabilities()
    if not needed:
        return
    live = PodException.objects.filter(team=team, revoked_at=None, capability__in=needed)
    granted = {row.capability for row in (live.select_for_update(no_key=True) if lock else live)}
    missing = [name for name in needed if name not in granted]
    if missing:
        admins = [person.username for person in platform_admins()[:3]]
        who = f"a platform admin ({', '.join(admins)})" if admins else "a platform admin"
        raise ValidationError.field(
            "flavor",
            f"{flavor.slug} needs {', '.join(missing)}, an exception to restricted Pod Security that team {team.slug} does not have; ask {who} to grant it, "
            "or choose another flavor.",
        )
