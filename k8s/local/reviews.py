"""Questions about rights. There is one token here and it may do everything, so the answer is always yes."""

from __future__ import annotations

from typing import Any

from .documents import Doc
from .errors import bad_request, path_not_found

GROUPS = ("authorization.k8s.io", "authentication.k8s.io")
USER = {"username": "admin", "groups": ["system:masters", "system:authenticated"]}
_KINDS = {
    ("authorization.k8s.io", "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    ("authorization.k8s.io", "subjectaccessreviews"): "SubjectAccessReview",
    ("authorization.k8s.io", "selfsubjectrulesreviews"): "SelfSubjectRulesReview",
    ("authentication.k8s.io", "selfsubjectreviews"): "SelfSubjectReview",
}


def answer(group: str, version: str, plural: str, given: Any) -> Doc:
    kind = _KINDS.get((group, plural))
    if kind is None or version != "v1":
        raise path_not_found()
    if not isinstance(given, dict):
        raise bad_request("the object provided is unrecognized (must be of type object)")
    status: Doc
    if kind == "SelfSubjectRulesReview":
        status = {
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": False,
        }
    elif kind == "SelfSubjectReview":
        status = {"userInfo": USER}
    else:
        status = {"allowed": True, "reason": "the embedded cluster has one token, and it may do everything"}
    return {"kind": kind, "apiVersion": f"{group}/{version}", "metadata": {"creationTimestamp": None}, "spec": given.get("spec") or {}, "status": status}
