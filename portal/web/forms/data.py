"""Registering datasets, models and their versions; choosing what an environment mounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.domain.models import Artifact, Team
from portal.domain.selectors import StorageUse

from ..present import localized
from .base import Styled

VISIBILITY = (
    (Artifact.Visibility.PRIVATE.value, _("Only me")),
    (Artifact.Visibility.TEAM.value, _("My team")),
    (Artifact.Visibility.EVERYONE.value, _("Everyone")),
)
STORAGE = "storage_"


class ArtifactForm(Styled):
    """A new name for a dataset or a model."""

    name = forms.CharField(label=_("Name"), max_length=200, help_text=_("Lower-case letters, digits, dots, underscores and hyphens."))
    team = forms.ChoiceField(label=_("Team"))
    visibility = forms.ChoiceField(label=_("Who sees it"), choices=VISIBILITY, initial=Artifact.Visibility.TEAM.value)
    description = forms.CharField(label=_("Description"), required=False, max_length=4000, widget=forms.Textarea(attrs={"rows": "3"}))

    def __init__(self, *args: Any, teams: Sequence[Team], **kwargs: Any) -> None:
        self._teams = teams
        super().__init__(*args, **kwargs)

    def prepare(self) -> None:
        self.fields["team"].choices = [(team.slug, team.name) for team in self._teams]  # type: ignore[attr-defined]


class ArtifactChangeForm(Styled):
    visibility = forms.ChoiceField(label=_("Who sees it"), choices=VISIBILITY)
    description = forms.CharField(label=_("Description"), required=False, max_length=4000, widget=forms.Textarea(attrs={"rows": "3"}))


class VersionForm(Styled):
    """Where a version lies. Without `storages` it is in the home volume of an environment."""

    storage = forms.ChoiceField(label=_("Storage"), required=False)
    path = forms.CharField(
        label=_("Folder or file in it"), max_length=1000, widget=forms.TextInput(attrs={"placeholder": "imagenet/v3", "spellcheck": "false"})
    )
    format = forms.CharField(label=_("Format"), required=False, max_length=40, help_text=_("Such as onnx, safetensors or parquet."))
    checksum = forms.CharField(label=_("Checksum"), required=False, max_length=160, help_text=_("As sha256: and the digest; kept as given."))
    description = forms.CharField(label=_("Description"), required=False, max_length=4000, widget=forms.Textarea(attrs={"rows": "2"}))

    def __init__(self, *args: Any, storages: Sequence[tuple[str, str]], **kwargs: Any) -> None:
        self._storages = storages
        super().__init__(*args, **kwargs)

    def prepare(self) -> None:
        self.fields["storage"].choices = self._storages  # type: ignore[attr-defined]

    def version(self) -> dict[str, Any]:
        """Arguments of `artifact_version_add` that were typed."""
        typed = self.cleaned_data
        return {name: typed.get(name) or "" for name in ("storage", "path", "format", "checksum", "description")}


class RegisterForm(VersionForm):
    """A version from an environment: of a dataset or model that is there, or of a new one."""

    kind = forms.ChoiceField(label=_("What it is"), choices=((Artifact.Kind.MODEL.value, _("Model")), (Artifact.Kind.DATASET.value, _("Dataset"))))
    name = forms.CharField(label=_("Name"), max_length=200, help_text=_("One of yours that is there gets its next version; any other name is made."))
    visibility = forms.ChoiceField(label=_("Who sees it"), choices=VISIBILITY, initial=Artifact.Visibility.TEAM.value)
    field_order = ["kind", "name", "visibility", "storage", "path"]


class DataFields(forms.Form):
    """The part of the launch form that says what to mount. Tells `mounts()` of a form that takes it up."""

    def add_data_fields(self, storages: Sequence[StorageUse], references: Sequence[tuple[str, str]]) -> None:
        """`references`: value and title of each version that may be mounted."""
        self._uses = list(storages)
        for use in self._uses:
            writes = "write" in use.access.values()
            choices = [("", gettext("Not mounted"))] + ([("write", gettext("Read and write"))] if writes else []) + [("read", gettext("Read only"))]
            if use.storage.kind == "scratch":
                choices = choices[:2]
            self.fields[STORAGE + use.storage.slug] = forms.ChoiceField(
                label=localized(use.storage.title) or use.storage.slug, choices=choices, required=False, help_text=use.storage.spec.get("mount_path", "")
            )
        if references:
            self.fields["refs"] = forms.MultipleChoiceField(
                label=_("Datasets and models"),
                choices=references,
                required=False,
                help_text=_("Read only, at /datasets and /models. Hold Ctrl to choose several."),
                widget=forms.SelectMultiple(attrs={"size": str(min(8, len(references)))}),
            )

    def storage_fields(self) -> list[forms.BoundField]:
        return [self[STORAGE + use.storage.slug] for use in self._uses]

    def mounts(self) -> list[dict[str, Any]]:
        """Wishes of `environment_request`, in the order of the fields."""
        chosen = [(use.storage.slug, self.cleaned_data.get(STORAGE + use.storage.slug)) for use in self._uses]
        wishes: list[dict[str, Any]] = [{"storage": slug, **({"read_only": True} if how == "read" else {})} for slug, how in chosen if how]
        return wishes + [{"ref": reference} for reference in self.cleaned_data.get("refs") or ()]

    def mount_field(self, key: str) -> str | None:
        """The field behind a name such as mounts.0.storage."""
        parts = key.split(".")
        if parts[0] != "mounts" or len(parts) < 2 or not parts[1].isdecimal():
            return None
        wishes = self.mounts()
        wish = wishes[int(parts[1])] if int(parts[1]) < len(wishes) else {}
        return STORAGE + wish["storage"] if "storage" in wish else "refs" if "refs" in self.fields else None
