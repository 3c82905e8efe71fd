"""The pure parts: quantities, selectors, patches, Pod Security."""

from __future__ import annotations

from typing import Any

import pytest

from k8s.local import patch, quantity, schema, tables
from k8s.local.admission.pod_security import violations
from k8s.local.defaults import qos_class
from k8s.local.documents import clone
from k8s.local.errors import StatusError
from k8s.local.selectors import label_predicate, matches_selector


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("0.5", "500m"),
        ("1000m", "1"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1e3", "1k"),
        ("100", "100"),
        (2, "2"),
        ("0", "0"),
        ("1500Ki", "1500Ki"),
        ("0.1m", "100u"),
    ],
)
def test_a_quantity_is_stored_in_its_canonical_form(given: Any, stored: str) -> None:
    assert quantity.canonical(given) == stored
    assert quantity.parse(stored) == quantity.parse(given)


@pytest.mark.parametrize("given", ["", "1.2.3", "1gb", "Gi", "--1", "1 Gi", "0x10"])
def test_what_is_no_quantity_is_refused(given: str) -> None:
    with pytest.raises(ValueError):
        quantity.parse(given)


@pytest.mark.parametrize(
    ("text", "labels", "chosen"),
    [
        ("a=b", {"a": "b"}, True), ("a==b,c", {"a": "b"}, False), ("a!=b", {}, True), ("a in (b, c)", {"a": "c"}, True), ("a notin (b)", {"a": "b"}, False),
        ("!a", {}, True), ("a", {"a": ""}, True), ("a=", {"a": ""}, True), ("x.io/a=b,!c", {"x.io/a": "b"}, True), ("n>3", {"n": "4"}, True),
    ],
)  # fmt: skip
def test_a_label_selector_chooses(text: str, labels: dict[str, str], chosen: bool) -> None:
    predicate = label_predicate(text)
    assert predicate is not None
    assert predicate({"metadata": {"labels": labels}}) is chosen


@pytest.mark.parametrize("text", ["a=b=c", "=b", "a in b", "a in (b", "a b", "Ä=b", "a=b c"])
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(StatusError) as refused:
        label_predicate(text)
    assert refused.value.code == 400


def test_no_selector_selects_nothing_and_an_empty_one_everything() -> None:
    assert not matches_selector(None, {})
    assert matches_selector({}, {"a": "b"})


def test_a_patch_never_changes_what_it_was_given() -> None:
    type_ = schema.structs()["Pod"]
    doc = {"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}], "tolerations": [{"key": "k"}]}}
    before = clone(doc)
    change = {"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "2"}]}, {"name": "b"}], "tolerations": [{"key": "l"}]}}
    found = patch.strategic(type_, doc, change)
    assert doc == before
    assert [each["name"] for each in found["spec"]["containers"]] == ["a", "b"]
    assert found["spec"]["containers"][0]["env"] == [{"name": "X", "value": "2"}]
    # Tolerations have no merge key: the list is replaced.
    assert found["spec"]["tolerations"] == [{"key": "l"}]


def test_a_strategic_patch_without_the_merge_key_is_refused() -> None:
    with pytest.raises(StatusError) as refused:
        patch.strategic(schema.structs()["Pod"], {}, {"spec": {"containers": [{"image": "x"}]}})
    assert "does not contain declared merge key: name" in refused.value.message


def test_the_quality_of_service_follows_requests_and_limits() -> None:
    whole = {"cpu": "1", "memory": "1Gi"}
    assert qos_class({"containers": [{"name": "a"}]}) == "BestEffort"
    assert qos_class({"containers": [{"name": "a", "resources": {"requests": whole, "limits": whole}}]}) == "Guaranteed"
    assert qos_class({"containers": [{"name": "a", "resources": {"requests": whole}}]}) == "Burstable"


def test_several_containers_are_named_together() -> None:
    spec = {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i", "securityContext": {"privileged": True}}]}
    found = [str(each) for each in violations("restricted", spec)]
    assert found[0] == 'privileged (container "i" must not set securityContext.privileged=true)'
    assert found[1] == 'allowPrivilegeEscalation != false (containers "i", "a", "b" must set securityContext.allowPrivilegeEscalation=false)'
    assert violations("privileged", spec) == []


def test_an_age_reads_as_kubectl_writes_it() -> None:
    assert tables.age(None) == "<unknown>"
    assert tables.age("2020-01-01T00:00:00Z").endswith("d")
