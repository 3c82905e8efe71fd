"""Which flavors a template may be asked for with: by family of chip, by name, and by the images that it has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar

CPU = "cpu"  # the family of flavors without accelerators


F = TypeVar("F", bound="FlavorLike")


class ChipLike(Protocol):
    family: str


class FlavorLike(Protocol):
    """What is read of a flavor; `portal.domain.models.Flavor` is one."""

    slug: str
    accelerator_count: int

    @property
    def accelerator(self) -> ChipLike | None: ...


def family_of(flavor: FlavorLike) -> str:
    """The family of its chips; `cpu` when it has none."""
    return flavor.accelerator.family if flavor.accelerator and flavor.accelerator_count else CPU


def image_families(template_spec: Mapping[str, Any]) -> frozenset[str] | None:
    """Families for which every role has an image; None: any, since a role's image is a single one or has a default."""
    found: frozenset[str] | None = None
    for role in template_spec["roles"]:
        image = role["image"]
        if isinstance(image, Mapping) and "default" not in image:
            found = frozenset(image) if found is None else found & frozenset(image)
    return found


def why_not(template_spec: Mapping[str, Any], flavor: FlavorLike) -> str:
    """Why the flavor cannot be used with the template, a clause; empty when it can."""
    rule, family = template_spec.get("flavors") or {}, family_of(flavor)
    images = image_families(template_spec)
    if "families" in rule and family not in rule["families"]:
        return f"it is for {', '.join(rule['families'])}, not {family}"
    if images is not None and family not in images:
        return f"it has images for {', '.join(sorted(images)) or 'no family'}, not for {family}"
    if "only" in rule and not any(fnmatchcase(flavor.slug, glob) for glob in rule["only"]):
        return f"it takes only {', '.join(rule['only'])}"
    if any(fnmatchcase(flavor.slug, glob) for glob in rule.get("not", ())):
        return "it does not take this one"
    return ""


def allowed(template_spec: Mapping[str, Any], flavors: Iterable[F]) -> list[F]:
    """Those of `flavors` that the template takes, in their order."""
    return [flavor for flavor in flavors if not why_not(template_spec, flavor)]
