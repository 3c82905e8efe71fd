"""Forms of one's own account: API tokens, language and time zone."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.domain import tokens

from ..present import scope_title
from .base import Styled, duration_title


class TokenForm(Styled):
    name = forms.CharField(label=_("Name"), max_length=200, help_text=_("What it is for, for example “nightly tests”."))
    scopes = forms.MultipleChoiceField(label=_("May do"), widget=forms.CheckboxSelectMultiple(attrs={"class": "form-check-input"}), required=False)
    expires_in = forms.ChoiceField(label=_("Expires after"), initial=str(30 * 86400))

    def prepare(self) -> None:
        self.fields["scopes"].choices = [(scope, scope_title(scope)) for scope in tokens.SCOPES]  # type: ignore[attr-defined]
        self.fields["expires_in"].choices = [(str(days * 86400), duration_title(days * 86400)) for days in (1, 7, 30, 90, 365)]  # type: ignore[attr-defined]

    def expiry(self) -> timedelta:
        return timedelta(seconds=int(self.cleaned_data["expires_in"]))


class SettingsForm(Styled):
    """Empty choices go back to what the browser or the installation says."""

    timezone = forms.ChoiceField(label=_("Time zone"), required=False, help_text=_("Of the times on these pages and of your schedules."))
    language = forms.ChoiceField(label=_("Language"), required=False)

    def prepare(self) -> None:
        own = gettext("As the browser for pages, %(zone)s for schedules") % {"zone": settings.TIME_ZONE}
        names = sorted(name for name in available_timezones() if "/" in name or name == "UTC")
        self.fields["timezone"].choices = [("", own), *((name, name.replace("_", " ")) for name in names)]  # type: ignore[attr-defined]
        self.fields["language"].choices = [("", gettext("As the browser")), *settings.LANGUAGES]  # type: ignore[attr-defined]
