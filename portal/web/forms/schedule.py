"""Schedules as fields: days, time to start, time to stop, time zone. Shared by the launch form and the dialog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from ..present import DAYS
from .base import Styled

PREFIX = "schedule_"
WORKDAYS = ["1", "2", "3", "4", "5"]
# Those in which most people work; a person's own and the installation's are added. Every other one can be had over the API or the settings page.
ZONES = (
    "UTC", "America/Los_Angeles", "America/New_York", "America/Sao_Paulo", "Europe/London", "Europe/Berlin", "Europe/Paris", "Asia/Dubai",
    "Asia/Kolkata", "Asia/Singapore", "Asia/Shanghai", "Asia/Hong_Kong", "Asia/Taipei", "Asia/Tokyo", "Asia/Seoul", "Australia/Sydney",
)  # fmt: skip


class _Clock(forms.TimeInput):
    input_type = "time"

    def __init__(self) -> None:
        super().__init__(format="%H:%M")


class ScheduleFields(Styled):
    """A form with the fields of a schedule. `own_zone` is the user's time zone, "" for the installation's."""

    schedule_days = forms.MultipleChoiceField(
        label=_("Days"),
        choices=list(enumerate(DAYS, 1)),
        required=False,
        initial=WORKDAYS,
        widget=forms.CheckboxSelectMultiple(attrs={"class": "form-selectgroup-input"}),
    )
    schedule_start = forms.TimeField(label=_("Start at"), required=False, widget=_Clock(), input_formats=["%H:%M"])
    schedule_stop = forms.TimeField(label=_("Stop at"), required=False, widget=_Clock(), input_formats=["%H:%M"])
    schedule_timezone = forms.ChoiceField(label=_("Time zone"), required=False)

    def __init__(self, *args: Any, own_zone: str = "", current: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self._own_zone = own_zone or settings.TIME_ZONE
        self._current = current or {}
        super().__init__(*args, **kwargs)

    def prepare(self) -> None:
        zone = str(self._current.get("timezone") or self._own_zone)
        names = dict.fromkeys((zone, self._own_zone, settings.TIME_ZONE, *ZONES))
        self.fields["schedule_timezone"].choices = [(name, name.replace("_", " ")) for name in names]  # type: ignore[attr-defined]
        self.fields["schedule_timezone"].initial = zone
        if self._current:
            self.fields["schedule_days"].initial = [str(day) for day in self._current.get("days", [])]
            self.fields["schedule_start"].initial = self._current.get("start") or None
            self.fields["schedule_stop"].initial = self._current.get("stop") or None

    def schedule(self) -> dict[str, Any] | None:
        """What was typed, as the services take it; None when no time is given: no schedule."""
        typed = self.cleaned_data
        start, stop = typed.get("schedule_start"), typed.get("schedule_stop")
        if start is None and stop is None:
            return None
        return {
            "start": start.strftime("%H:%M") if start else None,
            "stop": stop.strftime("%H:%M") if stop else None,
            "days": [int(day) for day in typed.get("schedule_days") or []],
            "timezone": typed.get("schedule_timezone") or self._own_zone,
        }

    def field_of(self, key: str) -> str | None:
        if key == "schedule":
            return "schedule_days"
        return super().field_of(key)


class ScheduleForm(ScheduleFields):
    """The dialog of an environment."""
