"""What the forms share: durations to choose from, widgets in Tabler's classes, refusals of the services at their fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from django import forms
from django.utils.translation import ngettext

from ..phrases import known

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
