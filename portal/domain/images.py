"""Names of container images, and where they may come from. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
# The grammar of github.com/distribution/reference, which every container runtime follows.
_REFERENCE = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.ASCII)


def full_name(image: str) -> str:
    """The name with its registry, as a runtime reads it: `python:3` is `docker.io/library/python:3`."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def _within(name: str, prefix: str) -> bool:
    """Whether `name` is below `prefix`: `r.example.com/team` holds `r.example.com/team/a` and `r.example.com/team:1`, not `r.example.com/teams`."""
    return name.startswith(prefix) and (prefix.endswith("/") or name[len(prefix) : len(prefix) + 1] in ("", "/", ":", "@"))


def refusal(image: str, prefixes: Sequence[str]) -> str:
    """Why `image` cannot be used, a sentence; empty when it can. `prefixes`: what it has to begin with, any of them; empty: anything."""
    if len(image) > 255 or not _REFERENCE.fullmatch(image):
        return f"{image[:80]!r} is not the name of an image such as registry.example.com/team/image:1.0."
    if prefixes and not any(_within(image, prefix) or _within(full_name(image), full_prefix(prefix)) for prefix in prefixes):
        return f"Images must come from {', '.join(prefixes)}."
    return ""


def full_prefix(prefix: str) -> str:
    """A prefix with its registry; a registry by itself stays as it is."""
    first, slash, _ = prefix.partition("/")
    return prefix if not slash and ("." in first or ":" in first or first == "localhost") else full_name(prefix)
