"""Forms of what is done with an environment that is there: one or two fields each."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from .base import Styled, hour_choices


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
