"""Filters and tags of the pages: icons, quantities, texts of the catalogue, states in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from django import template
from django.conf import settings
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language

from ..phrases import known as known_phrase
from ..present import amount, bytes_text, cores_text, localized, look, resource_title, step_state

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
