"""Who is in which team, and the end of an account."""

from __future__ import annotations

import re

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils import timezone

from .. import outbound, selectors
from ..errors import Conflict, Forbidden, NotFound, ValidationError
from ..lifecycle import Desired, State
from ..models import ApiToken, Environment, Membership, Team, User
from .events import lock, write
from .quota import quota_rows_ensure

_SLUG = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", re.ASCII)


def _check_may_change(actor: User | None, team: Team) -> None:
    """Leads of the team and platform admins; `actor` None is the installation itself (sign-in claims, seeds)."""
    if actor is None or (actor.is_active and actor.is_staff):
        return
    if not actor.is_active or not Membership.objects.filter(team=team, user=actor).exists():
        raise NotFound("There is no such team.")
    if not selectors.teams_led_by(actor).filter(pk=team.pk).exists():
        raise Forbidden("Members are set by the leads of the team and by platform admins.")


def check_team_slug(slug: object) -> None:
    """A team's slug is part of its namespace's name. Raises ValidationError."""
    if not isinstance(slug, str) or not _SLUG.fullmatch(slug):
        raise ValidationError.field("slug", "Use 1 to 40 lower-case letters, digits and hyphens, starting with a letter and not ending with a hyphen.")


def team_create(*, actor: User | None, slug: str, name: str) -> Team:
    """A new team with its quota rows: no accelerators until granted. Asking for one that is there returns it. Raises Forbidden, ValidationError."""
    if actor is not None and not (actor.is_active and actor.is_staff):
        raise Forbidden("Teams are made by platform admins.")
    check_team_slug(slug)
    with transaction.atomic():
        team, created = Team.objects.get_or_create(slug=slug, defaults={"name": name})
        if created:
            quota_rows_ensure(team)
            outbound.team_sync(team.slug)
    return team


def membership_set(*, actor: User | None, team: Team, user: User, role: str = Membership.Role.ENGINEER) -> Membership:
    """Put `user` into the team with this role. Raises Forbidden, NotFound, ValidationError."""
    _check_may_change(actor, team)
    if role not in Membership.Role.values:
        raise ValidationError.field("role", f"Must be one of {', '.join(Membership.Role.values)}.")
    with transaction.atomic():
        row, _ = Membership.objects.update_or_create(team=team, user=user, defaults={"role": role})
        outbound.team_sync(team.slug)
    return row


def membership_remove(*, actor: User | None, team: Team, user: User) -> bool:
    """Take `user` out of the team; his environments there are stopped. False when he was not in it. Raises Forbidden, NotFound."""
    _check_may_change(actor, team)
    with transaction.atomic():
        # Serialises with a request of the same user, which checks its membership under this lock.
        User.objects.select_for_update(no_key=True).filter(pk=user.pk).first()
        deleted, _ = Membership.objects.filter(team=team, user=user).delete()
        if not deleted:
            return False
        mine = Environment.objects.filter(owner=user, team=team)
        stop_all(mine, actor, reason="LeftTeam", message=f"{user.username} is no longer in team {team.slug}, so it is stopped.")
        outbound.team_sync(team.slug)
    return True


def user_deactivate(*, actor: User | None, user: User) -> User:
    """End every access of `user`: sign-in, sessions, API and OIDC tokens, the Hub; his environments are stopped. Raises Forbidden, Conflict.

    The database part is one transaction; the Hub is told by a worker after commit.
    """
    if actor is not None and not (actor.is_active and actor.is_staff):
        raise Forbidden("Accounts are deactivated by platform admins.")
    if actor is not None and actor.pk == user.pk:
        raise Conflict("You cannot deactivate your own account.")
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).filter(pk=user.pk).first()
        User.objects.filter(pk=user.pk).update(is_active=False)
        user.is_active = False
        ApiToken.objects.filter(user=user, revoked_at=None).update(revoked_at=timezone.now())
        _revoke_sign_ins(user)
        stop_all(
            Environment.objects.filter(owner=user), actor, reason="OwnerDeactivated", message=f"The account {user.username} was deactivated, so it is stopped."
        )
        outbound.hub_revoke(user.username)
    return user


def _revoke_sign_ins(user: User) -> None:
    from oauth2_provider.models import get_access_token_model, get_grant_model, get_id_token_model, get_refresh_token_model

    for model in (get_refresh_token_model(), get_access_token_model(), get_id_token_model(), get_grant_model()):
        model.objects.filter(user=user).delete()
    # Sessions carry no user column; is_active=False already shuts them out, so this only tidies the live ones.
    mine = [s.pk for s in Session.objects.filter(expire_date__gt=timezone.now()).iterator() if str(s.get_decoded().get(SESSION_KEY)) == str(user.pk)]
    Session.objects.filter(pk__in=mine).delete()


def stop_all(query: object, actor: User | None, *, reason: str, message: str) -> None:
    """Stop those of a query of environments that are wanted running."""
    wanted = query.filter(desired=Desired.RUNNING).exclude(state=State.DELETED)  # type: ignore[attr-defined]
    for pk in wanted.order_by("pk").values_list("pk", flat=True):
        environment = lock(pk)
        if environment and environment.desired == Desired.RUNNING:
            changes = {"desired": Desired.STOPPED.value, "reason": reason, "message": message}
            write(environment, actor=actor, code=reason, message=message, changes=changes)
