"""Filters and tags of the pages: icons, quantities, texts of the catalogue, states in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from django import template
from django.conf import settings
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language

from portal.domain import autoscale, selectors
from portal.domain.models import Environment, Priority, User

from ..forms.base import duration_title
from ..phrases import known as known_phrase
from ..present import APPROVALS, NOTIFICATION_ICONS, amount, bytes_text, cores_text, localized, look, resource_title, schedule_words, step_state

register = template.Library()

_FALLBACK_ICON = "box"


@lru_cache(maxsize=256)
def _icon_body(name: str) -> str:
    """The drawing of a vendored icon without its outer element. Unknown names get a box: template icons are catalogue data."""
    if not re.fullmatch(r"[a-z0-9-]+", name):
        name = _FALLBACK_ICON
    path = settings.BASE_DIR / "static" / "vendor" / "tabler-icons" / f"{name}.svg"
    if not path.is_file():
        return _icon_body(_FALLBACK_ICON)
    return re.sub(r"\s+", " ", re.sub(r"^.*?<svg[^>]*>|</svg>\s*$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)).strip()


@register.simple_tag
def icon(name: str, css: str = "") -> SafeString:
    """An inline drawing, hidden from screen readers: the text beside it says what it means."""
    body = mark_safe(_icon_body(str(name or _FALLBACK_ICON)))  # noqa: S308 - a vendored file, held by its checksum
    return format_html(
        '<svg class="icon {}" xmlns="http://www.w3.org/2000/svg" width="24" height="24" viewBox="0 0 24 24" fill="none" stroke="currentColor" '
        'stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">{}</svg>',
        css,
        body,
    )


@register.simple_tag
def html_lang() -> str:
    """The language of the page as BCP 47 spells it: zh-Hans, not zh-hans."""
    language = get_language() or "en"
    head, _, tail = language.partition("-")
    return f"{head}-{tail.title() if len(tail) == 4 else tail.upper()}" if tail else head


@register.filter
def tr(texts: Any) -> str:
    """The text of a catalogue entry in the language of the page."""
    return localized(texts)


@register.filter(name="bytes")
def bytes_filter(value: int | None) -> str:
    return "" if value is None else bytes_text(int(value))


@register.filter
def cores(millis: int | None) -> str:
    return "" if millis is None else cores_text(int(millis))


@register.filter
def autoscaled(environment: Environment) -> dict[str, Any] | None:
    """Its rule, and whether it is scaled by it; None: it has no rule."""
    rule = autoscale.rule_of(environment.template_spec)
    return None if rule is None else {"rule": rule, "on": autoscale.is_on(environment.template_spec, environment.autoscale)}


@register.filter
def resource(key: str) -> str:
    return resource_title(key)


@register.simple_tag
def quantity(resource_key: str, value: int | None) -> str:
    """An amount of a quota resource in the unit people read."""
    return amount(resource_key, value)


@register.filter
def state_title(state: str) -> str:
    return str(look(state).title)


@register.filter
def state_colour(state: str) -> str:
    return look(state).colour


@register.filter
def state_moving(state: str) -> bool:
    """True while something is expected to change by itself."""
    return look(state).moving


@register.filter
def alert_class(level: str) -> str:
    return {"error": "danger", "debug": "info"}.get(level, level or "info")


@register.filter
def alert_icon(level: str) -> str:
    return {"error": "circle-x", "warning": "alert-triangle", "success": "circle-check"}.get(level, "info-circle")


@register.filter
def get(mapping: Mapping[str, Any], key: str) -> Any:
    return mapping.get(key) if isinstance(mapping, Mapping) else None


@register.filter
def known(text: str) -> str:
    """A sentence of the portal in the language of the page; sentences of the cluster stay as they are."""
    return known_phrase(localized(text))


@register.filter
def step_title(state: str) -> str:
    return step_state(state)


@register.filter
def is_web(url: str) -> bool:
    """True for addresses a browser can open; never for javascript: and the like."""
    return str(url).startswith(("http://", "https://"))


@register.simple_tag
def moment(at: datetime | str | None, show: str = "moment") -> SafeString:
    """A time as an element: the script shows it in the reader's zone, as `moment` (14:05, Tue 14:05, 3 Dec 14:05) or in `words` (in 2 hours)."""
    when = parse_datetime(at) if isinstance(at, str) else at
    if when is None:
        return mark_safe("—")
    text = timezone.localtime(when).strftime("%Y-%m-%d %H:%M")
    return format_html('<time datetime="{}" data-show="{}">{}</time>', when.astimezone(UTC).isoformat().replace("+00:00", "Z"), show, text)


@register.filter
def same_moment(one: datetime | str, other: datetime | str) -> bool:
    """True when two times read alike: a range within minutes is no range."""
    first, last = (parse_datetime(at) if isinstance(at, str) else at for at in (one, other))
    return first is not None and last is not None and abs(last - first) < timedelta(minutes=2)


@register.filter
def schedule(row: Mapping[str, Any]) -> str:
    return schedule_words(row)


@register.filter
def approval_status(status: str) -> str:
    return str(APPROVALS.get(status, (status, ""))[0])


@register.filter
def approval_colour(status: str) -> str:
    return APPROVALS.get(status, ("", "secondary"))[1]


@register.filter
def priority_title(slug: str) -> str:
    """Name of a priority class; its slug when the catalogue has none of that name (any more)."""
    return localized(Priority.objects.filter(slug=slug).values_list("title", flat=True).first()) or slug


@register.filter
def notification_icon(code: str) -> str:
    return NOTIFICATION_ICONS.get(code, "info-circle")


@register.simple_tag
def zone_name() -> str:
    """The time zone in which the page writes its times, before the script knows better."""
    return timezone.get_current_timezone_name()


@register.filter
def duration(seconds: int | None) -> str:
    return "" if seconds is None else duration_title(int(seconds))


@register.filter
def hours(seconds: float | None) -> str:
    """Seconds as hours: 5400 -> 1.5."""
    return "" if seconds is None else f"{seconds / 3600:.2f}".rstrip("0").rstrip(".")


@register.simple_tag(takes_context=True)
def unread_count(context: template.Context) -> int:
    """Notifications that the one who looks has not read."""
    user = context.get("user")
    return selectors.notifications_of(user, unread=True).count() if isinstance(user, User) else 0


@register.simple_tag(takes_context=True)
def approvals_waiting(context: template.Context) -> int | None:
    """Questions that the one who looks may answer; None for those who are never asked."""
    user = context.get("user")
    if not isinstance(user, User) or not (user.is_staff or selectors.teams_led_by(user).exists()):
        return None
    return selectors.approvals_decidable_by(user).count()
