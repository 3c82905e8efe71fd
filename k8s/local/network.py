"""Addresses of pods, names inside them, and services.

All pods share this machine's network and differ by their loopback address. Names are entries of a hosts file of each pod's own, which is
rewritten in place, because a container's /etc/hosts is a bind of the file, not of its directory.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from .client import Client
from .controllers import endpoints
from .controllers.endpoints import Backend, backends, published
from .documents import Doc, at, meta, name_of, namespace_of
from .forward import Forwarder, Target

log = logging.getLogger(__name__)
POD_RANGE = ipaddress.ip_network("127.64.0.0/11")  # up to 127.95; services follow at 127.96
Line = tuple[str, tuple[str, ...]]  # address, names


@dataclass(frozen=True)
class Attached:
    namespace: str
    ip: str
    name: str
    subdomain: str
    aliases: tuple[Line, ...]
    path: Path


class Network:
    def __init__(self, client: Client, service_domain: str) -> None:
        self.client = client
        self.domain = service_domain
        self.forwarder = Forwarder()
        self.attached: dict[str, Attached] = {}
        self.lines: dict[str, list[Line]] = {}  # of each namespace, short names left out
        self._given: dict[str, str] = {}  # pod uid -> address
        self._next = secrets.randbelow(POD_RANGE.num_addresses - 2)  # two clusters on one machine share its loopback addresses
        self._dirty = asyncio.Event()
        self._problems: dict[Target, str] = {}
        self._known: dict[tuple[str, str], Doc] = {}
        for pod in client.list("Pod"):
            ip = at(pod, "status.podIP", "")
            if ip and at(pod, "status.phase") not in ("Succeeded", "Failed") and ipaddress.ip_address(ip) in POD_RANGE:
                self._given[meta(pod)["uid"]] = ip

    # --- pods ---

    def attach(self, pod: Doc, hosts: Path) -> str:
        """Gives a pod its address, the same as before when it had one, and writes its hosts file."""
        uid, spec = meta(pod)["uid"], pod["spec"]
        ip = "127.0.0.1" if spec.get("hostNetwork") else self._given.get(uid) or self._free()
        if not spec.get("hostNetwork"):
            self._given[uid] = ip
        aliases = tuple((item["ip"], tuple(item.get("hostnames") or [])) for item in spec.get("hostAliases") or [])
        name = str(spec.get("hostname") or name_of(pod))
        self.attached[uid] = Attached(namespace_of(pod), ip, name, spec.get("subdomain") or "", aliases, hosts)
        self._write(self.attached[uid])
        return ip

    def _free(self) -> str:
        taken = set(self._given.values())
        size = POD_RANGE.num_addresses - 2
        for _ in range(size):  # in a circle: an address that was just given back is not given out again at once
            self._next = self._next % size + 1
            ip = str(POD_RANGE.network_address + self._next)
            if ip not in taken:
                return ip
        raise RuntimeError(f"no address is left in {POD_RANGE}")

    def detach(self, uid: str) -> None:
        self.attached.pop(uid, None)
        self._given.pop(uid, None)

    def names(self, pod: Doc) -> dict[str, str]:
        """Every fully qualified name that the pod may use, with its address."""
        found: dict[str, str] = {}
        for lines in self.lines.values():
            for ip, names in lines:
                for name in names:
                    if name.endswith((".svc", f".{self.domain}")):
                        found.setdefault(name, ip)
        return found

    # --- following the API ---

    async def run(self) -> None:
        work = asyncio.create_task(self._work())
        try:
            async for change in self.client.changes("Service", "Pod", "Endpoints"):
                if change.kind == "Service" and change.type == "DELETED":
                    endpoints.remove(self.client, change.object)
                self._dirty.set()
        finally:
            work.cancel()
            self.forwarder.stop()

    async def _work(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                self.sync()
            except Exception:
                log.exception("network")
            await asyncio.sleep(0.005)  # changes that come together are worked on together

    def sync(self) -> None:
        """Endpoints, forwarders and names, as services and pods are now."""
        pods: dict[str, list[Doc]] = {}
        for pod in self.client.list("Pod"):
            if at(pod, "status.podIP"):  # each service looks at all of these; pods that only wait may be very many
                pods.setdefault(namespace_of(pod), []).append(pod)
        wanted: dict[Target, list[Target]] = {}
        lines: dict[str, list[Line]] = {}
        for service in self.client.list("Service"):
            if meta(service).get("deletionTimestamp"):
                continue
            found = backends(service, pods.get(namespace_of(service), []))
            endpoints.write(self.client, service, found)
            for address, targets in self._listeners(service, found).items():
                wanted.setdefault(address, []).extend(targets)
            lines.setdefault(namespace_of(service), []).extend(self._service_lines(service, found))
        self._report(self.forwarder.set(wanted))
        if lines != self.lines:
            self.lines = lines
            for attached in self.attached.values():
                self._write(attached)

    def _report(self, problems: dict[Target, str]) -> None:
        for (ip, port), why in problems.items():
            if (ip, port) not in self._problems:
                log.warning("service address %s:%s cannot be listened on: %s", ip, port, why)
                for service in self.client.list("Service"):
                    if at(service, "spec.clusterIP") == ip:
                        self.client.event(service, "Warning", "FailedToListen", f"cannot listen on {ip}:{port}: {why}", "kube-proxy")
        self._problems = problems

    def _listeners(self, service: Doc, found: list[Backend]) -> dict[Target, list[Target]]:
        spec = service["spec"]
        ip = spec.get("clusterIP") or "None"
        listeners: dict[Target, list[Target]] = {}
        for port in spec.get("ports") or []:
            if (port.get("protocol") or "TCP") != "TCP":
                continue
            targets = self._manual(service, port) if not spec.get("selector") else _targets(port, published(service, found))
            if ip != "None":
                listeners[(ip, port["port"])] = targets
            if port.get("nodePort"):
                listeners[("127.0.0.1", port["nodePort"])] = targets
        return listeners

    def _manual(self, service: Doc, port: Doc) -> list[Target]:
        """Targets of a service without selector: what someone wrote into its Endpoints."""
        document = self.client.get("Endpoints", namespace_of(service), name_of(service)) or {}
        return [
            (address["ip"], item["port"])
            for subset in document.get("subsets") or []
            for item in subset.get("ports") or []
            if (item.get("name") or "") == (port.get("name") or "")
            for address in subset.get("addresses") or []
        ]

    def _service_lines(self, service: Doc, found: list[Backend]) -> list[Line]:
        name, namespace, ip = name_of(service), namespace_of(service), at(service, "spec.clusterIP", "")
        if ip and ip != "None":
            return [(ip, self._forms(name, namespace))]
        lines: list[Line] = []
        shown = published(service, found)
        if not at(service, "spec.selector"):
            document = self.client.get("Endpoints", namespace, name) or {}
            addresses = [(item["ip"], item.get("hostname", "")) for subset in document.get("subsets") or [] for item in subset.get("addresses") or []]
        else:
            addresses = [(item.ip, item.hostname) for item in shown]
        for address, hostname in addresses:
            lines.append((address, self._forms(name, namespace)))
            if hostname:
                lines.append((address, tuple(f"{hostname}.{form}" for form in self._forms(name, namespace))))
        return lines

    def _forms(self, name: str, namespace: str) -> tuple[str, ...]:
        zone = self.domain.partition(".")[0]
        return (f"{name}.{namespace}.{self.domain}", f"{name}.{namespace}.{zone}", f"{name}.{namespace}")

    # --- hosts files ---

    def hosts(self, attached: Attached) -> str:
        own = [attached.name]
        if attached.subdomain:
            own.insert(0, f"{attached.name}.{attached.subdomain}.{attached.namespace}.{self.domain}")
        rows = ["# Kubernetes-managed hosts file.", "127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", f"{attached.ip}\t{' '.join(own)}"]
        for ip, names in attached.aliases:
            rows.append(f"{ip}\t{' '.join(names)}")
        short = f".{attached.namespace}"
        for namespace, lines in sorted(self.lines.items()):
            for ip, names in lines:
                local = (names[-1].removesuffix(short),) if namespace == attached.namespace else ()
                rows.append(f"{ip}\t{' '.join([*names, *local])}")
        return "\n".join(rows) + "\n"

    def _write(self, attached: Attached) -> None:
        write_in_place(attached.path, self.hosts(attached).encode())


def write_in_place(path: Path, data: bytes) -> None:
    """Replaces a file's content and keeps its inode. It never shrinks, so that a reader in between sees no half of it cut off."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        return  # the pod is being removed
    try:
        size = os.fstat(fd).st_size
        old = os.pread(fd, size, 0)
        padded = data + b"\n" * (size - len(data))
        if old != padded:
            os.pwrite(fd, padded, 0)
    finally:
        os.close(fd)


def _targets(port: Doc, found: list[Backend]) -> list[Target]:
    wanted = port.get("name") or ""
    return [(item.ip, number) for item in found for name, number, _ in item.ports if name == wanted]
