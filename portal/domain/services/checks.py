"""Checks of what people ask for, one field each. All raise ValidationError with the field and what would be right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings

from .. import selectors
from ..allowed import why_not
from ..durations import format_duration, parse_duration
from ..errors import ValidationError
from ..models import Flavor, Team, Template, User
from ..params import check_values
from ..shape import parameters

NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", re.ASCII)
NAME_RULE = "use 1 to 40 lower-case letters, digits and hyphens, starting with a letter and not ending with a hyphen, such as my-notebook"
MIN_EXPIRY = timedelta(minutes=5)
DEFAULT_EXPIRY = timedelta(hours=8)
DEFAULT_MAX_EXPIRY = timedelta(hours=72)


def check_name(name: object) -> str:
    """`name` when it is one. Raises ValidationError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        size = f" ({len(name)} characters given)" if isinstance(name, str) and len(name) > 40 else ""
        raise ValidationError.field("name", f"Not a name{size}: {NAME_RULE}.")
    return name


def check_expiry(template_spec: Mapping[str, Any], expires_in: timedelta | None) -> timedelta:
    """The running time granted: the template's default for None. Raises ValidationError outside of 5 minutes to the template's longest."""
    if expires_in is None:
        return parse_duration(template_spec["expires_in"]) if template_spec.get("expires_in") else DEFAULT_EXPIRY
    longest = parse_duration(template_spec["max_expires_in"]) if template_spec.get("max_expires_in") else DEFAULT_MAX_EXPIRY
    if not MIN_EXPIRY <= expires_in <= longest:
        raise ValidationError.field("expires_in", f"Choose between {format_duration(MIN_EXPIRY)} and {format_duration(longest)}.")
    return expires_in


def check_params(template_spec: Mapping[str, Any], params: object) -> dict[str, Any]:
    """Parameters with the schema's defaults filled in. Raises ValidationError naming each wrong one as `params.<name>`."""
    return check_values(parameters(template_spec), params, settings.IMAGE_PREFIXES)


def team_for(actor: User, slug: str) -> Team:
    """The team, if `actor` is in it; a team of others is as unknown as one that is not there."""
    mine = list(Team.objects.filter(memberships__user=actor))
    if not slug and len(mine) == 1:
        return mine[0]
    for team in mine:
        if team.slug == slug:
            return team
    choice = f"yours: {', '.join(team.slug for team in mine)}" if mine else "you are in no team yet; a team lead or platform admin can add you"
    raise ValidationError.field("team", f"You are in no team of that name ({choice}).")


def template_for(slug: str) -> Template:
    """The template, if it can be asked for. Raises ValidationError."""
    template = selectors.templates_enabled().filter(slug=str(slug)[:60]).first()
    if template is None:
        raise ValidationError.field("template", f"There is no such template; there are {', '.join(t.slug for t in selectors.templates_enabled()) or 'none'}.")
    return template


def flavor_for(slug: str) -> Flavor:
    """The flavor, if it can be asked for. Raises ValidationError."""
    enabled = Flavor.objects.filter(enabled=True).select_related("accelerator", "network")
    flavor = enabled.filter(slug=str(slug)[:60]).first()
    if flavor is None or (flavor.accelerator and not flavor.accelerator.enabled) or (flavor.network and not flavor.network.enabled):
        raise ValidationError.field("flavor", f"There is no such flavor; there are {', '.join(f.slug for f in enabled) or 'none'}.")
    return flavor


def check_flavor(template_spec: Mapping[str, Any], flavor: Flavor) -> None:
    """Whether the template takes the flavor. Raises ValidationError that says which it takes."""
    why = why_not(template_spec, flavor)
    if why:
        usable = ", ".join(other.slug for other in selectors.flavors_of(template_spec)) or "none of those that there are"
        raise ValidationError.field("flavor", f"{flavor.slug} cannot be used with template {template_spec['slug']}: {why}. Allowed: {usable}.")
