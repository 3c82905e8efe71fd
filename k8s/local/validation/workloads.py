"""StatefulSets, Deployments, ReplicaSets, Jobs."""

from __future__ import annotations

from collections.abc import Iterator

from .. import names
from ..documents import Doc, at
from ..errors import Cause, forbidden_field, invalid_value, not_supported, required
from ..selectors import matches_selector
from . import pods, storage
from .selectors import label_selector

_STATEFULSET_MUTABLE = ("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "persistentVolumeClaimRetentionPolicy", "minReadySeconds")
_STATEFULSET_TEXT = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', "
    "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def _common(spec: Doc, *, restart: tuple[str, ...] = ("Always",)) -> Iterator[Cause]:
    selector = spec.get("selector")
    if selector is None:
        yield required("spec.selector")
    else:
        yield from label_selector(selector, "spec.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            yield invalid_value("spec.selector", selector, "empty selector is invalid for statefulset" if "podManagementPolicy" in spec
                                else "empty selector is invalid for deployment")  # fmt: skip
        labels = at(spec, "template.metadata.labels", {})
        if not matches_selector(selector, labels):
            yield invalid_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if spec.get("replicas", 0) < 0:
        yield invalid_value("spec.replicas", spec["replicas"], "must be greater than or equal to 0")
    for key in ("minReadySeconds", "revisionHistoryLimit"):
        if spec.get(key, 0) < 0:
            yield invalid_value(f"spec.{key}", spec[key], "must be greater than or equal to 0")
    yield from _template(spec, restart)


def _template(spec: Doc, restart: tuple[str, ...]) -> Iterator[Cause]:
    template = spec.get("template")
    if not isinstance(template, dict) or not isinstance(template.get("spec"), dict):
        yield required("spec.template.spec.containers")
        return
    metadata = template.get("metadata") or {}
    yield from names.labels(metadata.get("labels") or {}, "spec.template.labels")
    yield from names.annotation_keys(metadata.get("annotations") or {}, "spec.template.annotations")
    yield from pods.spec(template["spec"], "spec.template.spec")
    policy = template["spec"].get("restartPolicy")
    if policy in {"Always", "OnFailure", "Never"} and policy not in restart:
        yield not_supported("spec.template.spec.restartPolicy", policy, restart)


def statefulset(doc: Doc) -> Iterator[Cause]:
    spec = doc.get("spec") or {}
    # Mounts of claim templates name volumes that the controller adds to each pod.
    claims = [each for each in spec.get("volumeClaimTemplates") or () if isinstance(each, dict)]
    template = spec.get("template")
    if claims and isinstance(template, dict) and isinstance(template.get("spec"), dict):
        extra = [{"name": at(each, "metadata.name", ""), "emptyDir": {}} for each in claims]
        own = template["spec"].get("volumes") or []
        taken = {each["name"] for each in extra}
        pod = {**template["spec"], "volumes": [*[each for each in own if each.get("name") not in taken], *extra]}
        spec = {**spec, "template": {**template, "spec": pod}}
    yield from _common(spec)
    for index, claim in enumerate(claims):
        yield from storage.claim_spec(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{index}].spec")
    if spec.get("podManagementPolicy") not in {"OrderedReady", "Parallel"}:
        yield invalid_value("spec.podManagementPolicy", spec.get("podManagementPolicy"), 'must be "OrderedReady" or "Parallel"')
    kind = at(spec, "updateStrategy.type")
    if kind not in {"RollingUpdate", "OnDelete"}:
        yield invalid_value("spec.updateStrategy", kind, "must be 'RollingUpdate' or 'OnDelete'")


def statefulset_update(doc: Doc, old: Doc) -> Iterator[Cause]:
    new = {key: value for key, value in doc["spec"].items() if key not in _STATEFULSET_MUTABLE}
    was = {key: value for key, value in old["spec"].items() if key not in _STATEFULSET_MUTABLE}
    if new != was:
        yield forbidden_field("spec", _STATEFULSET_TEXT)


def deployment(doc: Doc) -> Iterator[Cause]:
    spec = doc.get("spec") or {}
    yield from _common(spec)
    kind = at(spec, "strategy.type")
    if kind not in {"RollingUpdate", "Recreate"}:
        yield not_supported("spec.strategy.type", kind, ("Recreate", "RollingUpdate"))
    elif kind == "Recreate" and at(spec, "strategy.rollingUpdate") is not None:
        yield forbidden_field("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")


def replicaset(doc: Doc) -> Iterator[Cause]:
    yield from _common(doc.get("spec") or {})


def selector_update(doc: Doc, old: Doc) -> Iterator[Cause]:
    if at(doc, "spec.selector") != at(old, "spec.selector"):
        yield invalid_value("spec.selector", at(doc, "spec.selector"), "field is immutable")


def job(doc: Doc) -> Iterator[Cause]:
    spec = doc.get("spec") or {}
    for key in ("parallelism", "completions", "backoffLimit", "backoffLimitPerIndex", "maxFailedIndexes", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        if spec.get(key, 0) < 0:
            yield invalid_value(f"spec.{key}", spec[key], "must be greater than or equal to 0")
    if at(spec, "template.spec.restartPolicy") == "Always":
        yield required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
    yield from _template(spec, ("Always", "OnFailure", "Never"))
    if spec.get("completionMode") not in {"NonIndexed", "Indexed"}:
        yield not_supported("spec.completionMode", spec.get("completionMode"), ("Indexed", "NonIndexed"))
    if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        yield required("spec.completions", "when completion mode is Indexed")
    yield from _failure_rules(spec)


def _failure_rules(spec: Doc) -> Iterator[Cause]:
    if "backoffLimitPerIndex" in spec and spec.get("completionMode") != "Indexed":
        yield invalid_value("spec.backoffLimitPerIndex", spec["backoffLimitPerIndex"], "requires indexed completion mode")
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        yield required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if not spec.get("podFailurePolicy"):
        return
    if at(spec, "template.spec.restartPolicy") != "Never":
        yield invalid_value(
            "spec.template.spec.restartPolicy", at(spec, "template.spec.restartPolicy"), 'only "Never" is supported when podFailurePolicy is specified'
        )
    if spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield not_supported("spec.podReplacementPolicy", spec["podReplacementPolicy"], ("Failed",))
    for number, rule in enumerate(at(spec, "podFailurePolicy.rules", [])):
        path = f"spec.podFailurePolicy.rules[{number}]"
        if rule.get("action") not in {"Count", "FailIndex", "FailJob", "Ignore"}:
            yield not_supported(f"{path}.action", rule.get("action"), ("Count", "FailIndex", "FailJob", "Ignore"))
        if (rule.get("onExitCodes") is None) == (not rule.get("onPodConditions")):
            yield invalid_value(path, "", "specifying one of OnExitCodes and OnPodConditions is required")


def job_update(doc: Doc, old: Doc) -> Iterator[Cause]:
    new, was = doc["spec"], old["spec"]
    for key in ("completions", "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"):
        if new.get(key) != was.get(key):
            yield invalid_value(f"spec.{key}", new.get(key), "field is immutable")
    if new.get("template") != was.get("template") and not was.get("suspend"):
        yield invalid_value("spec.template", new.get("template"), "field is immutable")
