"""Forms of the pages. They only read what was typed; the services decide whether it is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from django import forms
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from portal.domain import tokens
from portal.domain.models import Team, Template

from .phrases import known
from .present import localized, scope_title

PARAM = "param_"
HOURS = (1, 2, 4, 8, 12, 24, 48, 72, 168)


def duration_title(seconds: int) -> str:
    """A duration in the largest unit that divides it: "8 hours", "2 days", "90 minutes"."""
    if seconds % 86400 == 0:
        return ngettext("%(n)d day", "%(n)d days", seconds // 86400) % {"n": seconds // 86400}
    if seconds % 3600 == 0:
        return ngettext("%(n)d hour", "%(n)d hours", seconds // 3600) % {"n": seconds // 3600}
    minutes = max(1, seconds // 60)
    return ngettext("%(n)d minute", "%(n)d minutes", minutes) % {"n": minutes}


def hour_choices(longest: timedelta, also: int | None = None) -> list[tuple[str, str]]:
    """Durations to choose from, in seconds, none above `longest`; `also` is added when it is not among them."""
    limit = int(longest.total_seconds())
    seconds = sorted({hours * 3600 for hours in HOURS if hours * 3600 <= limit} | {limit} | ({also} if also else set()))
    return [(str(value), duration_title(value)) for value in seconds]


class Styled(forms.Form):
    """Gives every widget Tabler's class and ties it to its error for screen readers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepare()
        for field in self.fields.values():
            widget = field.widget
            if isinstance(widget, forms.RadioSelect | forms.CheckboxSelectMultiple):
                continue
            if isinstance(widget, forms.CheckboxInput):
                css = "form-check-input"
            elif isinstance(widget, forms.Select):
                css = "form-select"
            else:
                css = "form-control"
            widget.attrs["class"] = f"{widget.attrs.get('class', '')} {css}".strip()
            widget.attrs.setdefault("autocomplete", "off")

    def prepare(self) -> None:
        """Fill in what depends on data: choices and further fields."""

    def full_clean(self) -> None:
        super().full_clean()
        for name in self.errors:
            if name in self.fields:
                self.mark(name, self.fields[name].widget)

    def mark(self, name: str, widget: forms.Widget) -> None:
        if "is-invalid" not in widget.attrs.get("class", ""):
            widget.attrs["class"] = f"{widget.attrs.get('class', '')} is-invalid".strip()
        widget.attrs["aria-invalid"] = "true"
        widget.attrs["aria-describedby"] = f"error_{name}"

    def refuse(self, detail: str, errors: Mapping[str, Iterable[str]]) -> None:
        """Show a service's refusal: at the fields it names, and above the form for the rest. Nothing typed is lost."""
        placed = False
        for key, messages in errors.items():
            name = self.field_of(key)
            for message in messages:
                self.add_error(name, known(message))
            if name:
                placed = True
                self.mark(name, self.fields[name].widget)
        if not placed and not self.non_field_errors():
            self.add_error(None, known(detail))

    def field_of(self, key: str) -> str | None:
        """The form's field for a name the service used, or None."""
        return key if key in self.fields else None


class LaunchForm(Styled):
    """What to launch. Parameters come from the template's JSON Schema as fields named `param_<name>`."""

    name = forms.CharField(
        label=_("Name"), max_length=200, help_text=_("Lower-case letters, digits and hyphens."), widget=forms.TextInput(attrs={"spellcheck": "false"})
    )
    team = forms.ChoiceField(label=_("Team"))
    flavor = forms.CharField(label=_("Flavor"))
    expires_in = forms.ChoiceField(
        label=_("Expires after"), required=False, help_text=_("It is stopped then; files in the home volume are kept. You can extend it.")
    )

    def __init__(self, *args: Any, template: Template, teams: Iterable[Team], expiry: tuple[int, timedelta], **kwargs: Any) -> None:
        self.template_row = template
        self.schema: Mapping[str, Any] = template.spec.get("params") or {}
        self._teams = list(teams)
        self._default_expiry, self._longest_expiry = expiry
        super().__init__(*args, **kwargs)

    @property
    def properties(self) -> Mapping[str, Any]:
        return self.schema.get("properties") or {}

    def prepare(self) -> None:
        self.fields["team"].choices = [(team.slug, team.name) for team in self._teams]  # type: ignore[attr-defined]
        self.fields["expires_in"].choices = hour_choices(self._longest_expiry, self._default_expiry)  # type: ignore[attr-defined]
        self.fields["expires_in"].initial = str(self._default_expiry)
        for name, rule in self.properties.items():
            self.fields[PARAM + name] = param_field(name, rule, required=name in (self.schema.get("required") or ()))

    def param_fields(self) -> list[forms.BoundField]:
        return [self[PARAM + name] for name in self.properties]

    def params(self) -> dict[str, Any]:
        """Typed parameters. A field left empty is left out, so that the template's default counts."""
        values: dict[str, Any] = {}
        for name in self.properties:
            value = self.cleaned_data.get(PARAM + name)
            if value not in (None, ""):
                values[name] = value
        return values

    def expiry(self) -> timedelta | None:
        seconds = self.cleaned_data.get("expires_in")
        return timedelta(seconds=int(seconds)) if seconds else None

    def field_of(self, key: str) -> str | None:
        name = key.replace("/", ".").removeprefix("params.")
        return next((candidate for candidate in (key, PARAM + name) if candidate in self.fields), None)


def param_field(name: str, rule: Mapping[str, Any], *, required: bool) -> forms.Field:
    """The form field of one property of a JSON Schema: enum, boolean, integer, number or string."""
    common: dict[str, Any] = {
        "label": localized(rule.get("title")) or name,
        "help_text": localized(rule.get("description")),
        "initial": rule.get("default"),
        "required": required and "default" not in rule,
    }
    if "enum" in rule:
        return EnumField(options=list(rule["enum"]), titles=rule.get("titles") or {}, **common)
    kind = rule.get("type")
    if kind == "boolean":
        return forms.BooleanField(**{**common, "required": False})
    if kind in {"integer", "number"}:
        # limits are shown to the browser but judged by the service alone, so that its words are the only ones
        attrs = {html: str(rule[key]) for key, html in (("minimum", "min"), ("maximum", "max"), ("multipleOf", "step")) if key in rule}
        if kind == "integer":
            return forms.IntegerField(widget=forms.NumberInput(attrs=attrs), **common)
        return forms.FloatField(widget=forms.NumberInput(attrs={"step": "any", **attrs}), **common)
    return forms.CharField(max_length=rule.get("maxLength", 4000), strip=False, **common)


class EnumField(forms.ChoiceField):
    """A choice among JSON values of any type; cleans to the value itself, not to its text."""

    def __init__(self, *, options: list[Any], titles: Mapping[str, Any], **kwargs: Any) -> None:
        self._values = {str(option): option for option in options}
        choices: list[tuple[str, str | Promise]] = [(text, localized(titles.get(text)) or text) for text in self._values]
        super().__init__(choices=choices, **kwargs)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        return self._values.get(text)


class ScaleForm(Styled):
    workers = forms.IntegerField(label=_("Workers"))


class ExtendForm(Styled):
    expires_in = forms.ChoiceField(label=_("Time from now"))

    def __init__(self, *args: Any, longest: timedelta, **kwargs: Any) -> None:
        self._longest = longest
        super().__init__(*args, **kwargs)

    def prepare(self) -> None:
        self.fields["expires_in"].choices = hour_choices(self._longest)  # type: ignore[attr-defined]

    def expiry(self) -> timedelta:
        return timedelta(seconds=int(self.cleaned_data["expires_in"]))


class RenameForm(Styled):
    name = forms.CharField(label=_("Name"), max_length=200, widget=forms.TextInput(attrs={"spellcheck": "false"}))


class TokenForm(Styled):
    name = forms.CharField(label=_("Name"), max_length=200, help_text=_("What it is for, for example “nightly tests”."))
    scopes = forms.MultipleChoiceField(label=_("May do"), widget=forms.CheckboxSelectMultiple(attrs={"class": "form-check-input"}), required=False)
    expires_in = forms.ChoiceField(label=_("Expires after"), initial=str(30 * 86400))

    def prepare(self) -> None:
        self.fields["scopes"].choices = [(scope, scope_title(scope)) for scope in tokens.SCOPES]  # type: ignore[attr-defined]
        self.fields["expires_in"].choices = [(str(days * 86400), duration_title(days * 86400)) for days in (1, 7, 30, 90, 365)]  # type: ignore[attr-defined]

    def expiry(self) -> timedelta:
        return timedelta(seconds=int(self.cleaned_data["expires_in"]))
