"""The launch form: its fields come from the template's JSON Schema, the rest is the same for every template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from portal.domain.models import Priority, Team, Template
from portal.domain.params import in_order
from portal.domain.selectors import StorageUse
from portal.domain.shape import parameters

from ..present import localized
from .base import hour_choices
from .data import DataFields
from .params import param_field
from .schedule import ScheduleFields

PARAM = "param_"


class LaunchForm(DataFields, ScheduleFields):
    """What to launch. Parameters come from the template's JSON Schema as fields named `param_<name>`."""

    name = forms.CharField(
        label=_("Name"), max_length=200, help_text=_("Lower-case letters, digits and hyphens."), widget=forms.TextInput(attrs={"spellcheck": "false"})
    )
    team = forms.ChoiceField(label=_("Team"))
    flavor = forms.CharField(label=_("Flavor"))
    expires_in = forms.ChoiceField(
        label=_("Expires after"), required=False, help_text=_("It is stopped then; files in the home volume are kept. You can extend it.")
    )

    priority = forms.ChoiceField(label=_("Priority"), required=False, help_text=_("Higher ones go first in the queue."))

    def __init__(
        self,
        *args: Any,
        template: Template,
        teams: Iterable[Team],
        expiry: tuple[int, timedelta],
        priorities: Sequence[Priority] = (),
        default_priority: str = "",
        storages: Sequence[StorageUse] = (),
        references: Sequence[tuple[str, str]] = (),
        **kwargs: Any,
    ) -> None:
        self.template_row = template
        self._data = (storages, references)
        self._priorities, self._default_priority = priorities, default_priority
        self.schema: Mapping[str, Any] = parameters(template.spec)
        self._teams = list(teams)
        self._default_expiry, self._longest_expiry = expiry
        super().__init__(*args, **kwargs)

    @property
    def properties(self) -> Mapping[str, Any]:
        return in_order(self.schema)

    def prepare(self) -> None:
        super().prepare()
        if len(self._priorities) > 1:
            self.fields["priority"].choices = [(row.slug, localized(row.title) or row.slug) for row in self._priorities]  # type: ignore[attr-defined]
            self.fields["priority"].initial = self._default_priority
        else:
            del self.fields["priority"]  # nothing to choose
        self.fields["team"].choices = [(team.slug, team.name) for team in self._teams]  # type: ignore[attr-defined]
        self.fields["expires_in"].choices = hour_choices(self._longest_expiry, self._default_expiry)  # type: ignore[attr-defined]
        self.fields["expires_in"].initial = str(self._default_expiry)
        self.add_data_fields(*self._data)
        for name, rule in self.properties.items():
            self.fields[PARAM + name] = param_field(name, rule, required=name in (self.schema.get("required") or ()))

    def param_fields(self) -> list[forms.BoundField]:
        return [self[PARAM + name] for name in self.properties]

    def params(self) -> dict[str, Any]:
        """Typed parameters. A field left empty is left out, so that the template's default counts."""
        values: dict[str, Any] = {}
        for name in self.properties:
            value = self.cleaned_data.get(PARAM + name)
            if value not in (None, "", []):
                values[name] = value
        return values

    def expiry(self) -> timedelta | None:
        seconds = self.cleaned_data.get("expires_in")
        return timedelta(seconds=int(seconds)) if seconds else None

    def field_of(self, key: str) -> str | None:
        if field := self.mount_field(key):
            return field
        name = key.replace("/", ".").removeprefix("params.")
        names = (key, PARAM + name, PARAM + name.split(".")[0])  # one item of a list is shown at the list
        return next((candidate for candidate in names if candidate in self.fields), None) or super().field_of(key)
