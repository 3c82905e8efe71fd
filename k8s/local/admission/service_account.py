"""ServiceAccount admission: the account of a pod, and its token volume unless that is switched off."""

from __future__ import annotations

import secrets

from ..documents import Doc, name_of, namespace_of
from ..errors import forbidden
from ..store import Store

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105


def fill(store: Store, pod: Doc) -> None:
    spec = pod["spec"]
    name = spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = name
    account = store.get("serviceaccounts", namespace_of(pod), name)
    if account is None:
        why = f'error looking up service account {namespace_of(pod)}/{name}: serviceaccount "{name}" not found'
        raise forbidden("", "pods", name_of(pod), why)
    if account.get("imagePullSecrets") and not spec.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(each) for each in account["imagePullSecrets"]]
    mount = spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
    if mount:
        _token_volume(spec)


def _token_volume(spec: Doc) -> None:
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    lacking = [each for each in containers if not any(mount.get("mountPath") == TOKEN_PATH for mount in each.get("volumeMounts") or ())]
    if not lacking:
        return
    name = next((each["name"] for each in spec.get("volumes") or () if each.get("name", "").startswith("kube-api-access-")), "")
    if not name:
        name = f"kube-api-access-{secrets.token_hex(3)[:5]}"
        sources = [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]
        spec.setdefault("volumes", []).append({"name": name, "projected": {"sources": sources, "defaultMode": 420}})
    for container in lacking:
        container.setdefault("volumeMounts", []).append({"name": name, "readOnly": True, "mountPath": TOKEN_PATH})


def tolerate(pod: Doc, seconds: int) -> None:
    """DefaultTolerationSeconds: pods bear an unreachable node for a while."""
    tolerations = pod["spec"].setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(_covers(each, key) for each in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds})


def _covers(toleration: Doc, key: str) -> bool:
    return toleration.get("key", "") in {"", key} and toleration.get("effect", "") in {"", "NoExecute"}


def default_account(namespace: str) -> Doc:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}
