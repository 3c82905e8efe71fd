"""Which image runs in which local environment: a table of name patterns, by default the environment of the running interpreter."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BUILT_IN = Path(__file__).parent / "default_runtimes.yaml"
ENGINES = Path(__file__).parents[2] / ".venv-engines"  # made by `make engines`


@dataclass(frozen=True)
class LocalRuntime:
    """What stands for an image: directories put first in PATH, variables, the image's own home directory, its default command."""

    path: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    home: str = ""
    command: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()  # trees that must stay visible in the container
    needs: tuple[str, ...] = ()  # files without which it cannot be used, and how they are had
    obtain: str = ""

    def missing(self) -> str:
        """What is not here that it needs, and the remedy; empty when it can be used."""
        absent = [path for path in self.needs if not Path(path).exists()]
        if not absent:
            return ""
        return f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not on this machine{f'; {self.obtain}' if self.obtain else ''}"

    def base_env(self) -> dict[str, str]:
        return {"PATH": ":".join([*self.path, SYSTEM_PATH]), **({"HOME": self.home} if self.home else {}), **self.env}


class Images:
    def __init__(self, rows: list[tuple[tuple[str, ...], LocalRuntime]]) -> None:
        self.rows = rows

    @classmethod
    def load(cls, path: Path | None) -> Images:
        """From YAML; the rows of `path` come before the built-in ones. ValueError names what is wrong."""
        rows: list[tuple[tuple[str, ...], LocalRuntime]] = []
        for file in [path, _BUILT_IN] if path else [_BUILT_IN]:
            document = yaml.safe_load(file.read_text()) or {}
            rows += [_row(row, file) for row in document.get("runtimes") or []]
        return cls(rows)

    def find(self, image: str) -> LocalRuntime | None:
        names = _names(image)
        for patterns, runtime in self.rows:
            if any(fnmatchcase(name, pattern) for name in names for pattern in patterns):
                return runtime
        return None


def _row(row: Mapping[str, Any], file: Path) -> tuple[tuple[str, ...], LocalRuntime]:
    unknown = set(row) - {"images", "path", "env", "home", "command", "needs", "obtain"}
    if unknown or not row.get("images"):
        raise ValueError(f"{file}: a runtime needs images, and knows no {', '.join(sorted(unknown)) or 'other keys'}")

    def filled(text: str) -> str:
        return str(text).replace("{prefix}", sys.prefix).replace("{engines}", str(ENGINES))

    path = tuple(filled(item) for item in row.get("path") or [])
    own = [root for root in (sys.prefix, str(ENGINES)) if any(item.startswith(root) for item in path)]
    if own:
        own.append(sys.base_prefix)
    return tuple(row["images"]), LocalRuntime(
        path=path,
        env={key: filled(value) for key, value in (row.get("env") or {}).items()},
        home=filled(row.get("home") or ""),
        command=tuple(filled(item) for item in row.get("command") or []),
        prefixes=tuple(dict.fromkeys([*own, *(str(Path(item).parent) for item in path)])),
        needs=tuple(filled(item) for item in row.get("needs") or []),
        obtain=str(row.get("obtain") or ""),
    )


def _names(image: str) -> list[str]:
    """The name as it is written, with `:latest` when it has no tag, and without the default registry."""
    last = image.rpartition("/")[2]
    full = image if ":" in last or "@" in last else f"{image}:latest"
    names = [image, full]
    for prefix in ("docker.io/library/", "docker.io/", "index.docker.io/"):
        names += [name[len(prefix) :] for name in (image, full) if name.startswith(prefix)]
    return names


def image_id(image: str) -> str:
    """A digest that names the local environment as a container runtime would name an image."""
    return f"docker.io/local/{image.partition('@')[0].rpartition('/')[2].partition(':')[0]}@sha256:{sha256(image.encode()).hexdigest()}"
