"""What a template's roles may say, and how each fault is told: with its field. Nothing of the database."""

from __future__ import annotations

from typing import Any

import pytest

from portal.catalogue.validator import faults_of
from tests.language import changed, everything

WORKER, LAUNCHER = ("roles", 0), ("roles", 1)


def test_a_template_with_every_feature_has_no_fault() -> None:
    assert faults_of("template", everything()) == []


@pytest.mark.parametrize(
    ("document", "field", "says"),
    [
        (changed(*WORKER, "replicas", to={"min": 1}), "roles[0].replicas", "'max' is a required property"),
        (changed(*WORKER, "replicas", to={"min": 3, "max": 2}), "roles[0].replicas.max", "at least min"),
        (changed(*WORKER, "replicas", to={"min": 0, "max": 0}), "roles[0].replicas.max", "at least 1"),
        (changed(*WORKER, "replicas", to={"min": 1, "max": 2, "default": 5}), "roles[0].replicas.default", "between min and max, 1 and 2"),
        (changed(*WORKER, "replicas", to="two"), "roles[0].replicas", "'two' is not of type 'integer'"),
        (changed(*LAUNCHER, "replicas", to={"min": 1, "max": 2}), "roles[1].replicas", "only one role may be scalable"),
        (changed("params", "properties", "workers", to={"type": "integer"}), "roles[0].replicas", "has one already"),
        (changed(*WORKER, "image", to={"cuda": "x"}), "roles[0].image", "'cuda' is not one of"),
        (changed(*WORKER, "image", to={}), "roles[0].image", "should be non-empty"),
        (changed(*WORKER, "resources", to={"share": 0}), "roles[0].resources.share", "less than or equal to the minimum"),
        (changed(*WORKER, "resources", to={"share": 1.5}), "roles[0].resources.share", "greater than the maximum"),
        (changed(*WORKER, "resources", to={"cpu": 1}), "roles[0].resources", "'memory' is a required property"),
        (changed(*WORKER, "env", "A", to={"secret": "biscuit"}), "roles[0].env.A.secret", "no secret 'biscuit'; there are cookie, ssh"),
        (changed(*WORKER, "env", "A", to={"secret": "ssh"}), "roles[0].env.A", "say which key: id_ed25519, id_ed25519.pub, authorized_keys"),
        (changed(*WORKER, "env", "A", to={"secret": "cookie", "key": "private"}), "roles[0].env.A.key", "no key 'private'; there are value"),
        (changed(*WORKER, "env", "A", to=5), "roles[0].env.A", "5 is not of type 'string'"),
        (changed(*WORKER, "env", "POD_IP", to="1.2.3.4"), "roles[0].env.POD_IP", "set by the portal"),
        (changed(*WORKER, "env", "NOT A NAME", to="x"), "roles[0].env", "'NOT A NAME' has not the form"),
        (changed(*WORKER, "volumes", 0, "size", to="much"), "roles[0].volumes[0].size", "not a quantity"),
        (changed(*WORKER, "volumes", 0, "size", to=None), "roles[0].volumes[0]", "'size' is a required property"),
        (changed(*WORKER, "volumes", 0, "medium", to="tape"), "roles[0].volumes[0].medium", "'tape' is not one of"),
        (changed(*WORKER, "volumes", 1, "mount_path", to="/spill"), "roles[0].volumes[1].mount_path", "/spill is mounted already"),
        (changed(*WORKER, "volumes", 1, "mount_path", to="/scratch"), "roles[0].volumes[1].mount_path", "mounted already"),
        (changed(*WORKER, "volumes", 1, "mount_path", to="fast"), "roles[0].volumes[1].mount_path", "has not the form"),
        (changed(*WORKER, "volumes", 2, "secret", to="gpg"), "roles[0].volumes[2].secret", "no secret 'gpg'"),
        (changed(*WORKER, "volumes", 2, "mode", to=0o1000), "roles[0].volumes[2].mode", "maximum"),
        (changed(*WORKER, "files", "conf.yaml", to="x"), "roles[0].files", "has not the form"),
        (changed(*WORKER, "files", "/spill", to="x"), "roles[0].files./spill", "mounted already"),
        (changed(*WORKER, "files", "/etc/ssh-keys/config", to="x"), "roles[0].files./etc/ssh-keys/config", "lies in /etc/ssh-keys"),
        (changed(*WORKER, "files", "/big", to="x" * 600_000), "roles[0].files", "512 KiB"),
        (changed(*WORKER, "liveness", to={"port": "nowhere"}), "roles[0].liveness.port", "no port 'nowhere'"),
        (changed(*WORKER, "startup", to={}), "roles[0].startup", "'port' is a required property"),
        (changed(*WORKER, "startup", to={"command": []}), "roles[0].startup.command", "non-empty"),
        (changed(*WORKER, "run", to="twice"), "roles[0].run", "'twice' is not one of"),
        (changed(*WORKER, "retries", to=1), "roles[0].retries", "without `run: once`"),
        (changed(*LAUNCHER, "stop_timeout", to="1m"), "roles[1].stop_timeout", "without stop_command"),
        (changed(*WORKER, "stop_timeout", to="2h"), "roles[0].stop_timeout", "between 1s and 1h"),
        (changed(*WORKER, "stop_timeout", to="long"), "roles[0].stop_timeout", "not a span of time"),
        (changed("secrets", "cookie", "kind", to="password"), "secrets.cookie.kind", "'password' is not one of"),
        (changed("success", "role", to="worker"), "success.role", "no role 'worker' with `run: once`; there are launcher"),
        (changed("success", to={}), "success", "'role' is a required property"),
    ],
)
def test_a_fault_is_told_with_its_field(document: dict[str, Any], field: str, says: str) -> None:
    found = {fault.field: fault.message for fault in faults_of("template", document)}
    assert says in found.get(field, ""), found


@pytest.mark.parametrize(
    ("place", "field"),
    [
        ((*LAUNCHER, "args"), "roles[1].args[0]"),
        ((*LAUNCHER, "command"), "roles[1].command[0]"),
        ((*LAUNCHER, "stop_command"), "roles[1].stop_command[0]"),
        ((*LAUNCHER, "env"), "roles[1].env.x"),
        ((*LAUNCHER, "files"), "roles[1].files./x"),
        ((*LAUNCHER, "readiness"), "roles[1].readiness.command[0]"),
        (("connect", "env"), "connect.env.x"),
    ],
)
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${roles.wroker.host}", "there is no variable ${roles.wroker.host}; there are ${roles.worker.host}"),
        ("${HOME}", "a literal ${ is written $${"),
        ("${roles.worker.host:json:lines}", "has no form 'json:lines'"),
        ("${roles.worker.host:lines}", "has no form 'lines', it has 'json'"),
        ("${params.label", "is not closed"),
    ],
)
def test_an_unknown_variable_is_a_fault_wherever_it_stands(place: tuple[Any, ...], field: str, text: str, says: str) -> None:
    lists = {key: [text] for key in ("args", "command", "stop_command")}
    value: Any = {**lists, "files": {"/x": text}, "readiness": {"command": [text]}}.get(place[-1], {"x": text})
    (fault,) = faults_of("template", changed(*place, to=value))
    assert fault.field == field
    assert says in fault.message


def test_what_one_replica_has_is_no_variable_of_the_snippet() -> None:
    (fault,) = faults_of("template", changed("connect", "snippet", to="${resources.cpus} $${resources.cpus}"))
    assert (fault.field, "${resources.cpus}" in fault.message) == ("connect.snippet", True)


def test_when_every_role_runs_once_the_end_has_to_be_named() -> None:
    document = changed("success", to=None)
    assert faults_of("template", document) == []
    document["roles"] = document["roles"][1:]
    document["roles"][0]["args"] = []
    document["connect"] = {}
    (fault,) = faults_of("template", document)
    assert (fault.field, "success: {role: ...}" in fault.message) == ("success", True)


def test_the_role_whose_end_counts_has_a_replica() -> None:
    document = changed(*LAUNCHER, "replicas", to={"min": 0, "max": 2})
    document["roles"][0]["replicas"] = 2
    (fault,) = faults_of("template", document)
    assert (fault.field, "no replicas" in fault.message) == ("success.role", True)


def test_a_notebook_does_not_run_once() -> None:
    notebook = {"slug": "n", "version": 1, "kind": "notebook", "title": {"en": "N"}, "home": {"mount_path": "/home/x"}}
    role = {"name": "notebook", "image": "i", "run": "once", "volumes": [{"mount_path": "/home/x", "size": "1Gi"}]}
    found = {fault.field for fault in faults_of("template", {**notebook, "roles": [role], "success": {"role": "notebook"}})}
    assert found == {"roles[0].run", "roles[0].volumes[0].mount_path"}
