"""Quotas, limits, Pod Security, priorities: what a namespace lets in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Answer, Http, configmap, pod, statefulset, wait_for
from .test_objects import space


def sized(name: str, **resources: str) -> dict[str, Any]:
    body = pod(name)
    body["spec"]["containers"][0]["resources"] = {"requests": resources, "limits": resources}
    return body


def quota(http: Http, namespace: str, **hard: str) -> None:
    named = {key.replace("__", "/").replace("_", "."): value for key, value in hard.items()}
    assert (
        http(
            "POST", space(namespace, "resourcequotas"), {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}, "spec": {"hard": named}}
        ).code
        == 201
    )
    wait_for(lambda: http("GET", space(namespace, "resourcequotas", "team")).json.get("status", {}).get("hard"), "the quota to be counted")


def used(http: Http, namespace: str) -> dict[str, str]:
    found: dict[str, str] = http("GET", space(namespace, "resourcequotas", "team")).json["status"]["used"]
    return found


def test_a_quota_refuses_what_would_overshoot_in_its_own_words(http: Http, namespace: str) -> None:
    quota(http, namespace, requests_cpu="2", requests_memory="2Gi", pods="5")
    assert http("POST", space(namespace, "pods"), sized("a", cpu="1500m", memory="1Gi")).code == 201
    assert used(http, namespace) == {"requests.cpu": "1500m", "requests.memory": "1Gi", "pods": "1"}
    answer = http("POST", space(namespace, "pods"), sized("b", cpu="1", memory="1Gi"))
    assert (answer.code, answer.json["reason"]) == (403, "Forbidden")
    assert answer.message == 'pods "b" is forbidden: exceeded quota: team, requested: requests.cpu=1, used: requests.cpu=1500m, limited: requests.cpu=2'
    http("DELETE", space(namespace, "pods", "a"))
    wait_for(lambda: used(http, namespace)["pods"] == "0", "the quota to be given back")
    assert http("POST", space(namespace, "pods"), sized("b", cpu="1", memory="1Gi")).code == 201


def test_a_quota_on_cpu_wants_every_container_to_say_what_it_needs(http: Http, namespace: str) -> None:
    quota(http, namespace, requests_cpu="2", limits_memory="1Gi")
    answer = http("POST", space(namespace, "pods"), pod("silent"))
    assert answer.code == 403
    assert answer.message == 'pods "silent" is forbidden: failed quota: team: must specify limits.memory for: main; requests.cpu for: main'


def test_a_quota_counts_objects_claims_and_devices(http: Http, namespace: str) -> None:
    quota(http, namespace, count__secrets="1", requests_storage="10Gi", persistentvolumeclaims="5", requests_nvidia_com__gpu="1")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    assert http("POST", space(namespace, "secrets"), secret).code == 201
    answer = http("POST", space(namespace, "secrets"), {**secret, "metadata": {"name": "t"}})
    assert answer.message == 'secrets "t" is forbidden: exceeded quota: team, requested: count/secrets=1, used: count/secrets=1, limited: count/secrets=1'
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
             "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "11Gi"}}}}  # fmt: skip
    answer = http("POST", space(namespace, "persistentvolumeclaims"), claim)
    assert answer.message == (
        'persistentvolumeclaims "c" is forbidden: exceeded quota: team, '
        "requested: requests.storage=11Gi, used: requests.storage=0, limited: requests.storage=10Gi"
    )
    answer = http("POST", space(namespace, "pods"), sized("g", **{"nvidia.com/gpu": "2"}))
    assert answer.message.endswith("requested: requests.nvidia.com/gpu=2, used: requests.nvidia.com/gpu=0, limited: requests.nvidia.com/gpu=1")


def test_a_refused_dry_run_and_an_allowed_one_charge_nothing(http: Http, namespace: str) -> None:
    quota(http, namespace, pods="1")
    assert http("POST", space(namespace, "pods") + "?dryRun=All", pod("a")).code == 201
    assert used(http, namespace) == {"pods": "0"}


def limits(http: Http, namespace: str, **item: Any) -> None:
    body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", **item}]}}
    assert http("POST", space(namespace, "limitranges"), body).code == 201


def eventually(http: Http, namespace: str, body: dict[str, Any], code: int) -> Any:
    """A real API server learns of a new LimitRange from a cache, a moment later."""
    found: list[Any] = []

    def asked() -> bool:
        found.append(http("POST", space(namespace, "pods") + "?dryRun=All", body))
        return bool(found[-1].code == code)

    wait_for(asked, f"an answer {code}")
    return found[-1]


def test_a_limit_range_fills_in_and_bounds(http: Http, namespace: str) -> None:
    limits(http, namespace, default={"cpu": "500m"}, defaultRequest={"cpu": "100m"}, max={"cpu": "1"}, min={"cpu": "50m"})
    answer = eventually(http, namespace, sized("big", cpu="2"), 403)
    assert "maximum cpu usage per Container is 1, but limit is 2" in answer.message
    made = http("POST", space(namespace, "pods"), pod("filled")).json
    assert made["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"].startswith("LimitRanger plugin set: cpu ")


def bare(name: str, **spec: Any) -> dict[str, Any]:
    body = pod(name, **spec)
    body["spec"].pop("securityContext")
    body["spec"]["containers"][0].pop("securityContext")
    return body


def test_restricted_names_every_violation_in_order(http: Http, make_namespace: Callable[..., str]) -> None:
    namespace = make_namespace(**{"pod_security.kubernetes.io__enforce": "restricted"})
    answer = http("POST", space(namespace, "pods"), bare("loose"))
    assert (answer.code, answer.json["reason"]) == (403, "Forbidden")
    assert answer.message == (
        'pods "loose" is forbidden: violates PodSecurity "restricted:latest": '
        'allowPrivilegeEscalation != false (container "main" must set securityContext.allowPrivilegeEscalation=false), '
        'unrestricted capabilities (container "main" must set securityContext.capabilities.drop=["ALL"]), '
        'runAsNonRoot != true (pod or container "main" must set securityContext.runAsNonRoot=true), '
        'seccompProfile (pod or container "main" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
    )
    assert http("POST", space(namespace, "pods"), pod("tight")).code == 201


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"hostNetwork": True}, "host namespaces (hostNetwork=true)"),
        ({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}, 'hostPath volumes (volume "h")'),
    ],
)
def test_baseline_refuses_what_reaches_the_host(http: Http, make_namespace: Callable[..., str], spec: dict[str, Any], words: str) -> None:
    namespace = make_namespace(**{"pod_security.kubernetes.io__enforce": "baseline"})
    answer = http("POST", space(namespace, "pods"), bare("host", **spec))
    assert answer.code == 403
    assert answer.message == f'pods "host" is forbidden: violates PodSecurity "baseline:latest": {words}'
    assert http("POST", space(namespace, "pods"), bare("fine")).code == 201


def test_a_workload_that_would_be_refused_is_stored_with_a_warning(http: Http, make_namespace: Callable[..., str]) -> None:
    namespace = make_namespace(**{"pod_security.kubernetes.io__enforce": "restricted"})
    body = statefulset("loose")
    body["spec"]["template"]["spec"] = bare("x")["spec"]
    answer = http("POST", space(namespace, "statefulsets", group="apps"), body)
    assert answer.code == 201
    assert "would violate PodSecurity" in answer.warnings
    assert "allowPrivilegeEscalation != false" in answer.warnings


def test_a_namespaces_security_level_must_exist(http: Http, namespace: str) -> None:
    change = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "severe"}}}
    assert http("PATCH", f"/api/v1/namespaces/{namespace}", change, kind="application/merge-patch+json").code == 422


def test_a_pod_names_its_account_and_class_or_is_refused(http: Http, namespace: str) -> None:
    answer = http("POST", space(namespace, "pods"), pod("p", serviceAccountName="nobody"))
    assert answer.code == 403
    assert answer.message == f'pods "p" is forbidden: error looking up service account {namespace}/nobody: serviceaccount "nobody" not found'
    answer = http("POST", space(namespace, "pods"), pod("p", priorityClassName="nothing"))
    assert answer.message == 'pods "p" is forbidden: no PriorityClass with name nothing was found'
    made = http("POST", space(namespace, "pods") + "?dryRun=All", pod("p", priorityClassName="system-cluster-critical"))
    assert made.code == 403 or made.json["spec"]["priority"] == 2_000_000_000


def test_a_token_is_mounted_unless_that_is_switched_off(http: Http, namespace: str) -> None:
    off = http("POST", space(namespace, "pods"), pod("off")).json["spec"]
    assert "volumes" not in off
    on = http("POST", space(namespace, "pods"), pod("on", automountServiceAccountToken=True)).json["spec"]
    assert on["volumes"][0]["name"].startswith("kube-api-access-")
    assert on["containers"][0]["volumeMounts"][0]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"


def test_a_claim_in_no_class_is_protected_and_immutable(http: Http, namespace: str) -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
             "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
    made = http("POST", space(namespace, "persistentvolumeclaims"), claim).json
    assert made["status"]["phase"] == "Pending"
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    path = space(namespace, "persistentvolumeclaims", "c")
    assert http("PATCH", path, {"spec": {"accessModes": ["ReadWriteMany"]}}, kind="application/merge-patch+json").code == 422
    http("DELETE", path)
    wait_for(lambda: http("GET", path).code == 404, "the claim to go")


def test_a_pod_is_evicted(http: Http, namespace: str) -> None:
    body = pod("kept")
    body["metadata"]["labels"] = {"app": "kept"}
    http("POST", space(namespace, "pods"), body)
    evict = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "kept", "namespace": namespace}}
    assert http("POST", space(namespace, "pods", "kept") + "/eviction", evict).code == 201
    wait_for(lambda: http("GET", space(namespace, "pods", "kept")).code == 404, "the pod to go")


def test_a_budget_forbids_evictions_until_there_are_pods_to_spare(http: Http, namespace: str) -> None:
    ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    for name in ("a", "b"):
        body = pod(name)
        body["metadata"]["labels"] = {"app": "held"}
        http("POST", space(namespace, "pods"), body)
        assert http("PATCH", space(namespace, "pods", name) + "/status", ready, kind="application/strategic-merge-patch+json").code == 200
    budgets = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "held"},
              "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "held"}}}}  # fmt: skip
    assert http("POST", budgets, budget).code == 201

    def allowed() -> int:
        return int((http("GET", f"{budgets}/held").json.get("status") or {}).get("disruptionsAllowed", -1))

    def evict(name: str) -> Answer:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
        return http("POST", space(namespace, "pods", name) + "/eviction", body)

    wait_for(lambda: allowed() == 0, "the budget to be counted")
    refused = evict("a")
    assert refused.code == 429
    assert refused.json["details"]["causes"][0]["reason"] == "DisruptionBudget"
    http("PATCH", f"{budgets}/held", {"spec": {"minAvailable": 1}}, kind="application/merge-patch+json")
    wait_for(lambda: allowed() == 1, "the budget to allow one")
    assert evict("a").code == 201
    wait_for(lambda: http("GET", space(namespace, "pods", "a")).code == 404, "the pod to go")
    assert evict("b").code == 429


def test_pods_bear_a_silent_node_for_a_while_and_say_so(http: Http, namespace: str) -> None:
    own = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 7}
    made = http("POST", space(namespace, "pods"), pod("bears", tolerations=[own])).json["spec"]["tolerations"]
    assert own in made
    (other,) = [each for each in made if each != own]
    assert (other["key"], other["effect"], other["operator"]) == ("node.kubernetes.io/not-ready", "NoExecute", "Exists")
    assert other["tolerationSeconds"] > 0


def test_the_words_of_a_forbidden_object_name_it(http: Http, namespace: str) -> None:
    quota(http, namespace, count__configmaps="1")
    answer = http("POST", space(namespace, "configmaps"), configmap("over"))
    assert answer.code == 403
    assert answer.json["details"] == {"name": "over", "kind": "configmaps"}
