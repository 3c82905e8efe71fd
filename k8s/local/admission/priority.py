"""Priority admission: a class's name becomes a number."""

from __future__ import annotations

from ..documents import Doc, name_of
from ..errors import forbidden
from ..store import Store

SYSTEM = {
    "system-cluster-critical": (2_000_000_000, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
    "system-node-critical": (2_000_001_000, "Used for system critical pods that must not be moved from their current node."),
}


def fill(store: Store, pod: Doc) -> None:
    spec = pod["spec"]
    name = spec.get("priorityClassName", "")
    value, policy = 0, "PreemptLowerPriority"
    if name:
        found = store.get("priorityclasses.scheduling.k8s.io", "", name)
        if found is None:
            raise forbidden("", "pods", name_of(pod), f"no PriorityClass with name {name} was found")
        value, policy = int(found.get("value", 0)), found.get("preemptionPolicy", policy)
    else:
        standard = [each for each in store.docs("priorityclasses.scheduling.k8s.io") if each.get("globalDefault")]
        if standard:
            lowest = min(standard, key=lambda each: int(each.get("value", 0)))
            spec["priorityClassName"] = name_of(lowest)
            value, policy = int(lowest.get("value", 0)), lowest.get("preemptionPolicy", policy)
    if "priority" in spec and spec["priority"] != value:
        raise forbidden(
            "",
            "pods",
            name_of(pod),
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
            f"priority admission controller computed {value} from the given PriorityClass name",
        )
    spec["priority"] = value
    if spec.setdefault("preemptionPolicy", policy) != policy:
        raise forbidden("", "pods", name_of(pod), f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
                        f"priority admission controller computed {policy} from the given PriorityClass name")  # fmt: skip
