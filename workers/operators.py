"""Which operator of the cluster takes an environment, and how its object is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings

from k8s import cluster as api
from k8s import names
from k8s.cluster import Cluster, Kind
from k8s.operators import roles_in
from k8s.spec import EnvironmentSpec, Operator, StatusRule
from portal.domain import services
from portal.domain.models import Environment
from portal.domain.shape import RoleShape
from portal.domain.variables import Value

from . import served
from .roles import TemplateError, amounts_of, resolved


class OperatorMissing(TemplateError):
    """The template runs only with an operator that the cluster does not have."""


def key_of(document: Mapping[str, Any]) -> str:
    """How an operator of a template is named in `placement`."""
    return f"{document['api']}/{document['kind']}"


def choose(cluster: Cluster, template: Mapping[str, Any]) -> str:
    """The first operator of the template that the cluster has; empty: none. Raises `k8s.errors`."""
    if settings.OPERATORS == "none":
        return ""
    wanted = template.get("operators") or ()
    return next((key_of(document) for document in wanted if document["plural"] in served.plurals(cluster, document["api"])), "")


def chosen(template: Mapping[str, Any], key: str, values: Mapping[str, Value]) -> Operator | None:
    """The operator that was chosen for an environment, its variables resolved; None for the built-in way. Raises TemplateError."""
    document = _document(template, key)
    if not document:
        return None
    return Operator(
        api_version=document["api"],
        kind=document["kind"],
        plural=document["plural"],
        body=_filled(document["body"], values),
        roles=roles_in(document["body"]),
        status=rules_in(document),
    )


def rules_in(document: Mapping[str, Any]) -> tuple[StatusRule, ...]:
    """How an operator of a template is asked about its object."""
    return tuple(
        StatusRule(
            phase=rule["phase"],
            path=rule.get("path", ""),
            values=tuple(rule.get("values", ())),
            condition=rule.get("condition", ""),
            message=rule.get("message", ""),
        )
        for rule in document["status"]
    )


def kind_in(document: Mapping[str, Any]) -> Kind:
    """The kind of an operator's object, by a template."""
    return Kind(version=document["api"], name=document["kind"], plural=document["plural"])


def settle(cluster: Cluster, environment: Environment) -> None:
    """Choose the operator of this run, once: a later look at the cluster does not change what runs. Raises `k8s.errors`, OperatorMissing."""
    template = environment.template_spec
    if "operator" not in environment.placement:
        if not template.get("operators"):
            return
        key = services.operator_chosen(environment.pk, choose(cluster, template))
        environment.placement = {**environment.placement, "operator": key}
    if template.get("needs_operator") and not environment.placement["operator"]:
        served.forget()  # it may have been installed a moment ago, and somebody is going to retry
        there = " or ".join(f"{document['kind']} of {document['api']}" for document in template["operators"])
        remedy = "Ask an admin to install it, or choose another template."
        raise OperatorMissing(f"This template needs an operator that the cluster does not have: {there}. {remedy}")
    for document in template.get("operators") or ():
        api.know(kind_in(document))


def object_of(cluster: Cluster, spec: EnvironmentSpec) -> dict[str, Any] | None:
    """The operator's object of an environment; None when there is none, or the cluster has lost the operator."""
    if spec.operator is None:
        return None
    kind = Kind(version=spec.operator.api_version, name=spec.operator.kind, plural=spec.operator.plural)
    return cluster.get(kind, spec.base_name, spec.namespace)


def left(cluster: Cluster, environment: Environment) -> list[dict[str, Any]]:
    """What is left of the operator's object of an environment, to be deleted."""
    document = _document(environment.template_spec, environment.placement.get("operator", ""))
    if not document:
        return []
    name = names.object_name(environment.name, str(environment.id))
    found = cluster.get(api.know(kind_in(document)), name, names.namespace(environment.team.slug))
    return [found] if found and found["metadata"].get("labels", {}).get(names.ENVIRONMENT) == str(environment.id) else []


def _document(template: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return next((each for each in template.get("operators") or () if key_of(each) == key), {})


def hosts_by(template: Mapping[str, Any], key: str) -> Mapping[str, str]:
    """How the operator that was chosen names its replicas' hosts, by role; empty where ours do."""
    return _document(template, key).get("hosts", {})


def amounts(shapes: Sequence[RoleShape]) -> dict[str, Value]:
    """`resources.*` in the form of an operator's object: of the role that scales, else of the last."""
    return amounts_of(next((shape for shape in shapes if shape.scalable), shapes[-1]))


def _filled(value: Any, values: Mapping[str, Value]) -> Any:
    if isinstance(value, str):
        return resolved(value, values)
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    if isinstance(value, Mapping):
        return {key: _filled(item, values) for key, item in value.items()}
    return value
