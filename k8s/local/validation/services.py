"""Services, NetworkPolicies, Ingresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from .. import names
from ..documents import Doc
from ..errors import Cause, duplicate, invalid_value, not_supported, required
from .pods import PORT_TEXT, port_or_name
from .selectors import label_selector

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")


def check(doc: Doc) -> Iterator[Cause]:
    spec = doc.get("spec") or {}
    kind = spec.get("type")
    if kind not in _TYPES:
        yield not_supported("spec.type", kind, _TYPES)
    headless = spec.get("clusterIP") == "None"
    ports = spec.get("ports") or []
    if not ports and not headless and kind != "ExternalName":
        yield required("spec.ports")
    if kind == "ExternalName" and not spec.get("externalName"):
        yield required("spec.externalName")
    if spec.get("sessionAffinity") not in {"None", "ClientIP"}:
        yield not_supported("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
    yield from names.labels(spec.get("selector") or {}, "spec.selector")
    if headless and kind in {"NodePort", "LoadBalancer"}:
        yield invalid_value("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
    seen_names: set[str] = set()
    seen_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        at = f"spec.ports[{index}]"
        name, number = port.get("name", ""), port.get("port")
        if len(ports) > 1 and not name:
            yield required(f"{at}.name")
        elif name:
            for why in names.label(name):
                yield invalid_value(f"{at}.name", name, why)
            if name in seen_names:
                yield duplicate(f"{at}.name", name)
            seen_names.add(name)
        if number is None or not 1 <= number <= 65535:
            yield invalid_value(f"{at}.port", number or 0, PORT_TEXT)
        elif (port.get("protocol", ""), number) in seen_ports:
            yield duplicate(at, {"port": number, "protocol": port.get("protocol")})
        else:
            seen_ports.add((port.get("protocol", ""), number))
        if port.get("protocol") not in {"TCP", "UDP", "SCTP"}:
            yield not_supported(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
        if port.get("targetPort") is not None:
            yield from port_or_name(port["targetPort"], f"{at}.targetPort")


def check_update(doc: Doc, old: Doc) -> Iterator[Cause]:
    new, was = doc["spec"].get("clusterIP"), old["spec"].get("clusterIP")
    if was and new != was and doc["spec"].get("type") != "ExternalName" and old["spec"].get("type") != "ExternalName":
        yield invalid_value("spec.clusterIPs[0]", [new or ""], "may not change once set")


def network_policy(doc: Doc) -> Iterator[Cause]:
    spec = doc.get("spec") or {}
    yield from label_selector(spec.get("podSelector") or {}, "spec.podSelector")
    for index, kind in enumerate(spec.get("policyTypes") or ()):
        if kind not in {"Ingress", "Egress"}:
            yield not_supported(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress"))
    for field, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(field) or ()):
            at = f"spec.{field}[{index}]"
            for number, port in enumerate(rule.get("ports") or ()):
                if port.get("port") is not None:
                    yield from port_or_name(port["port"], f"{at}.ports[{number}].port")
            for number, peer in enumerate(rule.get(peers) or ()):
                yield from _peer(peer, f"{at}.{peers}[{number}]")


def _peer(peer: Doc, at: str) -> Iterator[Cause]:
    if not peer:
        yield required(at, "must specify a peer")
    for key in ("podSelector", "namespaceSelector"):
        if key in peer:
            yield from label_selector(peer[key], f"{at}.{key}")
    block = peer.get("ipBlock")
    if block is None:
        return
    if len(peer) > 1:
        yield Cause("FieldValueForbidden", at, "Forbidden: may not specify both ipBlock and another peer")
    try:
        outer = ipaddress.ip_network(block.get("cidr", ""), strict=False)
    except ValueError:
        yield invalid_value(f"{at}.ipBlock.cidr", block.get("cidr", ""), "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
        return
    for index, text in enumerate(block.get("except") or ()):
        where = f"{at}.ipBlock.except[{index}]"
        try:
            inner = ipaddress.ip_network(text, strict=False)
        except ValueError:
            yield invalid_value(where, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
            continue
        if inner.version != outer.version or not inner.subnet_of(outer) or inner == outer:  # type: ignore[arg-type]
            yield invalid_value(where, text, "must be a strict subset of `cidr`")


def ingress(doc: Doc) -> Iterator[Cause]:
    spec = doc.get("spec") or {}
    if not spec.get("rules") and not spec.get("defaultBackend"):
        yield invalid_value("spec", spec, "either `defaultBackend` or `rules` must be specified")
    for index, rule in enumerate(spec.get("rules") or ()):
        for why in names.subdomain(rule["host"].removeprefix("*.")) if rule.get("host") else ():
            yield invalid_value(f"spec.rules[{index}].host", rule["host"], why)
        for number, path in enumerate((rule.get("http") or {}).get("paths") or ()):
            at = f"spec.rules[{index}].http.paths[{number}]"
            if not path.get("pathType"):
                yield required(f"{at}.pathType", "pathType must be specified")
            elif path["pathType"] not in {"Exact", "Prefix", "ImplementationSpecific"}:
                yield not_supported(f"{at}.pathType", path["pathType"], ("Exact", "ImplementationSpecific", "Prefix"))
            elif path["pathType"] != "ImplementationSpecific" and not path.get("path", "").startswith("/"):
                yield invalid_value(f"{at}.path", path.get("path", ""), "must be an absolute path")
