"""StatefulSets: pods with a number, a name and volumes of their own, made and ended in order (or in parallel)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from k8s.local.controllers.base import (
    Controller,
    available_in,
    controller_of,
    ended,
    pod_from,
    reference,
    template_hash,
    terminating,
)
from k8s.local.documents import Doc, at, clone, meta, name_of, namespace_of
from k8s.local.errors import StatusError

POD_NAME, POD_INDEX, REVISION = "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "controller-revision-hash"


@dataclass
class Plan:
    """What to do now: ordinals to create, names of pods to delete."""

    create: list[int] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Member:
    """A pod as the plan sees it."""

    ordinal: int
    name: str
    revision: str
    available: bool
    terminating: bool = False
    ended: bool = False


def ordinal_of(name: str, pod: str) -> int | None:
    head, _, tail = pod.rpartition("-")
    return int(tail) if head == name and tail.isdigit() else None


def make_plan(members: list[Member], *, first: int, replicas: int, parallel: bool, revision: str, strategy: str, partition: int) -> Plan:
    """The next step of a StatefulSet. With OrderedReady one pod at a time, each after the one before it is available."""
    plan = Plan()
    by_ordinal = {member.ordinal: member for member in members}
    wanted = range(first, first + replicas)
    for ordinal in wanted:
        member = by_ordinal.get(ordinal)
        if member is None:
            plan.create.append(ordinal)
        elif member.ended and not member.terminating:
            plan.delete.append(member.name)
        if not parallel and (member is None or member.ended or member.terminating or not member.available):
            return plan
    condemned = sorted((member for member in members if member.ordinal not in wanted), key=lambda member: -member.ordinal)
    if parallel:
        plan.delete += [member.name for member in condemned if not member.terminating]
    elif condemned:
        if not condemned[0].terminating:
            plan.delete.append(condemned[0].name)
        return plan
    if plan.create or plan.delete or strategy == "OnDelete":
        return plan
    for ordinal in reversed(wanted):
        if ordinal < partition:
            break
        member = by_ordinal[ordinal]
        if member.revision != revision and not member.terminating:
            plan.delete.append(member.name)
            break
        if member.terminating or not member.available:
            break
    return plan


class StatefulSets(Controller):
    kind = "StatefulSet"
    watched = ("Pod",)
    component = "statefulset-controller"

    def reconcile(self, namespace: str, name: str) -> float | None:
        document = self.client.get("StatefulSet", namespace, name)
        if document is None or terminating(document):
            return None
        spec = document["spec"]
        revision = template_hash({"template": spec["template"]})
        pods = {pod_name: pod for pod in self.pods_of(document) if ordinal_of(name, pod_name := name_of(pod)) is not None}
        wait: list[float] = []
        members = [self._member(name, pod, float(spec.get("minReadySeconds") or 0), wait) for pod in pods.values()]
        rolling = at(spec, "updateStrategy.rollingUpdate", {})
        first = int(at(spec, "ordinals.start", 0))
        plan = make_plan(
            members,
            first=first,
            replicas=int(spec.get("replicas", 1)),
            parallel=spec.get("podManagementPolicy") == "Parallel",
            revision=revision,
            strategy=at(spec, "updateStrategy.type", "RollingUpdate"),
            partition=int(rolling.get("partition") or 0),
        )
        self._write_status(document, members, f"{name}-{revision}")
        for pod_name in plan.delete:
            self._delete(document, pods[pod_name])
        for ordinal in plan.create:
            self._create(document, ordinal, revision)
        self._drop_claims(document, members, first)
        return min(wait) if wait else None

    @staticmethod
    def _member(name: str, pod: Doc, min_ready: float, wait: list[float]) -> Member:
        left = available_in(pod, min_ready)
        if left:
            wait.append(left)
        revision = (meta(pod).get("labels") or {}).get(REVISION, "").rpartition("-")[2]
        return Member(ordinal_of(name, name_of(pod)) or 0, name_of(pod), revision, left == 0.0, terminating(pod), ended(pod))

    def _create(self, document: Doc, ordinal: int, revision: str) -> None:
        name = f"{name_of(document)}-{ordinal}"
        claims = self._claims(document, ordinal)
        labels = {POD_NAME: name, POD_INDEX: str(ordinal), REVISION: f"{name_of(document)}-{revision}"}
        pod = pod_from(document, document["spec"]["template"], name=name, labels=labels)
        spec = pod["spec"]
        spec["hostname"] = name
        if document["spec"].get("serviceName"):
            spec["subdomain"] = document["spec"]["serviceName"]
        kept = [item for item in spec.get("volumes") or [] if item["name"] not in claims]
        own: list[Doc] = [{"name": volume, "persistentVolumeClaim": {"claimName": claim}} for volume, claim in claims.items()]
        if own or kept:
            spec["volumes"] = own + kept
        try:
            self.client.create("Pod", pod)
        except StatusError as error:
            if error.code == 409:
                existing = self.client.get("Pod", namespace_of(document), name)
                holder = controller_of(existing) if existing else None
                if holder and holder.get("uid") == meta(document)["uid"]:
                    return
            kind = name_of(document)
            self.client.event(document, "Warning", "FailedCreate", f"create Pod {name} in StatefulSet {kind} failed error: {error.message}", self.component)
            raise
        self.client.event(document, "Normal", "SuccessfulCreate", f"create Pod {name} in StatefulSet {name_of(document)} successful", self.component)

    def _delete(self, document: Doc, pod: Doc) -> None:
        self.client.delete("Pod", namespace_of(pod), name_of(pod), uid=meta(pod)["uid"])
        text = f"delete Pod {name_of(pod)} in StatefulSet {name_of(document)} successful"
        self.client.event(document, "Normal", "SuccessfulDelete", text, self.component)

    def _claims(self, document: Doc, ordinal: int) -> dict[str, str]:
        """Makes the claims of one pod where they are missing; volume name to claim name."""
        found: dict[str, str] = {}
        for template in document["spec"].get("volumeClaimTemplates") or []:
            volume = name_of(template)
            name = f"{volume}-{name_of(document)}-{ordinal}"
            found[volume] = name
            if self.client.get("PersistentVolumeClaim", namespace_of(document), name) is not None:
                continue
            claim = clone({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": template["spec"]})
            labels = {**(meta(template).get("labels") or {}), **at(document, "spec.selector.matchLabels", {})}
            claim["metadata"] = {"name": name, "namespace": namespace_of(document), "labels": labels}
            if at(document, "spec.persistentVolumeClaimRetentionPolicy.whenDeleted") == "Delete":
                claim["metadata"]["ownerReferences"] = [reference(document)]
            self.client.create("PersistentVolumeClaim", claim)
            text = f"create Claim {name} Pod {name_of(document)}-{ordinal} in StatefulSet {name_of(document)} success"
            self.client.event(document, "Normal", "SuccessfulCreate", text, self.component)
        return found

    def _drop_claims(self, document: Doc, members: list[Member], first: int) -> None:
        """Claims of pods that scaling took away, where the policy says so."""
        spec = document["spec"]
        if at(spec, "persistentVolumeClaimRetentionPolicy.whenScaled") != "Delete":
            return
        present = {member.ordinal for member in members} | set(range(first, first + int(spec.get("replicas", 1))))
        for template in spec.get("volumeClaimTemplates") or []:
            for claim in self.client.list("PersistentVolumeClaim", namespace_of(document)):
                ordinal = ordinal_of(f"{name_of(template)}-{name_of(document)}", name_of(claim))
                if ordinal is not None and ordinal not in present and not terminating(claim):
                    self.client.delete("PersistentVolumeClaim", namespace_of(claim), name_of(claim))

    def _write_status(self, document: Doc, members: list[Member], revision: str) -> None:
        live = [member for member in members if not member.terminating]
        ready = [pod for pod in self.pods_of(document) if available_in(pod, 0) == 0.0]
        old: dict[str, Any] = document.get("status") or {}
        short = revision.rpartition("-")[2]
        updated = [member for member in live if member.revision == short]
        replicas = int(document["spec"].get("replicas", 1))
        done = len(updated) == len(live) == replicas and all(member.available for member in live)
        current = revision if done or not old.get("currentRevision") else old["currentRevision"]
        self.set_status(
            document,
            {
                "observedGeneration": meta(document).get("generation"),
                "replicas": len(members),
                "readyReplicas": len(ready),
                "availableReplicas": sum(member.available for member in live),
                "currentReplicas": sum(member.revision == current.rpartition("-")[2] for member in live),
                "updatedReplicas": len(updated),
                "currentRevision": current,
                "updateRevision": revision,
                "collisionCount": 0,
            },
        )
