"""Form fields of a template's parameters, made from its JSON Schema. What a value must be, the service alone judges: its words are the only ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..present import localized

_LONG = 20_000  # characters of a text of several lines
_USUAL = 4000


def param_field(name: str, rule: Mapping[str, Any], *, required: bool) -> forms.Field:
    """The form field of one property: enum, boolean, integer, number, string (one line, several, an image), array of strings."""
    common: dict[str, Any] = {
        "label": localized(rule.get("title")) or name,
        "help_text": localized(rule.get("description")),
        "initial": rule.get("default"),
        "required": required and "default" not in rule,
    }
    if "enum" in rule:
        return EnumField(options=list(rule["enum"]), titles=rule.get("titles") or {}, **common)
    kind, form = rule.get("type"), rule.get("format")
    if kind == "boolean":
        return forms.BooleanField(**{**common, "required": False})
    if kind in {"integer", "number"}:
        attrs = {html: str(rule[key]) for key, html in (("minimum", "min"), ("maximum", "max"), ("multipleOf", "step")) if key in rule}
        if kind == "integer":
            return forms.IntegerField(widget=forms.NumberInput(attrs=attrs), **common)
        return forms.FloatField(widget=forms.NumberInput(attrs={"step": "any", **attrs}), **common)
    if kind == "array":
        return LinesField(**common)
    if form == "multiline":
        area = forms.Textarea(attrs={"rows": 4, "spellcheck": "false", "class": "font-monospace"})
        return forms.CharField(max_length=_LONG, strip=False, widget=area, **common)
    if form == "image":
        return _image_field(common)
    limit = {"maxlength": str(rule["maxLength"])} if "maxLength" in rule else {}
    return forms.CharField(max_length=_USUAL, strip=False, widget=forms.TextInput(attrs=limit), **common)


def _image_field(common: dict[str, Any]) -> forms.Field:
    """A container image; where it has to come from is said beside it."""
    prefixes = settings.IMAGE_PREFIXES
    says = [str(common["help_text"] or "")]
    if prefixes:
        says.append(gettext("Images must come from %(prefixes)s.") % {"prefixes": ", ".join(prefixes)})
    hint = f"{(prefixes or ['registry.example.com/'])[0].rstrip('/')}/team/image:1.0"
    widget = forms.TextInput(attrs={"placeholder": hint, "spellcheck": "false"})
    return forms.CharField(max_length=255, widget=widget, **{**common, "help_text": " ".join(part for part in says if part)})


class EnumField(forms.ChoiceField):
    """A choice among JSON values of any type; cleans to the value itself, not to its text."""

    def __init__(self, *, options: list[Any], titles: Mapping[str, Any], **kwargs: Any) -> None:
        self._values = {str(option): option for option in options}
        choices: list[tuple[str, str | Promise]] = [(text, localized(titles.get(text)) or text) for text in self._values]
        if not kwargs["required"] and kwargs["initial"] is None:
            choices.insert(0, ("", "—"))
        super().__init__(choices=choices, **kwargs)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        return self._values.get(text)


class LinesField(forms.CharField):
    """A list of texts, one per line; lines without anything in them are left out."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs["help_text"] = " ".join(str(part) for part in (kwargs["help_text"], _("One per line.")) if part)
        super().__init__(max_length=_LONG, widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "class": "font-monospace"}), **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(str(item) for item in value) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        return [line.strip() for line in str(value or "").splitlines() if line.strip()]

    def run_validators(self, value: Any) -> None:
        super().run_validators("\n".join(value))

    def validate(self, value: Any) -> None:
        super().validate(value or None)
