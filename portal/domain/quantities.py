"""Quota resources and how their amounts read. Pure."""

from __future__ import annotations

ENVIRONMENTS, CPU, MEMORY, STORAGE = "environments", "cpu", "memory", "storage"
BASE_RESOURCES = (ENVIRONMENTS, CPU, MEMORY, STORAGE)
_ACCELERATOR = "accelerator:"


def accelerator_resource(slug: str) -> str:
    """Quota resource that counts devices of an accelerator."""
    return _ACCELERATOR + slug


def accelerator_of(resource: str) -> str | None:
    """Slug of the accelerator a quota resource counts; None for any other resource."""
    return resource.removeprefix(_ACCELERATOR) if resource.startswith(_ACCELERATOR) else None


def _trim(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def format_amount(resource: str, amount: int) -> str:
    """`amount` of `resource` for people: "3 environments", "2.5 CPU", "16 GiB memory", "8 nvidia-a100-80g"."""
    if resource == ENVIRONMENTS:
        return f"{amount} environment" if amount == 1 else f"{amount} environments"
    if resource == CPU:
        return f"{_trim(amount / 1000)} CPU"
    if resource in (MEMORY, STORAGE):
        return f"{_trim(amount / 2**30)} GiB {resource}"
    return f"{amount} {accelerator_of(resource) or resource}"
