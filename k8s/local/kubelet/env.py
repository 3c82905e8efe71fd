"""A container's environment and the `$(VAR)` expansion of its command. Pure: what it needs of the cluster comes in as functions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from k8s.local.documents import Doc, at, meta
from k8s.local.quantity import parse

_VARIABLE_NAME = re.compile(r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")
_KEYED = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")
Lookup = Callable[[str, str], "Doc | None"]  # kind, name -> object of the pod's namespace


class ConfigError(Exception):
    """The environment cannot be made: what it refers to is not there (yet)."""


@dataclass(frozen=True)
class Surroundings:
    """What a pod may ask about where it runs."""

    lookup: Lookup
    pod_ip: str
    host_ip: str
    allocatable: Mapping[str, str]  # of its node


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` by its value, unknown names as they are, `$$` as one dollar."""
    out: list[str] = []
    i = 0
    while i < len(text):
        if text[i] != "$" or i + 1 == len(text):
            out.append(text[i])
            i += 1
        elif text[i + 1] == "$":
            out.append("$")
            i += 2
        elif text[i + 1] == "(" and (end := text.find(")", i)) > 0:
            name = text[i + 2 : end]
            out.append(values.get(name, f"$({name})"))
            i = end + 1
        else:
            out.append("$")
            i += 1
    return "".join(out)


def field_value(pod: Doc, path: str, around: Surroundings) -> str:
    """What a fieldRef stands for."""
    keyed = _KEYED.match(path)
    if keyed:
        return str((meta(pod).get(keyed[1]) or {}).get(keyed[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        found = meta(pod).get(path.partition(".")[2]) or {}
        return "\n".join(f'{key}="{_escaped(str(value))}"' for key, value in sorted(found.items()))
    if path in ("status.podIP", "status.podIPs"):
        return around.pod_ip
    if path in ("status.hostIP", "status.hostIPs"):
        return around.host_ip
    return str(at(pod, path, ""))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(pod: Doc, container: Doc, ref: Mapping[str, Any], around: Surroundings) -> str:
    """What a resourceFieldRef stands for: a limit that is not set is what the node has."""
    wanted = ref.get("containerName")
    spec = pod["spec"]
    if wanted:
        container = next((item for item in [*spec["containers"], *spec.get("initContainers", [])] if item["name"] == wanted), container)
    kind, _, name = str(ref["resource"]).partition(".")
    found = at(container, f"resources.{kind}", {}).get(name)
    if found is None and kind == "requests":
        found = at(container, "resources.limits", {}).get(name)
    if found is None:
        found = around.allocatable.get(name, "0") if kind == "limits" else "0"
    divisor = parse(ref.get("divisor") or "1") or parse("1")
    return str(math.ceil(parse(found) / divisor))


def service_links(services: list[Doc]) -> dict[str, str]:
    """The variables by which pods found services before there was DNS."""
    found: dict[str, str] = {}
    for service in services:
        address, ports = at(service, "spec.clusterIP"), at(service, "spec.ports", [])
        if not address or address == "None" or not ports:
            continue
        name = meta(service)["name"].upper().replace("-", "_")
        found[f"{name}_SERVICE_HOST"] = address
        found[f"{name}_SERVICE_PORT"] = str(ports[0]["port"])
        for port in ports:
            if port.get("name"):
                found[f"{name}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
    return found


def container_env(pod: Doc, container: Doc, around: Surroundings, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a container: `base`, then envFrom, then env in order. ConfigError when a source is missing."""
    values = dict(base)
    for source in container.get("envFrom") or []:
        values.update(_from_source(source, around))
    for item in container.get("env") or []:
        name = item["name"]
        if "valueFrom" not in item:
            values[name] = expand(str(item.get("value") or ""), values)
            continue
        found = _value_from(pod, container, item["valueFrom"], around)
        if found is not None:
            values[name] = found
    return values


def _object(kind: str, name: str, optional: bool, around: Surroundings) -> Doc | None:
    found = around.lookup(kind, name)
    if found is None and not optional:
        raise ConfigError(f'{kind.lower()} "{name}" not found')
    return found


def texts(found: Doc) -> dict[str, bytes]:
    """The entries of a ConfigMap or Secret."""
    from base64 import b64decode

    values = {key: b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
    for key, value in (found.get("data") or {}).items():
        values[key] = b64decode(value) if found.get("kind") == "Secret" else str(value).encode()
    return values


def _from_source(source: Mapping[str, Any], around: Surroundings) -> dict[str, str]:
    ref, kind = (source["configMapRef"], "ConfigMap") if source.get("configMapRef") else (source["secretRef"], "Secret")
    found = _object(kind, ref["name"], bool(ref.get("optional")), around)
    if found is None:
        return {}
    prefix = source.get("prefix") or ""
    return {prefix + key: value.decode(errors="replace") for key, value in sorted(texts(found).items()) if _VARIABLE_NAME.match(prefix + key)}


def _value_from(pod: Doc, container: Doc, source: Mapping[str, Any], around: Surroundings) -> str | None:
    if source.get("fieldRef"):
        return field_value(pod, source["fieldRef"]["fieldPath"], around)
    if source.get("resourceFieldRef"):
        return resource_value(pod, container, source["resourceFieldRef"], around)
    ref, kind = (source["configMapKeyRef"], "ConfigMap") if source.get("configMapKeyRef") else (source["secretKeyRef"], "Secret")
    optional = bool(ref.get("optional"))
    found = _object(kind, ref["name"], optional, around)
    value = texts(found).get(ref["key"]) if found else None
    if value is None:
        if optional:
            return None
        raise ConfigError(f"couldn't find key {ref['key']} in {kind} {meta(pod)['namespace']}/{ref['name']}")
    return value.decode(errors="replace")
