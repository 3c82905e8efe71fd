"""Pod Security Standards by namespace label: `baseline` and `restricted`, enforced on pods, warned about on workloads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..documents import Doc, at, meta, name_of, namespace_of
from ..errors import forbidden, invalid, invalid_value
from ..kinds import Resource
from ..store import Store

PREFIX = "pod-security.kubernetes.io/"
LEVELS = ("privileged", "baseline", "restricted")
_TEMPLATES = {"statefulsets.apps", "deployments.apps", "replicasets.apps", "jobs.batch"}
_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}  # fmt: skip
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}


@dataclass(frozen=True)
class Violation:
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})"


def check(store: Store, resource: Resource, doc: Doc, old: Doc | None, warnings: list[str]) -> None:
    """403 for a pod that its namespace's `enforce` level forbids; a warning for what `warn` (or, for templates, `enforce`) does."""
    if resource.key == "namespaces":
        _check_labels(doc)
        return
    if resource.key != "pods" and resource.key not in _TEMPLATES:
        return
    if old is not None and resource.key == "pods" and old.get("spec") == doc.get("spec") and meta(old).get("annotations") == meta(doc).get("annotations"):
        return
    space = store.get("namespaces", "", namespace_of(doc))
    labels = meta(space or {}).get("labels") or {}
    enforce, version = labels.get(PREFIX + "enforce", "privileged"), labels.get(PREFIX + "enforce-version", "latest")
    warn, warn_version = labels.get(PREFIX + "warn", ""), labels.get(PREFIX + "warn-version", "latest")
    spec = doc["spec"] if resource.key == "pods" else at(doc, "spec.template.spec", {})
    if resource.key == "pods":
        found = violations(enforce, spec)
        if found:
            raise forbidden("", "pods", name_of(doc), f'violates PodSecurity "{enforce}:{version}": {_join(found)}')
        if warn in LEVELS:
            found = violations(warn, spec)
            if found:
                warnings.append(f'would violate PodSecurity "{warn}:{warn_version}": {_join(found)}')
    else:
        level, said = (warn, warn_version) if warn else (enforce, version)
        found = violations(level, spec)
        if found:
            warnings.append(f'would violate PodSecurity "{level}:{said}": {_join(found)}')


def _join(found: list[Violation]) -> str:
    return ", ".join(map(str, found))


def _check_labels(namespace: Doc) -> None:
    causes = []
    for mode in ("enforce", "audit", "warn"):
        value = (meta(namespace).get("labels") or {}).get(PREFIX + mode)
        if value is not None and value not in LEVELS:
            causes.append(invalid_value(f"metadata.labels[{PREFIX}{mode}]", value, "must be one of privileged, baseline, restricted"))
    if causes:
        raise invalid("", "Namespace", name_of(namespace), causes)


def violations(level: str, spec: Doc) -> list[Violation]:
    """What a pod's spec does that the level forbids; the level's checks in the order in which the messages name them."""
    if level == "baseline":
        checks: tuple[Check, ...] = _BASELINE
    elif level == "restricted":
        checks = _RESTRICTED
    else:
        return []
    return [found for check in checks if (found := check(spec)) is not None]


Check = Callable[[Doc], Violation | None]


def _containers(spec: Doc) -> Iterator[tuple[str, Doc]]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            yield container.get("name", ""), container.get("securityContext") or {}


def _pod_context(spec: Doc) -> Doc:
    return spec.get("securityContext") or {}


def _names(found: list[str]) -> str:
    """`container "a"` or `containers "a", "b"`."""
    quoted = ", ".join(f'"{each}"' for each in found)
    return f"container{'s' if len(found) > 1 else ''} {quoted}"


def _list(found: list[str]) -> str:
    return ", ".join(f'"{each}"' for each in found)


def _many(found: Any) -> str:
    return "s" if len(found) > 1 else ""


# --- baseline --------------------------------------------------------------------------------------------------------


def host_namespaces(spec: Doc) -> Violation | None:
    found = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    return Violation("host namespaces", ", ".join(found)) if found else None


def privileged(spec: Doc) -> Violation | None:
    bad = [name for name, context in _containers(spec) if context.get("privileged")]
    return Violation("privileged", f"{_names(bad)} must not set securityContext.privileged=true") if bad else None


def capabilities_baseline(spec: Doc) -> Violation | None:
    bad, added = [], set()
    for name, context in _containers(spec):
        extra = set(at(context, "capabilities.add", [])) - _CAPABILITIES
        if extra:
            bad.append(name)
            added |= extra
    if not bad:
        return None
    return Violation("non-default capabilities", f"{_names(bad)} must not include {_list(sorted(added))} in securityContext.capabilities.add")


def host_path(spec: Doc) -> Violation | None:
    bad = [each.get("name", "") for each in spec.get("volumes") or () if "hostPath" in each]
    return Violation("hostPath volumes", f"volume{_many(bad)} {_list(bad)}") if bad else None


def host_ports(spec: Doc) -> Violation | None:
    bad, ports = [], []
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            own = [str(port["hostPort"]) for port in container.get("ports") or () if port.get("hostPort")]
            if own:
                bad.append(container.get("name", ""))
                ports += own
    if not bad:
        return None
    return Violation("hostPort", f"{_names(bad)} use{'' if len(bad) > 1 else 's'} hostPort{_many(ports)} {', '.join(sorted(set(ports)))}")


def proc_mount(spec: Doc) -> Violation | None:
    bad = [(name, context["procMount"]) for name, context in _containers(spec) if context.get("procMount", "Default") != "Default"]
    if not bad or spec.get("hostUsers") is False:
        return None
    return Violation("procMount", f"{_names([name for name, _ in bad])} must not set securityContext.procMount to {_list(sorted({kind for _, kind in bad}))}")


def seccomp_baseline(spec: Doc) -> Violation | None:
    bad = [name for name, context in _containers(spec) if at(context, "seccompProfile.type") == "Unconfined"]
    where = (["pod"] if at(_pod_context(spec), "seccompProfile.type") == "Unconfined" else []) + ([_names(bad)] if bad else [])
    if not where:
        return None
    return Violation("seccompProfile", f'{" and ".join(where)} must not set securityContext.seccompProfile.type to "Unconfined"')


def app_armor(spec: Doc) -> Violation | None:
    bad = [name for name, context in _containers(spec) if at(context, "appArmorProfile.type") == "Unconfined"]
    where = (["pod"] if at(_pod_context(spec), "appArmorProfile.type") == "Unconfined" else []) + ([_names(bad)] if bad else [])
    return Violation("forbidden AppArmor profile", f'{" and ".join(where)} must not set AppArmor profile type to "Unconfined"') if where else None


def sysctls(spec: Doc) -> Violation | None:
    bad = [each.get("name", "") for each in _pod_context(spec).get("sysctls") or () if each.get("name") not in _SYSCTLS]
    return Violation("forbidden sysctls", ", ".join(bad)) if bad else None


def host_process(spec: Doc) -> Violation | None:
    bad = [name for name, context in _containers(spec) if at(context, "windowsOptions.hostProcess")]
    where = (["pod"] if at(_pod_context(spec), "windowsOptions.hostProcess") else []) + ([_names(bad)] if bad else [])
    return Violation("hostProcess", f"{' and '.join(where)} must not set securityContext.windowsOptions.hostProcess=true") if where else None


def selinux(spec: Doc) -> Violation | None:
    options = [_pod_context(spec).get("seLinuxOptions") or {}] + [context.get("seLinuxOptions") or {} for _, context in _containers(spec)]
    kinds = {each["type"] for each in options if each.get("type", "") not in {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}}
    roles = any(each.get("user") or each.get("role") for each in options)
    if not kinds and not roles:
        return None
    parts = [f"type{_many(kinds)} {_list(sorted(kinds))}"] if kinds else []
    parts += ["user may not be set"] if any(each.get("user") for each in options) else []
    parts += ["role may not be set"] if any(each.get("role") for each in options) else []
    return Violation("seLinuxOptions", "pod or containers set forbidden securityContext.seLinuxOptions: " + "; ".join(parts))


# --- restricted ------------------------------------------------------------------------------------------------------


def privilege_escalation(spec: Doc) -> Violation | None:
    bad = [name for name, context in _containers(spec) if context.get("allowPrivilegeEscalation") is not False]
    return Violation("allowPrivilegeEscalation != false", f"{_names(bad)} must set securityContext.allowPrivilegeEscalation=false") if bad else None


def capabilities_restricted(spec: Doc) -> Violation | None:
    undropped, adding, added = [], [], set()
    for name, context in _containers(spec):
        if "ALL" not in at(context, "capabilities.drop", []):
            undropped.append(name)
        extra = set(at(context, "capabilities.add", [])) - {"NET_BIND_SERVICE"}
        if extra:
            adding.append(name)
            added |= extra
    parts = [f'{_names(undropped)} must set securityContext.capabilities.drop=["ALL"]'] if undropped else []
    parts += [f"{_names(adding)} must not include {_list(sorted(added))} in securityContext.capabilities.add"] if adding else []
    return Violation("unrestricted capabilities", "; ".join(parts)) if parts else None


def volume_types(spec: Doc) -> Violation | None:
    bad = [(each.get("name", ""), next((key for key in each if key != "name"), "unknown")) for each in spec.get("volumes") or ()]
    bad = [(name, kind) for name, kind in bad if kind not in _VOLUMES]
    if not bad:
        return None
    kinds = sorted({kind for _, kind in bad})
    return Violation(
        "restricted volume types",
        f"volume{_many(bad)} {_list([name for name, _ in bad])} use{'' if len(bad) > 1 else 's'} restricted volume type{_many(kinds)} {_list(kinds)}",
    )


def run_as_non_root(spec: Doc) -> Violation | None:
    pod = _pod_context(spec).get("runAsNonRoot")
    explicit = [name for name, context in _containers(spec) if context.get("runAsNonRoot") is False]
    implicit = [name for name, context in _containers(spec) if context.get("runAsNonRoot") is None] if pod is not True else []
    if explicit:
        where = (["pod"] if pod is False else []) + [_names(explicit)]
        return Violation("runAsNonRoot != true", f"{' and '.join(where)} must not set securityContext.runAsNonRoot=false")
    if pod is False:
        return Violation("runAsNonRoot != true", "pod must not set securityContext.runAsNonRoot=false")
    if implicit:
        return Violation("runAsNonRoot != true", f"pod or {_names(implicit)} must set securityContext.runAsNonRoot=true")
    return None


def run_as_user(spec: Doc) -> Violation | None:
    bad = [name for name, context in _containers(spec) if context.get("runAsUser") == 0]
    where = (["pod"] if _pod_context(spec).get("runAsUser") == 0 else []) + ([_names(bad)] if bad else [])
    return Violation("runAsUser=0", f"{' and '.join(where)} must not set runAsUser=0") if where else None


def seccomp_restricted(spec: Doc) -> Violation | None:
    allowed = {"RuntimeDefault", "Localhost"}
    pod = at(_pod_context(spec), "seccompProfile.type")
    explicit = [(name, at(context, "seccompProfile.type")) for name, context in _containers(spec)]
    wrong = [(name, kind) for name, kind in explicit if kind is not None and kind not in allowed]
    if wrong or (pod is not None and pod not in allowed):
        where = (["pod"] if pod is not None and pod not in allowed else []) + ([_names([name for name, _ in wrong])] if wrong else [])
        kinds = sorted({kind for _, kind in wrong} | ({pod} if pod is not None and pod not in allowed else set()))
        return Violation("seccompProfile", f"{' and '.join(where)} must not set securityContext.seccompProfile.type to {_list(kinds)}")
    if pod in allowed:
        return None
    silent = [name for name, kind in explicit if kind is None]
    if not silent:
        return None
    return Violation("seccompProfile", f'pod or {_names(silent)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"')


# Checks are named in the order of their ids, as the API server evaluates them.
_BASELINE: tuple[Check, ...] = (
    app_armor,
    capabilities_baseline,
    host_namespaces,
    host_path,
    host_ports,
    host_process,
    privileged,
    proc_mount,
    seccomp_baseline,
    selinux,
    sysctls,
)
_RESTRICTED: tuple[Check, ...] = (
    app_armor, host_namespaces, host_path, host_ports, host_process, privileged, proc_mount, selinux, sysctls,
    privilege_escalation, capabilities_restricted, volume_types, run_as_non_root, run_as_user, seccomp_restricted,
)  # fmt: skip
