"""What is wrong with one pod, StatefulSet or claim: Kubernetes' many ways of saying so, turned into a code, words and a remedy. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]

PATIENCE_RESTARTS = 3  # restarts of a container that had been ready before its environment is given up
_SETTLE_SECONDS = 15.0  # quota of pods that are still ending, a missing StorageClass: may mend themselves within this time
_UNBOUND_SECONDS = 600.0  # a claim that is to be bound at once; some storage takes minutes
_STEADY_SECONDS = 600.0  # a container that ran for so long is not looping; the kubelet forgets its back-off then too

_ASK_ADMIN = "Ask an admin to correct the template."
_ASK_STORAGE = "Ask an admin to check the storage class."
_ASK_RESTORE = "Ask an admin to restore it; or delete the environment with its volume, and begin anew."
_READ_LOG = "Read the log of this replica, then retry."


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong. `fatal`: waiting will not help. `step`: key of the step it belongs to. `taken`: the cluster took the
    pod away, through no fault of its own; another one may live."""

    code: str
    message: str
    step: str
    remedy: str = ""
    fatal: bool = False
    restarts: int = 0
    taken: bool = False

    @property
    def text(self) -> str:
        return f"{self.message} {self.remedy}".strip()


# --- pods --------------------------------------------------------------------


def is_ready(pod: Object) -> bool:
    """True when the pod's Ready condition holds and nobody has deleted it."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return any(item["type"] == "Ready" and item["status"] == "True" for item in pod.get("status", {}).get("conditions", ()))


def replica_state(pod: Object) -> str:
    """pending, starting, running, succeeded, failed or terminating."""
    phase = pod.get("status", {}).get("phase", "Pending")
    if pod["metadata"].get("deletionTimestamp"):
        return "terminating"
    if phase in ("Succeeded", "Failed"):
        return str(phase).lower()
    if phase == "Pending" and not pod["spec"].get("nodeName"):
        return "pending"
    return "running" if is_ready(pod) else "starting"


def has_started(container: Object) -> bool:
    """True when a container runs or has run."""
    state = container.get("state", {})
    return "running" in state or "terminated" in state or bool(container.get("lastState", {}).get("terminated"))


def all_containers(status: Object, test: Callable[[Object], bool]) -> bool:
    """True when there are containers and each passes."""
    containers = status.get("containerStatuses", ())
    return bool(containers) and all(test(container) for container in containers)


def pod_finding(pod: Object, now: datetime | None = None) -> Finding | None:
    """The gravest thing wrong with a pod, or None. Pods that are being deleted are judged by who deletes them only."""
    status = pod.get("status", {})
    if taken := _taken(pod):
        return taken
    if pod["metadata"].get("deletionTimestamp"):
        return None
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    found = [finding for container in containers if (finding := _container_finding(pod, container))]
    if found:
        return min(found, key=lambda finding: not finding.fatal)
    name = pod["metadata"]["name"]
    if status.get("phase") == "Failed":
        reason = status.get("reason") or "PodFailed"
        return Finding(code=reason, step="start", fatal=True, message=f"{name}: {status.get('message') or reason}.", remedy="Retry.")
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _unscheduled(pod, condition, now)
    return None


# Why a kubelet or a controller ends a pod that did nothing wrong
_TAKEN_REASONS = frozenset({"Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "Preempting", "UnexpectedAdmissionError", "NodeAffinity"})


def _taken(pod: Object) -> Finding | None:
    """A pod that the cluster took away: evicted, pushed out, or refused by a node that filled up meanwhile."""
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    reason = status.get("reason") or ""
    if status.get("phase") == "Failed" and (reason in _TAKEN_REASONS or reason.lower().startswith("outof")):
        said = _shorten(status.get("message", "")) or reason
    else:
        target = next((item for item in status.get("conditions", ()) if item["type"] == "DisruptionTarget" and item["status"] == "True"), None)
        if target is None or not (pod["metadata"].get("deletionTimestamp") or status.get("phase") == "Failed"):
            return None
        said = _shorten(target.get("message", "")) or str(target.get("reason", "no reason given"))
    code = reason if reason in ("NodeLost", "NodeShutdown") else "Evicted"
    return Finding(code=code, step="pod", taken=True, message=f"The cluster took {name} off its node: {said}.", remedy="It is started again.")


def lost_finding(pod: Object, nodes: Collection[str]) -> Finding | None:
    """A pod on one of `nodes`, which no longer answer."""
    node = pod["spec"].get("nodeName", "")
    if node not in nodes or is_ready(pod):
        return None
    message = f"{pod['metadata']['name']} was on node {node}, which no longer answers."
    return Finding(code="NodeLost", step="pod", taken=True, message=message, remedy="It is started again on another node when the cluster gives this one up.")


def without_room_since(pod: Object) -> datetime | None:
    """Since when the scheduler has found no node for a pod; None when it has one, or waits for something other than room."""
    if pod["metadata"].get("deletionTimestamp") or pod["spec"].get("nodeName"):
        return None
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False" and _unscheduled(pod, condition).code == "Unschedulable":
            since = condition.get("lastTransitionTime") or pod["metadata"].get("creationTimestamp")
            return datetime.fromisoformat(since) if since else None
    return None


# What the scheduler says when it is the volume and not the node that is missing
_VOLUME = re.compile(r"unbound immediate PersistentVolumeClaims|persistentvolumeclaim \S+ (not found|is being deleted|bound to non)", re.IGNORECASE)


def _unscheduled(pod: Object, condition: Object, now: datetime | None = None) -> Finding:
    if condition.get("reason") == "SchedulingGated":
        return Finding(code="SchedulingGated", step="queue", message="Waiting for the cluster's queue to admit it.")
    said = condition.get("message", "").strip()
    if _VOLUME.search(said):
        since = condition.get("lastTransitionTime")
        long = now is not None and since is not None and (now - datetime.fromisoformat(since)).total_seconds() > _UNBOUND_SECONDS
        return Finding(code="VolumeUnbound", step="volume", fatal=long, message=f"The home volume is not bound: {_shorten(said)}.", remedy=_ASK_STORAGE)
    role = pod["spec"]["containers"][0]
    requests = role.get("resources", {}).get("requests", {})
    wants = ", ".join(f"{amount} {key}" for key, amount in requests.items() if "/" in key)
    what = f"No node has {wants} free" if wants and any(key in said for key in requests if "/" in key) else "No node has room now"
    return Finding(
        code="Unschedulable",
        step="pod",
        message=f"{what} for {pod['metadata']['name']}; it starts when one has. The scheduler says: {said or 'nothing more'}",
        remedy="Wait, or delete it and choose a smaller flavor.",
    )


# Waiting reasons that are failures: code -> (step, what happened, remedy)
_IMAGE = ("image", "image {image} cannot be pulled", f"Check the image's name and that the nodes may pull it. {_ASK_ADMIN}")
_CREATE = ("start", "the container cannot be created", _ASK_ADMIN)
_WAITING: dict[str, tuple[str, str, str]] = {
    "ImagePullBackOff": _IMAGE,
    "ErrImagePull": _IMAGE,
    "InvalidImageName": ("image", "{image} is not an image name", _ASK_ADMIN),
    "ErrImageNeverPull": _IMAGE,
    "ImageInspectError": _IMAGE,
    "SignatureValidationFailed": _IMAGE,
    "CreateContainerConfigError": _CREATE,
    "CreateContainerError": _CREATE,
    "RunContainerError": ("start", "the command cannot be run", _ASK_ADMIN),
    "StartError": ("start", "the command cannot be run", _ASK_ADMIN),
}
# The kubelet's own caches and a registry's hiccup pass by themselves; these words do not.
_TRANSIENT = re.compile(r"failed to sync \w+ cache|timed out|timeout|connection refused|too many requests|temporarily", re.IGNORECASE)


def _container_finding(pod: Object, container: Object) -> Finding | None:
    waiting = container.get("state", {}).get("waiting")
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    restarts = container.get("restartCount", 0)
    where = f"{pod['metadata']['name']}, container {container['name']}"
    if waiting and waiting.get("reason") in _WAITING:
        code = waiting["reason"]
        step, what, remedy = _WAITING[code]
        said = waiting.get("message", "")
        # A registry that merely hesitates is tried again by the kubelet, which then says ImagePullBackOff.
        fatal = not (_TRANSIENT.search(said) and code in ("ErrImagePull", "CreateContainerConfigError", "CreateContainerError"))
        text = f"{where}: {what.format(image=container.get('image', ''))}" + (f": {_shorten(said)}" if said else "") + "."
        return Finding(code=code, step=step, fatal=fatal, message=text, remedy=remedy)
    if not ended or (container.get("state", {}).get("running") and restarts < 1):
        return None
    if container.get("state", {}).get("running") and container.get("ready"):
        return None
    return _ended(pod, where, container["name"], ended, restarts, looping=bool(waiting) and waiting.get("reason") == "CrashLoopBackOff")


def _ended(pod: Object, where: str, container: str, ended: Object, restarts: int, *, looping: bool) -> Finding | None:
    """A container that ended: for good, again and again, or just once."""
    reason, exit_code = ended.get("reason", "Error"), ended.get("exitCode", 0)
    final = pod["spec"].get("restartPolicy", "Always") == "Never"
    if exit_code == 0 and reason == "Completed" and final and pod.get("status", {}).get("phase") != "Succeeded":
        return None  # an init container that did its work
    fatal = final or ((looping or restarts >= 2) and not _ran_steadily(ended)) or reason in ("StartError", "ContainerCannotRun")
    times = f" for the {restarts + 1}th time" if restarts >= 3 else {1: " twice", 2: " three times"}.get(restarts, "")
    if looping and not restarts:
        times = ""
    said = _last(ended.get("message", ""))
    tail = f" It said: {said}" if said else ""
    if reason == "OOMKilled":
        limit = next((c.get("resources", {}).get("limits", {}).get("memory", "") for c in pod["spec"]["containers"] if c["name"] == container), "")
        message = f"{where}: ran out of memory{times}{f' (limit {_mebibytes(limit)})' if limit else ''} and was killed."
        return Finding(code="OOMKilled", step="start", fatal=fatal, restarts=restarts, message=message, remedy="Choose a flavor with more memory.")
    if reason in ("StartError", "ContainerCannotRun"):
        return Finding(code="StartError", step="start", fatal=True, restarts=restarts, message=f"{where}: the command cannot be run.{tail}", remedy=_ASK_ADMIN)
    signal = f" (signal {exit_code - 128})" if 128 < exit_code < 160 else ""
    message = f"{where}: ended with exit code {exit_code}{signal}{times}.{tail}"
    return Finding(code="ContainerExited", step="start", fatal=fatal, restarts=restarts, message=message, remedy=_READ_LOG)


def _ran_steadily(ended: Object) -> bool:
    """True when a container ran for long before it ended: once in a while is no loop."""
    started, finished = ended.get("startedAt"), ended.get("finishedAt")
    return (
        started is not None and finished is not None and (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds() >= _STEADY_SECONDS
    )


# --- what events tell --------------------------------------------------------


def operator_finding(item: Object, events: Sequence[Object]) -> Finding | None:
    """The newest warning about an operator's object, in the operator's words."""
    about = [event for event in events if event.get("involvedObject", {}).get("uid") == item["metadata"]["uid"]]
    newest = max(about, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", default=None)
    if newest is None:
        return None
    said = _shorten(str(newest.get("message", "")).strip().rstrip("."))
    return Finding(code=str(newest.get("reason") or "OperatorWarning"), step="pod", fatal=False, message=f"{item['kind']} says: {said}.", remedy=_ASK_ADMIN)


def create_finding(item: Object, events: Sequence[Object], *, pods: int, now: datetime) -> Finding | None:
    """Why the controller of a StatefulSet or Job cannot make its pods, from its FailedCreate events; None while nothing is missing."""
    if pods >= item["spec"].get("replicas", item["spec"].get("completions", 1)):
        return None
    newest = _newest(events, item, "FailedCreate")
    if newest is None:
        return None
    said = newest.get("message", "")
    age = (now - _time(item["metadata"].get("creationTimestamp"), now)).total_seconds()
    words = _shorten(re.sub(r"^(create Pod \S+ in StatefulSet \S+ failed error|Error creating): ", "", said))
    if "violates PodSecurity" in said:
        return Finding(code="PodSecurity", step="pod", fatal=True, message=f"The cluster's Pod Security refuses the pod: {words}.", remedy=_ASK_ADMIN)
    if "exceeded quota" in said:
        return Finding(
            code="ClusterQuota",
            step="quota",
            fatal=age > _SETTLE_SECONDS,  # pods of an environment that is just ending still count
            message=f"The namespace's quota is used up: {words}.",
            remedy="Stop something of this team, or ask an admin to raise the quota.",
        )
    if "serviceaccount" in said and "not found" in said:
        return None  # a namespace this young gets its service account in a moment
    fatal = "is forbidden" in said or "is invalid" in said
    return Finding(code="FailedCreate", step="pod", fatal=fatal and age > _SETTLE_SECONDS, message=f"The pod cannot be made: {words}.", remedy=_ASK_ADMIN)


def claim_finding(claim: Object, events: Sequence[Object], *, now: datetime) -> Finding | None:
    """Why a home volume is not bound, from its ProvisioningFailed events."""
    phase = claim.get("status", {}).get("phase")
    if phase == "Lost":
        said = f"The home volume {claim['metadata']['name']} is lost: the storage behind it is gone from the cluster."
        return Finding(code="VolumeLost", step="volume", fatal=True, message=said, remedy=_ASK_RESTORE)
    if phase == "Bound":
        return None
    newest = _newest(events, claim, "ProvisioningFailed")
    if newest is None:
        return None
    said = _shorten(newest.get("message", ""))
    age = (now - _time(claim["metadata"].get("creationTimestamp"), now)).total_seconds()
    fatal = "not found" in said and age > _SETTLE_SECONDS
    return Finding(code="VolumeFailed", step="volume", fatal=fatal, message=f"The home volume cannot be made: {said}.", remedy=_ASK_STORAGE)


def mount_finding(pod: Object, events: Sequence[Object]) -> Finding | None:
    """A volume or sandbox that the node cannot set up; the node keeps trying, so this is never fatal."""
    if any(has_started(container) for container in pod.get("status", {}).get("containerStatuses", ())):
        return None
    for reason, step in (("FailedMount", "volume"), ("FailedAttachVolume", "volume"), ("FailedCreatePodSandBox", "network")):
        if newest := _newest(events, pod, reason):
            return Finding(
                code=reason, step=step, message=f"{pod['metadata']['name']}: {_shorten(newest.get('message', ''))}.", remedy="The node keeps trying."
            )
    return None


def _newest(events: Sequence[Object], item: Object, reason: str) -> Object | None:
    own = [event for event in events if event.get("reason") == reason and event.get("involvedObject", {}).get("uid") == item["metadata"]["uid"]]
    return max(own, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", default=None)


def _time(text: str | None, default: datetime) -> datetime:
    return datetime.fromisoformat(text) if text else default


def _shorten(text: str, limit: int = 400) -> str:
    """One line of at most `limit` characters, without control characters: it goes into pages, logs and events."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split()).rstrip(".")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _last(text: str, limit: int = 400) -> str:
    """As `_shorten`, but the end of it: why a process ended stands in its last lines."""
    line = _shorten(text, len(text) + 1)
    return line if len(line) <= limit else "…" + line[1 - limit :]


def _mebibytes(quantity: str) -> str:
    return f"{int(quantity) // 2**20} MiB" if quantity.isdigit() else quantity
