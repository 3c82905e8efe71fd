"""Objects of installed operators in place of our own workloads. Pure.

A template gives the object's form as data (`operators` in docs/adding-a-template.md): plain YAML in which some nodes stand for what
the role's builders make, so that an operator's pods are the same pods, with the same labels, limits and security context:

    {$pod: ROLE}             pod template (metadata and spec); `container: NAME` renames its container, `without: [command, pod.dnsPolicy]` leaves fields out
    {$podSpec: ROLE}         the pod's spec alone; the same options
    {$podMetadata: ROLE}     its labels and annotations alone
    {$replicas: ROLE}        how many are asked for
    {$container: ROLE, field: image|command|args|env|resources|...}   one field of its container; `{$podField: ROLE, field: volumes}` of its pod
    {$int: "text"}           the text as a whole number, for what comes from a variable

Whether a form is sound is checked when the catalogue is loaded (`portal.catalogue.operators`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import Rejected
from .spec import EnvironmentSpec, Operator, Role, StatusRule

Document = dict[str, Any]

READY, FAILED, COMPLETED = "ready", "failed", "completed"


@dataclass(frozen=True)
class Standing:
    """What an operator says of its object: READY, FAILED, COMPLETED or nothing, and its words."""

    phase: str = ""
    words: str = ""


NODES = ("$pod", "$podSpec", "$podMetadata", "$podField", "$replicas", "$container", "$int")
_EMPTY: dict[str, Any] = {"image": "", "resources": {}, "nodeSelector": {}, "securityContext": {}, "affinity": {}}  # anything else is a list


class OperatorError(Rejected):
    """The form of an operator's object cannot be filled in; the message says what is wrong in it."""


def roles_in(body: Any) -> frozenset[str]:
    """Roles whose pods the operator makes."""
    if isinstance(body, list):
        return frozenset().union(*map(roles_in, body)) if body else frozenset()
    if not isinstance(body, Mapping):
        return frozenset()
    named = {str(value) for key, value in body.items() if key in NODES and key != "$int"}
    return frozenset(named).union(*(roles_in(value) for value in body.values()))


def filled(body: Any, roles: Mapping[str, Role], pod: Callable[[Role], Document]) -> Any:
    """The form with its nodes replaced. `pod` gives the pod template of a role. Raises OperatorError."""
    if isinstance(body, list):
        return [filled(item, roles, pod) for item in body]
    if not isinstance(body, Mapping):
        return body
    node = next((key for key in body if key in NODES), None)
    if node is None:
        return {key: filled(value, roles, pod) for key, value in body.items()}
    if node == "$int":
        try:
            return int(body[node])
        except ValueError as error:
            raise OperatorError(f"{body[node]!r} is not a whole number") from error
    role = roles[body[node]]
    if node == "$replicas":
        return role.replicas
    template = pod(role)
    if node == "$podMetadata":
        return template["metadata"]
    if node in ("$container", "$podField"):
        holder = template["spec"] if node == "$podField" else template["spec"]["containers"][0]
        return holder.get(body["field"], _EMPTY.get(body["field"], []))
    container = template["spec"]["containers"][0]
    container["name"] = body.get("container", container["name"])
    for field in body.get("without", ()):
        (template["spec"] if field.startswith("pod.") else container).pop(field.removeprefix("pod."), None)
    return template if node == "$pod" else template["spec"]


def custom_object(spec: EnvironmentSpec, operator: Operator, metadata: Mapping[str, Any], pod: Callable[[Role], Document]) -> Document:
    """The operator's object. `metadata`: name, namespace, labels and owner of an environment's object."""
    body = filled(operator.body, {role.name: role for role in spec.roles}, pod)
    return {"apiVersion": operator.api_version, "kind": operator.kind, "metadata": dict(metadata), **body}


# --- what the operator says -----------------------------------------------------


def standing(rules: Iterable[StatusRule], item: Mapping[str, Any]) -> Standing:
    """What the operator says of its object. The first rule that holds counts."""
    for rule in rules:
        condition: Mapping[str, Any] = (
            next((each for each in _at(item, "status.conditions") or () if each.get("type") == rule.condition), {}) if rule.condition else {}
        )
        holds = condition.get("status") == "True" if rule.condition else str(_at(item, rule.path)) in rule.values
        if holds:
            words = _at(item, rule.message) if rule.message else condition.get("message")
            return Standing(rule.phase, str(words or "").strip())
    return Standing()


def _at(item: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(item, Mapping):
            return None
        item = item.get(key)
    return item
