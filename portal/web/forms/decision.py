"""A lead's answer to a request: as asked, with less, or not at all."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.domain.models import Approval, Flavor

from ..present import localized
from .base import Styled, duration_title, hour_choices


class DecisionForm(Styled):
    """Empty fields mean "as asked". What is more than was asked for is refused by the service."""

    flavor = forms.ChoiceField(label=_("Flavor"), required=False)
    workers = forms.IntegerField(label=_("Workers"), required=False)
    expires_in = forms.ChoiceField(label=_("Expires after"), required=False)
    note = forms.CharField(
        label=_("Note"),
        required=False,
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": "3"}),
        help_text=_("The one who asked reads it. A refusal needs one."),
    )

    def __init__(self, *args: Any, approval: Approval, **kwargs: Any) -> None:
        self._approval = approval
        super().__init__(*args, **kwargs)

    def prepare(self) -> None:
        asked, environment = self._approval.requested, self._approval.environment
        flavor, workers, seconds = asked.get("flavor"), asked.get("workers"), asked.get("expires_in")
        self.fields["flavor"].choices = [("", gettext("As asked")), *_smaller(flavor, environment.flavor)]  # type: ignore[attr-defined]
        if workers and workers > 1:
            self.fields["workers"].widget = forms.NumberInput(attrs={"min": "1", "max": str(workers), "placeholder": str(workers)})
        else:
            del self.fields["workers"]
        limit = timedelta(seconds=seconds) if seconds else timedelta(days=7)
        shorter = [(value, title) for value, title in hour_choices(limit) if int(value) < (seconds or 10**12)]
        self.fields["expires_in"].choices = [("", gettext("As asked") + (f" ({duration_title(seconds)})" if seconds else "")), *shorter]  # type: ignore[attr-defined]

    def granted(self) -> dict[str, Any]:
        """Arguments of `approval_grant`, those that were left empty as it takes them."""
        typed = self.cleaned_data
        return {
            "flavor": typed.get("flavor") or "",
            "workers": typed.get("workers"),
            "expires_in": timedelta(seconds=int(typed["expires_in"])) if typed.get("expires_in") else None,
            "note": typed.get("note") or "",
        }


def _smaller(asked: str | None, present: Flavor) -> list[tuple[str, str]]:
    """Flavors that are nowhere larger than the one asked for, of its accelerator or of none."""
    top = Flavor.objects.filter(slug=asked or "").select_related("accelerator").first() or present
    rows = (
        Flavor.objects.filter(enabled=True, cpu_millis__lte=top.cpu_millis, memory_bytes__lte=top.memory_bytes).exclude(pk=top.pk).select_related("accelerator")
    )
    fits = [row for row in rows if not row.accelerator_count or (row.accelerator_id == top.accelerator_id and row.accelerator_count <= top.accelerator_count)]
    return [(row.slug, localized(row.title) or row.slug) for row in fits]
