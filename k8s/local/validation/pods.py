"""Pods and pod templates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from .. import names, quantity
from ..documents import Doc, clone
from ..errors import Cause, duplicate, forbidden_field, invalid_value, not_found_field, not_supported, required

PORT_TEXT = "must be between 1 and 65535, inclusive"
_PORT_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_NATIVE = {"cpu", "memory", "ephemeral-storage"}
_IMMUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check(doc: Doc) -> Iterator[Cause]:
    yield from spec(doc.get("spec") or {}, "spec")


def check_update(doc: Doc, old: Doc) -> Iterator[Cause]:
    new, was = clone(doc["spec"]), clone(old["spec"])
    if len(new.get("containers") or ()) != len(was.get("containers") or ()):
        yield forbidden_field("spec.containers", "pod updates may not add or remove containers")
        return
    for each in (new, was):
        for container in [*(each.get("containers") or ()), *(each.get("initContainers") or ())]:
            container.pop("image", None)
            container.pop("imagePullPolicy", None)
        each.pop("activeDeadlineSeconds", None)
        each.pop("schedulingGates", None)
    kept = was.pop("tolerations", None) or []
    if all(each in (new.get("tolerations") or []) for each in kept):
        new.pop("tolerations", None)
    if new != was:
        changed = sorted(key for key in {*new, *was} if new.get(key) != was.get(key))
        yield forbidden_field("spec", f"{_IMMUTABLE}\n  changed: {', '.join(changed)}")


def spec(found: Doc, path: str) -> Iterator[Cause]:
    """A pod's spec, also within a template."""
    containers, init = found.get("containers") or [], found.get("initContainers") or []
    if not containers:
        yield required(f"{path}.containers")
    volumes: set[str] = set()
    yield from _volumes(found.get("volumes") or (), f"{path}.volumes", volumes)
    seen: set[str] = set()
    for field, group in (("containers", containers), ("initContainers", init)):
        for index, container in enumerate(group):
            yield from _container(container, f"{path}.{field}[{index}]", volumes, seen, init=field == "initContainers")
    ports: set[tuple[Any, Any, Any]] = set()
    for index, container in enumerate(containers):
        for number, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort"):
                place = (port["hostPort"], port.get("protocol"), port.get("hostIP"))
                if place in ports:
                    yield duplicate(f"{path}.containers[{index}].ports[{number}].hostPort", f"{port.get('protocol')}//{port['hostPort']}")
                ports.add(place)
    yield from _choices(found, path)
    yield from names.labels(found.get("nodeSelector") or {}, f"{path}.nodeSelector")
    yield from _tolerations(found.get("tolerations") or (), f"{path}.tolerations")
    for key in ("hostname", "subdomain"):
        for why in names.label(found[key]) if found.get(key) else ():
            yield invalid_value(f"{path}.{key}", found[key], why)
    for key in ("serviceAccountName", "priorityClassName", "runtimeClassName", "nodeName"):
        for why in names.subdomain(found[key]) if found.get(key) else ():
            yield invalid_value(f"{path}.{key}", found[key], why)
    if found.get("terminationGracePeriodSeconds", 0) < 0:
        yield invalid_value(f"{path}.terminationGracePeriodSeconds", found["terminationGracePeriodSeconds"], "must be greater than or equal to 0")
    if found.get("activeDeadlineSeconds") is not None and not 1 <= found["activeDeadlineSeconds"] <= 2147483647:
        yield invalid_value(f"{path}.activeDeadlineSeconds", found["activeDeadlineSeconds"], "must be between 1 and 2147483647, inclusive")


def _choices(found: Doc, path: str) -> Iterator[Cause]:
    for key, allowed in (
        ("restartPolicy", ("Always", "OnFailure", "Never")),
        ("dnsPolicy", ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")),
    ):
        if found.get(key) not in (None, *allowed):
            yield not_supported(f"{path}.{key}", found[key], allowed)
    if found.get("dnsPolicy") == "None" and not (found.get("dnsConfig") or {}).get("nameservers"):
        yield required(f"{path}.dnsConfig.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")


def _container(container: Doc, path: str, volumes: set[str], seen: set[str], *, init: bool) -> Iterator[Cause]:
    name = container.get("name")
    if not name:
        yield required(f"{path}.name")
    else:
        for why in names.label(name):
            yield invalid_value(f"{path}.name", name, why)
        if name in seen:
            yield duplicate(f"{path}.name", name)
        seen.add(name)
    image = container.get("image")
    if not image:
        yield required(f"{path}.image")
    elif image != image.strip():
        yield invalid_value(f"{path}.image", image, "must not have leading or trailing whitespace")
    yield from _ports(container.get("ports") or (), f"{path}.ports")
    yield from _env(container.get("env") or (), f"{path}.env")
    yield from _env_from(container.get("envFrom") or (), f"{path}.envFrom")
    yield from _mounts(container.get("volumeMounts") or (), f"{path}.volumeMounts", volumes)
    yield from resources(container.get("resources") or {}, f"{path}.resources")
    if container.get("imagePullPolicy") not in {"Always", "Never", "IfNotPresent", None}:
        yield not_supported(f"{path}.imagePullPolicy", container["imagePullPolicy"], ("Always", "IfNotPresent", "Never"))
    if container.get("terminationMessagePolicy") not in {"File", "FallbackToLogsOnError", None}:
        yield not_supported(f"{path}.terminationMessagePolicy", container["terminationMessagePolicy"], ("FallbackToLogsOnError", "File"))
    sidecar = container.get("restartPolicy") == "Always"
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        if key in container:
            if init and not sidecar:
                yield forbidden_field(f"{path}.{key}", "may not be set for init containers without restartPolicy=Always")
            else:
                yield from _probe(container[key], f"{path}.{key}", once=key != "readinessProbe")
    if "lifecycle" in container:
        if init and not sidecar:
            yield forbidden_field(f"{path}.lifecycle", "may not be set for init containers without restartPolicy=Always")
        for hook in ("postStart", "preStop"):
            if hook in container["lifecycle"]:
                yield from _handler(container["lifecycle"][hook], f"{path}.lifecycle.{hook}", ("exec", "httpGet", "tcpSocket", "sleep"))


def _ports(found: Iterable[Doc], path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, port in enumerate(found):
        at = f"{path}[{index}]"
        name = port.get("name")
        if name:
            yield from port_name(name, f"{at}.name")
            if name in seen:
                yield duplicate(f"{at}.name", name)
            seen.add(name)
        number = port.get("containerPort")
        if not number:
            yield required(f"{at}.containerPort")
        elif not 1 <= number <= 65535:
            yield invalid_value(f"{at}.containerPort", number, PORT_TEXT)
        if port.get("hostPort") and not 1 <= port["hostPort"] <= 65535:
            yield invalid_value(f"{at}.hostPort", port["hostPort"], PORT_TEXT)
        if port.get("protocol") not in {"TCP", "UDP", "SCTP"}:
            yield not_supported(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))


def port_name(name: str, path: str) -> Iterator[Cause]:
    if len(name) > 15:
        yield invalid_value(path, name, "must be no more than 15 characters")
    if not _PORT_NAME.match(name):
        yield invalid_value(path, name, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    elif not re.search("[a-z]", name):
        yield invalid_value(path, name, "must contain at least one letter (a-z)")
    elif "--" in name:
        yield invalid_value(path, name, "must not contain consecutive hyphens")


def port_or_name(value: Any, path: str) -> Iterator[Cause]:
    if isinstance(value, int):
        if not 1 <= value <= 65535:
            yield invalid_value(path, value, PORT_TEXT)
    elif isinstance(value, str):
        yield from port_name(value, path)


def _env(found: Iterable[Doc], path: str) -> Iterator[Cause]:
    for index, variable in enumerate(found):
        at = f"{path}[{index}]"
        name = variable.get("name")
        if not name:
            yield required(f"{at}.name")
        else:
            for why in names.env_name(name):
                yield invalid_value(f"{at}.name", name, why)
        source = variable.get("valueFrom")
        if source is None:
            continue
        chosen = [key for key in ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef") if key in source]
        if not chosen:
            yield invalid_value(f"{at}.valueFrom", "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
        elif variable.get("value"):
            yield invalid_value(f"{at}.valueFrom", "", "may not be specified when `value` is not empty")
        elif len(chosen) > 1:
            yield invalid_value(f"{at}.valueFrom", "", "may not have more than one field specified at a time")
        for key in ("configMapKeyRef", "secretKeyRef"):
            if key in source and not source[key].get("name"):
                yield required(f"{at}.valueFrom.{key}.name")
        if "fieldRef" in source:
            yield from _field_ref(source["fieldRef"], f"{at}.valueFrom.fieldRef", _ENV_FIELDS)


_ENV_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP",
    "status.podIPs",
)  # fmt: skip
_VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")


def _field_ref(reference: Doc, path: str, allowed: tuple[str, ...]) -> Iterator[Cause]:
    field = reference.get("fieldPath", "")
    plain = re.sub(r"\['[^']+'\]$", "", field)
    if plain != field and plain in {"metadata.labels", "metadata.annotations"}:
        return
    if field and field not in allowed:
        yield not_supported(f"{path}.fieldPath", field, allowed)


def _env_from(found: Iterable[Doc], path: str) -> Iterator[Cause]:
    for index, source in enumerate(found):
        chosen = [key for key in ("configMapRef", "secretRef") if key in source]
        if not chosen:
            yield invalid_value(f"{path}[{index}]", "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(chosen) > 1:
            yield invalid_value(f"{path}[{index}]", "", "may not have more than one field specified at a time")
        elif not source[chosen[0]].get("name"):
            yield required(f"{path}[{index}].{chosen[0]}.name")


def _mounts(found: Iterable[Doc], path: str, volumes: set[str]) -> Iterator[Cause]:
    places: set[str] = set()
    for index, mount in enumerate(found):
        at = f"{path}[{index}]"
        if not mount.get("name"):
            yield required(f"{at}.name")
        elif mount["name"] not in volumes:
            yield not_found_field(f"{at}.name", mount["name"])
        place = mount.get("mountPath")
        if not place:
            yield required(f"{at}.mountPath")
        elif place in places:
            yield invalid_value(f"{at}.mountPath", place, "must be unique")
        places.add(place or "")
        below = mount.get("subPath", "")
        if below.startswith("/"):
            yield invalid_value(f"{at}.subPath", below, "must be a relative path")
        if ".." in below.split("/"):
            yield invalid_value(f"{at}.subPath", below, "must not contain '..'")


def _volumes(found: Iterable[Doc], path: str, seen: set[str]) -> Iterator[Cause]:
    for index, volume in enumerate(found):
        at = f"{path}[{index}]"
        name = volume.get("name")
        if not name:
            yield required(f"{at}.name")
        else:
            for why in names.label(name):
                yield invalid_value(f"{at}.name", name, why)
            if name in seen:
                yield duplicate(f"{at}.name", name)
            seen.add(name)
        sources = [key for key in volume if key != "name"]
        for extra in sources[1:]:
            yield forbidden_field(f"{at}.{extra}", "may not specify more than 1 volume type")
        for key, field in (("persistentVolumeClaim", "claimName"), ("secret", "secretName"), ("configMap", "name"), ("hostPath", "path")):
            if key in volume and not volume[key].get(field):
                yield required(f"{at}.{key}.{field}")
        medium = (volume.get("emptyDir") or {}).get("medium", "")
        if medium and medium != "Memory" and not medium.startswith("HugePages"):
            yield not_supported(f"{at}.emptyDir.medium", medium, ("", "Memory", "HugePages"))
        for number, item in enumerate((volume.get("downwardAPI") or {}).get("items") or ()):
            if "fieldRef" in item:
                yield from _field_ref(item["fieldRef"], f"{at}.downwardAPI.items[{number}].fieldRef", _VOLUME_FIELDS)


def resources(found: Doc, path: str) -> Iterator[Cause]:
    limits, requests = found.get("limits") or {}, found.get("requests") or {}
    for field, group in (("limits", limits), ("requests", requests)):
        for key, value in group.items():
            yield from _resource(key, value, f"{path}.{field}")
    for key, value in requests.items():
        limit = limits.get(key)
        extended = key not in _NATIVE and not key.startswith("hugepages-")
        if limit is not None and extended and quantity.parse(value) != quantity.parse(limit):
            yield invalid_value(f"{path}.requests", value, f"must be equal to {key} limit of {limit}")
        elif limit is not None and quantity.parse(value) > quantity.parse(limit):
            yield invalid_value(f"{path}.requests", value, f"must be less than or equal to {key} limit of {limit}")
        elif limit is None and extended and "/" in key:
            yield required(f"{path}.limits", "Limit must be set for non overcommitable resources")


def _resource(key: str, value: Any, path: str) -> Iterator[Cause]:
    at = f"{path}[{key}]"
    for why in names.qualified(key):
        yield invalid_value(path, key, why)
    if "/" not in key and key not in _NATIVE and not key.startswith("hugepages-"):
        yield invalid_value(at, key, "must be a standard resource type or fully qualified")
        yield invalid_value(at, key, "must be a standard resource for containers")
    number = quantity.parse(value)
    if number < 0:
        yield invalid_value(at, value, "must be greater than or equal to 0")
    if "/" in key and number != number.to_integral_value():
        yield invalid_value(at, value, "must be an integer")


def _probe(probe: Doc, path: str, *, once: bool) -> Iterator[Cause]:
    yield from _handler(probe, path, ("exec", "httpGet", "tcpSocket", "grpc"))
    for key in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if probe.get(key, 0) < 0:
            yield invalid_value(f"{path}.{key}", probe[key], "must be greater than or equal to 0")
    if once and probe.get("successThreshold", 1) != 1:
        yield invalid_value(f"{path}.successThreshold", probe["successThreshold"], "must be 1")


def _handler(handler: Doc, path: str, allowed: tuple[str, ...]) -> Iterator[Cause]:
    chosen = [key for key in allowed if key in handler]
    if not chosen:
        yield required(path, "must specify a handler type")
    for extra in chosen[1:]:
        yield forbidden_field(f"{path}.{extra}", "may not specify more than 1 handler type")
    if "httpGet" in handler:
        yield from port_or_name(handler["httpGet"].get("port"), f"{path}.httpGet.port")
    if "tcpSocket" in handler:
        yield from port_or_name(handler["tcpSocket"].get("port"), f"{path}.tcpSocket.port")
    if "exec" in handler and not handler["exec"].get("command"):
        yield required(f"{path}.exec.command")


def _tolerations(found: Iterable[Doc], path: str) -> Iterator[Cause]:
    for index, toleration in enumerate(found):
        at = f"{path}[{index}]"
        operator = toleration.get("operator", "Equal")
        if toleration.get("key"):
            for why in names.qualified(toleration["key"]):
                yield invalid_value(f"{at}.key", toleration["key"], why)
        elif operator != "Exists":
            yield invalid_value(f"{at}.operator", operator, 'operator must be Exists when `key` is empty, which means "match all values and all keys"')
        if operator not in {"Equal", "Exists"}:
            yield not_supported(f"{at}.operator", operator, ("Equal", "Exists"))
        elif operator == "Exists" and toleration.get("value"):
            yield invalid_value(f"{at}.operator", toleration, "value must be empty when `operator` is 'Exists'")
        if toleration.get("effect", "") not in {"", "NoSchedule", "PreferNoSchedule", "NoExecute"}:
            yield not_supported(f"{at}.effect", toleration["effect"], ("NoExecute", "NoSchedule", "PreferNoSchedule"))
