"""The variables of templates: `${roles.head.host}` and the like. Pure: names from a template document, values from whoever knows them.

`$${` is a literal `${`. A variable may ask for a form: `${name:json}`, or of a list `${name:lines}`; a list without one is separated by commas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

_TOKEN = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_ENVIRONMENT = ("environment.id", "environment.name", "environment.owner", "environment.team")
_RESOURCES = ("resources.cpus", "resources.memory_bytes", "resources.memory_mib", "resources.accelerators")

Value = Any  # a tuple is a list of names; anything else one value of JSON


class UnknownVariable(ValueError):
    """A text names a variable that there is not, or in a form that it has not."""


def names_in(template_spec: Mapping[str, Any], params: Collection[str], role: str = "") -> dict[str, type]:
    """Every variable that the template's texts may name -> `str` or `list`. With `role`: those that only a role's own texts have too."""
    found: dict[str, type] = dict.fromkeys((*_ENVIRONMENT, *(f"params.{name}" for name in params)), str)
    for document in template_spec["roles"]:
        of = _of_role(document)
        found |= {f"roles.{document['name']}.{name}": kind for name, kind in of.items()}
        if document["name"] == role:
            found |= {f"role.{name}": kind for name, kind in of.items()} | dict.fromkeys((*_RESOURCES, "role.name"), str)
    return found


def _of_role(document: Mapping[str, Any]) -> dict[str, type]:
    ports = [port["name"] for port in document.get("ports", ())]
    texts = dict.fromkeys(("host", "first", "count", *(f"ports.{port}" for port in ports)), str)
    return {**texts, **dict.fromkeys(("hosts", *(f"addresses.{port}" for port in ports)), list)}


def role_values(role: str, host: str, hosts: Sequence[str], ports: Mapping[str, int], first: str) -> dict[str, Value]:
    """Values of `roles.<role>.*`. `host`: found for all replicas together; `hosts`: of each; `first`: of replica 0, even if there is none now."""
    values: dict[str, Value] = {"host": host, "first": first, "count": len(hosts), "hosts": tuple(hosts)}
    for port, number in ports.items():
        values[f"ports.{port}"] = number
        values[f"addresses.{port}"] = tuple(f"{one}:{number}" for one in hosts)
    return {f"roles.{role}.{name}": value for name, value in values.items()}


def faults(text: str, known: Mapping[str, type]) -> Iterator[str]:
    """What is wrong with the variables of a text, a sentence each. `known`: see `names_in`."""
    for match in _TOKEN.finditer(text):
        if match[0] == "$${":
            continue
        if not match[2]:
            yield f"{match[0]!r} is not closed by }}; a literal ${{ is written $${{"
            continue
        name, form = _parted(match[1])
        if name not in known:
            yield f"there is no variable {match[0]}{_hint(name, known)}; a literal ${{ is written $${{"
        elif form not in _forms(known[name]):
            yield f"{match[0]}: {name} has no form {form!r}, it has {', '.join(repr(one) for one in _forms(known[name]) if one)}"


def resolve(text: str, values: Mapping[str, Value], *, expanded: bool = False) -> str:
    """`text` with its variables replaced. `expanded`: Kubernetes expands `$(NAME)` in it afterwards, so a `$(` of a value is doubled: it
    stays what the user wrote. Raises UnknownVariable."""

    def value_of(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name, form = _parted(match[1])
        kind = list if isinstance(values.get(name), tuple) else str
        if name not in values or not match[2] or form not in _forms(kind):
            raise UnknownVariable(f"{match[0]} is no variable{_hint(name, values)}")
        found = _formed(values[name], form)
        return found.replace("$(", "$$(") if expanded else found

    return _TOKEN.sub(value_of, text)


def _parted(inner: str) -> tuple[str, str]:
    name, _, form = inner.partition(":")
    return name, form


def _forms(kind: type) -> tuple[str, ...]:
    return ("", "json", "lines") if kind is list else ("", "json")


def _formed(value: Value, form: str) -> str:
    if form == "json":
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return "\n".join(value) if form == "lines" else ",".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _hint(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=3, cutoff=0.6) or sorted(known)
    return f"; there are {', '.join(f'${{{one}}}' for one in near)}"
