"""The next start of an environment whose version of a template was replaced: with the later version, where that can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from .. import selectors
from ..durations import format_duration
from ..errors import ValidationError
from ..models import Environment, Event, TemplateVersion
from ..shape import parameters, role_shapes, scalable_param
from .checks import check_expiry, check_flavor, check_params


@dataclass(frozen=True, kw_only=True)
class Following:
    """What changes of an environment that starts with a later version, and what is to be told: (kind, code, message). Both empty: nothing."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    says: tuple[tuple[str, str, str], ...] = ()


def following(environment: Environment) -> Following:
    """What the next start of a locked environment makes of redirects. One that cannot use the later version keeps its own, with a warning."""
    number = selectors.next_version(environment)
    row = TemplateVersion.objects.filter(template_id=environment.template_id, version=number).first() if number else None
    if row is None:
        return Following()
    before, slug = environment.template_version, environment.template.slug
    try:
        changes, also = _carried(environment, row.spec)
    except ValidationError as error:
        why = " ".join(message for messages in error.errors.values() for message in messages)
        message = f"Version {row.version} of template {slug} replaces version {before}, but it cannot start with that, so it keeps its own: {why}"
        return Following(says=((Event.Kind.WARNING, "TemplateKept", message),))
    changes |= {"template_version": row.version, "template_spec": row.spec}
    message = f"Version {row.version} of template {slug} replaces version {before}; it starts with that."
    return Following(changes=changes, says=((Event.Kind.INFO, "TemplateReplaced", " ".join([message, *also])),))


def _carried(environment: Environment, spec: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Changed columns, and sentences beside. Raises ValidationError: what was asked for does not go with `spec`."""
    if ("home" in spec) != (environment.volume_id is not None):
        has, lacks = ("it", "this environment") if "home" in spec else ("this environment", "it")
        raise ValidationError.field("home", f"{has} has a home volume, {lacks} has none.")
    check_flavor(spec, environment.flavor)
    params, gone = _params(environment, spec)
    shapes = role_shapes(spec, params, environment.flavor.shape())
    if why := selectors.why_never_fits(shapes):
        raise ValidationError.field("flavor", f"{why}.")
    changes: dict[str, Any] = {"params": params, "workers": next((shape.replicas for shape in shapes if shape.scalable), 0)}
    also = [f"It no longer has {', '.join(gone)}."] if gone else []
    if environment.expires_in is not None:
        granted = timedelta(seconds=environment.expires_in)
        try:
            check_expiry(spec, granted)
        except ValidationError:
            usual = check_expiry(spec, None)
            changes["expires_in"] = int(usual.total_seconds())
            also.append(f"It runs for {format_duration(usual)} instead of {format_duration(granted)}, which that does not allow.")
    return changes, also


def _params(environment: Environment, spec: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Its parameters for `spec`, and the names of those that fell away: a value that somebody chose never does."""
    known = parameters(spec)["properties"]
    defaults = parameters(environment.template_spec)["properties"]
    gone = sorted(name for name in environment.params if name not in known)
    counts = scalable_param(environment.template_spec), scalable_param(spec)
    chosen = [name for name in gone if name != counts[0] and environment.params[name] != defaults.get(name, {}).get("default")]
    if chosen:
        raise ValidationError.field("params", f"it has no parameter {', '.join(chosen)}.")
    given = {name: value for name, value in environment.params.items() if name in known}
    if counts[1] and (counts[0] or environment.workers):
        given[counts[1]] = environment.workers
    return check_params(spec, given), gone
