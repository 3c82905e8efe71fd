"""Checks of the roles of a template: how many, how large, what they mount and name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from portal.domain import variables
from portal.domain.durations import format_duration, parse_duration
from portal.domain.shape import WORKERS, parse_bytes, parse_cpu

from .faults import Fault, Path, quantities

# Keys of what is generated, by kind of secret
SECRET_KEYS = {"token": ("value",), "ssh-key": ("id_ed25519", "id_ed25519.pub", "authorized_keys")}
PROBES = ("readiness", "liveness", "startup")
_OWN_ENV = frozenset({"POD_NAME", "POD_NAMESPACE", "POD_IP", "POD_INDEX"})
_OWN_MOUNTS = ("/scratch", "/etc/atelier", "/dev/shm")  # noqa: S108 - where pods have shared memory
_FILES_BYTES = 512 * 1024  # a ConfigMap holds 1 MiB, and variables make texts longer
_STOP = (timedelta(seconds=1), timedelta(hours=1))


def faults(document: Mapping[str, Any], properties: Mapping[str, Any] | None) -> Iterator[Fault]:
    """Every fault of the roles, and of the variables that they and `connect` name. `properties`: of the parameters; None when they are wrong."""
    names = [role["name"] for role in document["roles"]]
    if document["kind"] == "notebook" and names != ["notebook"]:
        yield Fault(("roles",), "a notebook has exactly one role, named notebook")
    scalable = []
    for index, role in enumerate(document["roles"]):
        at: Path = ("roles", index)
        if names.index(role["name"]) != index:
            yield Fault((*at, "name"), f"there is another role called {role['name']}")
        yield from quantities(role.get("resources") or {}, *at, "resources", cpu=parse_cpu, memory=parse_bytes)
        if isinstance(role.get("replicas"), Mapping):
            scalable.append(index)
            yield from _replicas(role["replicas"], properties, (*at, "replicas"))
        yield from _ports(role, at)
        yield from _probes(role, at)
        yield from _secrets(role, document.get("secrets", {}), at)
        yield from _mounts(role, document, at)
        yield from _run(role, document["kind"], at)
    for index in scalable[1:]:
        yield Fault(("roles", index, "replicas"), "only one role may be scalable")
    if properties is not None:
        yield from _variables(document, [*properties, *([WORKERS] if _has_range(document) else [])])


def _has_range(document: Mapping[str, Any]) -> bool:
    counts = [role.get("replicas") for role in document["roles"]]
    return any(isinstance(count, Mapping) and "param" not in count for count in counts)


def _replicas(count: Mapping[str, Any], properties: Mapping[str, Any] | None, at: Path) -> Iterator[Fault]:
    if "param" in count:
        if properties is not None:
            yield from _counted_by(count["param"], properties, (*at, "param"))
        return
    if not 1 <= count["max"] >= count["min"]:
        yield Fault((*at, "max"), "must be at least 1 and at least min")
    elif "default" in count and not count["min"] <= count["default"] <= count["max"]:
        yield Fault((*at, "default"), f"must be between min and max, {count['min']} and {count['max']}")
    if properties is not None and WORKERS in properties:
        yield Fault(at, f"a range makes a parameter called {WORKERS}, and params.properties has one already; write {{param: {WORKERS}}}")


def _counted_by(param: str, properties: Mapping[str, Any], at: Path) -> Iterator[Fault]:
    definition = properties.get(param)
    if not isinstance(definition, Mapping):
        yield Fault(at, f"there is no parameter {param!r} in params.properties")
    elif definition.get("type") != "integer" or not isinstance(definition.get("minimum"), int) or not isinstance(definition.get("maximum"), int):
        yield Fault(at, f"parameter {param!r} must be an integer with a minimum and a maximum")
    elif definition["minimum"] < 0 or "default" not in definition:
        yield Fault(at, f"parameter {param!r} must have a default and no negative minimum")


def _ports(role: Mapping[str, Any], at: Path) -> Iterator[Fault]:
    names = [port["name"] for port in role.get("ports", [])]
    for index, name in enumerate(names):
        if names.index(name) != index:
            yield Fault((*at, "ports", index, "name"), f"there is another port called {name}")


def _probes(role: Mapping[str, Any], at: Path) -> Iterator[Fault]:
    ports = {port["name"] for port in role.get("ports", [])}
    for probe in PROBES:
        port = role.get(probe, {}).get("port")
        if port is not None and port not in ports:
            yield Fault((*at, probe, "port"), f"the role has no port {port!r}")


def _secrets(role: Mapping[str, Any], secrets: Mapping[str, Any], at: Path) -> Iterator[Fault]:
    """Secrets that are named but not generated, and keys that they have not."""
    uses: list[tuple[Path, Mapping[str, Any], bool]] = []
    uses += [((*at, "env", name), value, True) for name, value in role.get("env", {}).items() if isinstance(value, Mapping)]
    uses += [((*at, "volumes", index), volume, False) for index, volume in enumerate(role.get("volumes", ())) if "secret" in volume]
    for path, use, keyed in uses:
        if use["secret"] not in secrets:
            yield Fault((*path, "secret"), f"there is no secret {use['secret']!r}; there are {', '.join(secrets) or 'none'}")
        elif keyed and "key" not in use and len(SECRET_KEYS[secrets[use["secret"]]["kind"]]) > 1:
            yield Fault(path, f"say which key: {', '.join(SECRET_KEYS[secrets[use['secret']]['kind']])}")
        elif keyed and "key" in use and use["key"] not in SECRET_KEYS[secrets[use["secret"]]["kind"]]:
            yield Fault((*path, "key"), f"there is no key {use['key']!r}; there are {', '.join(SECRET_KEYS[secrets[use['secret']]['kind']])}")
    for name in sorted(_OWN_ENV & set(role.get("env", {}))):
        yield Fault((*at, "env", name), "is set by the portal")


def _mounts(role: Mapping[str, Any], document: Mapping[str, Any], at: Path) -> Iterator[Fault]:
    """Paths that are mounted twice, or where nothing can be mounted; volumes without a size."""
    taken = {*_OWN_MOUNTS, *([document["home"].get("mount_path", "/home/jovyan")] if "home" in document else [])}
    sealed: set[str] = set()  # nothing can be mounted within: they are read-only
    for index, volume in enumerate(role.get("volumes", ())):
        yield from quantities(volume, *at, "volumes", index, size=parse_bytes)
        path = volume["mount_path"]
        if path in taken:
            yield Fault((*at, "volumes", index, "mount_path"), f"{path} is mounted already")
        taken.add(path)
        if "secret" in volume:
            sealed.add(path)
    for file in role.get("files", {}):
        if file in taken:
            yield Fault((*at, "files", file), f"{file} is mounted already")
        elif within := next((path for path in sealed if file.startswith(f"{path}/")), ""):
            yield Fault((*at, "files", file), f"lies in {within}, where a secret is mounted; choose another folder")
    if sum(len(text.encode()) for text in role.get("files", {}).values()) > _FILES_BYTES:
        yield Fault((*at, "files"), f"are larger than {_FILES_BYTES // 1024} KiB together; put them into the image")


def _run(role: Mapping[str, Any], kind: str, at: Path) -> Iterator[Fault]:
    once = role.get("run") == "once"
    if once and kind == "notebook":
        yield Fault((*at, "run"), "a notebook runs always")
    if "retries" in role and not once:
        yield Fault((*at, "retries"), "says nothing without `run: once`; what runs always is always started again")
    if "stop_timeout" not in role:
        return
    if "stop_command" not in role:
        yield Fault((*at, "stop_timeout"), "says nothing without stop_command")
    try:
        span = parse_duration(role["stop_timeout"])
    except ValueError as error:
        yield Fault((*at, "stop_timeout"), str(error))
        return
    if not _STOP[0] <= span <= _STOP[1]:
        yield Fault((*at, "stop_timeout"), f"must be between {format_duration(_STOP[0])} and {format_duration(_STOP[1])}")


def _variables(document: Mapping[str, Any], params: list[str]) -> Iterator[Fault]:
    everywhere = variables.names_in(document, params)
    for index, role in enumerate(document["roles"]):
        known = variables.names_in(document, params, role["name"])
        for field in ("image", "command", "args", "env", "files", "stop_command", *((probe, "command") for probe in PROBES)):
            path = field if isinstance(field, tuple) else (field,)
            value: Any = role
            for key in path:
                value = value.get(key, {})
            yield from _named(value, known, ("roles", index, *path))
    yield from _named(document.get("connect", {}), everywhere, ("connect",))
    # An operator's object is about all roles, so of a role's own variables it has only what one replica takes.
    last = variables.names_in(document, params, document["roles"][-1]["name"])
    wider = everywhere | {name: kind for name, kind in last.items() if name.startswith("resources.")}
    for index, operator in enumerate(document.get("operators", ())):
        yield from _named(operator["body"], wider, ("operators", index, "body"))


def _named(value: Any, known: Mapping[str, type], path: Path) -> Iterator[Fault]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _named(item, known, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _named(item, known, (*path, index))
    elif isinstance(value, str):
        for message in variables.faults(value, known):
            yield Fault(path, message)
