"""Addresses and node ports of Services.

Pods and services have loopback addresses, so a cluster address must be one of 127.0.0.0/8: services take theirs from 127.96.0.0/16.
"""

from __future__ import annotations

import ipaddress
import secrets

from .documents import Doc, name_of
from .errors import invalid, invalid_value, too_many
from .kinds import Resource
from .store import Store

SERVICE_RANGE = ipaddress.ip_network("127.96.0.0/16")
NODE_PORTS = range(30000, 32768)


class Addresses:
    def __init__(self, store: Store) -> None:
        self.store = store
        self._taken: dict[str, str] = {}  # address -> "namespace/name"
        self._ports: dict[int, str] = {}
        # Anywhere: two clusters on one machine share its loopback addresses.
        self._next = 1 + secrets.randbelow(SERVICE_RANGE.num_addresses - 2)
        for doc in store.docs("services"):
            self._note(doc)

    def assign(self, resource: Resource, doc: Doc, old: Doc | None, *, dry_run: bool) -> None:
        """Gives a Service its cluster address and node ports, in place. 422 when an address that was asked for is not to be had."""
        if resource.key != "services":
            return
        spec = doc["spec"]
        who = f"{doc['metadata']['namespace']}/{name_of(doc)}"
        if spec["type"] == "ExternalName":
            spec.pop("clusterIP", None)
            spec.pop("clusterIPs", None)
            return
        wanted = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
        if not wanted:
            wanted = self._free()
        elif wanted != "None" and self._taken.get(wanted, who) != who:
            raise invalid(
                "", "Service", name_of(doc), [invalid_value("spec.clusterIPs", [wanted], f"failed to allocate IP {wanted}: provided IP is already allocated")]
            )
        elif wanted != "None":
            self._check_range(doc, wanted)
        spec["clusterIP"], spec["clusterIPs"] = wanted, [wanted]
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        if spec["type"] in {"NodePort", "LoadBalancer"}:
            self._node_ports(spec, who)
        if not dry_run:
            if old is not None:
                self.release(resource, old)
            self._note(doc)

    def _check_range(self, doc: Doc, wanted: str) -> None:
        try:
            inside = ipaddress.ip_address(wanted) in SERVICE_RANGE
        except ValueError:
            inside = False
        if not inside:
            detail = f"failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {SERVICE_RANGE}"
            raise invalid("", "Service", name_of(doc), [invalid_value("spec.clusterIPs", [wanted], detail)])

    def _free(self) -> str:
        size = SERVICE_RANGE.num_addresses - 2
        for offset in range(size):
            address = str(SERVICE_RANGE[(self._next + offset - 1) % size + 1])
            if address not in self._taken:
                self._next = (self._next + offset) % size + 1
                return address
        raise too_many("failed to allocate a serviceIP: range is full")

    def _node_ports(self, spec: Doc, who: str) -> None:
        for port in spec.get("ports") or ():
            if not port.get("nodePort"):
                port["nodePort"] = next(each for each in NODE_PORTS if each not in self._ports)
            self._ports.setdefault(port["nodePort"], who)

    def _note(self, doc: Doc) -> None:
        who, spec = f"{doc['metadata']['namespace']}/{name_of(doc)}", doc["spec"]
        if spec.get("clusterIP", "None") != "None":
            self._taken[spec["clusterIP"]] = who
        for port in spec.get("ports") or ():
            if port.get("nodePort"):
                self._ports[port["nodePort"]] = who

    def release(self, resource: Resource, doc: Doc) -> None:
        if resource.key != "services":
            return
        spec = doc["spec"]
        self._taken.pop(spec.get("clusterIP", ""), None)
        for port in spec.get("ports") or ():
            self._ports.pop(port.get("nodePort", 0), None)
