"""The roles of a template -> roles of a spec: every variable resolved. Pure but for the settings' images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from django.conf import settings

from k8s.spec import Endpoint, EnvironmentSpec, Port, Probe, Resources, Role, Scratch, SecretKey, SecretMount
from k8s.status import replica_host, role_host
from portal.domain import variables
from portal.domain.durations import parse_duration
from portal.domain.shape import RoleShape, image_of, parse_bytes
from portal.domain.variables import Value

Document = Mapping[str, Any]

_MIB = 2**20
_NO_HOSTS: Mapping[str, str] = MappingProxyType({})
_ONLY_KEY = "value"  # of a secret that is one token


class TemplateError(Exception):
    """The template cannot be resolved; the message names what is wrong in it."""


def values_of(
    bare: EnvironmentSpec, template: Document, params: Mapping[str, Any], shapes: Sequence[RoleShape], hosts_by: Mapping[str, str] = _NO_HOSTS
) -> dict[str, Value]:
    """Values of the variables that every text of a template may name. `bare`: the spec as far as names go; `hosts_by`: role -> how an
    operator names its replicas' hosts within the namespace, with `{name}` and `{index}`."""
    values: dict[str, Value] = {f"params.{name}": value for name, value in params.items()}
    values |= {"environment.id": bare.id, "environment.name": bare.name, "environment.owner": bare.owner, "environment.team": bare.team}
    for document, shape in zip(template["roles"], shapes, strict=True):
        first, *others = [_host(bare, shape.name, index, hosts_by.get(shape.name, "")) for index in range(max(1, shape.replicas))]
        hosts = [first, *others][: shape.replicas]
        ports = {port["name"]: port["port"] for port in document.get("ports", ())}
        values |= variables.role_values(shape.name, role_host(bare, shape.name), hosts, ports, first)
    return values


def _host(bare: EnvironmentSpec, role: str, index: int, pattern: str) -> str:
    if not pattern:
        return replica_host(bare, role, index)
    return f"{pattern.format(name=bare.base_name, index=index)}.{bare.namespace}.{bare.service_domain}"


def resolved(text: str, values: Mapping[str, Value], *, expanded: bool = False) -> str:
    """As `variables.resolve`. Raises TemplateError."""
    try:
        return variables.resolve(text, values, expanded=expanded)
    except variables.UnknownVariable as error:
        raise TemplateError(f"The template cannot be resolved: {error}.") from None


def role_of(document: Document, shape: RoleShape, resources: Resources, values: Mapping[str, Value], *, family: str, extra_env: Mapping[str, str]) -> Role:
    """One role. `values`: of `values_of`; `family`: of the flavor's accelerator, "" for none. Raises TemplateError."""
    own = {f"role.{name.removeprefix(f'roles.{shape.name}.')}": value for name, value in values.items() if name.startswith(f"roles.{shape.name}.")}
    known = {**values, **own, "role.name": shape.name, **amounts_of(shape)}

    def texts(key: str) -> tuple[str, ...]:
        return tuple(resolved(part, known, expanded=True) for part in document.get(key, ()))

    env = document.get("env", {})
    plain = {key: resolved(str(value), known, expanded=True) for key, value in env.items() if not isinstance(value, Mapping)}
    volumes = document.get("volumes", ())
    return Role(
        name=shape.name,
        replicas=shape.replicas,
        image=_image(document, known, family),
        resources=resources,
        command=texts("command"),
        args=texts("args"),
        env={**{key: value for key, value in extra_env.items() if key not in env}, **plain},
        secret_env={key: SecretKey(secret=value["secret"], key=value.get("key", _ONLY_KEY)) for key, value in env.items() if isinstance(value, Mapping)},
        ports=tuple(_port(port) for port in document.get("ports", ())),
        readiness=_probe(document.get("readiness"), known),
        liveness=_probe(document.get("liveness"), known),
        startup=_probe(document.get("startup"), known),
        volumes=tuple(_scratch(volume) for volume in volumes if "size" in volume),
        secret_mounts=tuple(_secret_mount(volume) for volume in volumes if "secret" in volume),
        files={path: resolved(text, known) for path, text in document.get("files", {}).items()},
        scalable=shape.scalable,
        once=document.get("run") == "once",
        retries=document.get("retries", 0),
        stop_command=tuple(resolved(part, known) for part in document.get("stop_command", ())),
        stop_seconds=int(parse_duration(document["stop_timeout"]).total_seconds()) if "stop_timeout" in document else 0,
    )


def amounts_of(shape: RoleShape) -> dict[str, Value]:
    return {
        "resources.cpus": max(1, shape.cpu_millis // 1000),
        "resources.memory_bytes": shape.memory_bytes,
        "resources.memory_mib": shape.memory_bytes // _MIB,
        "resources.accelerators": shape.accelerator_count,
    }


def _image(document: Document, values: Mapping[str, Value], family: str) -> str:
    found = image_of(document["image"], family)
    if found is None:
        there = ", ".join(sorted(document["image"]))
        raise TemplateError(f"The template has no image of role {document['name']} for {family or 'flavors without accelerators'}; it has some for: {there}.")
    image = resolved(found, values)
    return str(settings.IMAGES.get(image, image))


def _port(document: Document) -> Port:
    endpoint = document.get("endpoint")
    shown = Endpoint(title=endpoint["title"], scheme=endpoint.get("scheme", "http"), path=endpoint.get("path", "/")) if endpoint else None
    return Port(name=document["name"], number=document["port"], endpoint=shown)


def _probe(document: Document | None, values: Mapping[str, Value]) -> Probe | None:
    if document is None:
        return None
    times = {key: document[key] for key in ("period_seconds", "failure_threshold") if key in document}
    if "command" in document:
        # Kubernetes expands nothing in a probe's command
        return Probe(command=tuple(resolved(part, values) for part in document["command"]), **{"period_seconds": 5, **times})
    return Probe(port=document["port"], path=document.get("path", ""), **times)


def _scratch(document: Document) -> Scratch:
    return Scratch(mount_path=document["mount_path"], size_bytes=parse_bytes(str(document["size"])), memory=document.get("medium") == "memory")


def _secret_mount(document: Document) -> SecretMount:
    return SecretMount(secret=document["secret"], mount_path=document["mount_path"], mode=document.get("mode", 0o400))


def secrets_of(template: Document) -> dict[str, str]:
    """Name -> kind of what is to be generated."""
    return {name: secret["kind"] for name, secret in template.get("secrets", {}).items()}
