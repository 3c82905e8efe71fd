"""What the template language promises, seen from inside real processes: names, files, secrets, runs that end, a word before stopping."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.files.storage import storages

from k8s import cluster as api
from k8s import manifests
from portal.domain import services
from portal.domain.models import Environment, Event, LogArchive, Notification, Quota, Template
from workers import credentials, teams
from workers.specs import environment_spec

from .conftest import row
from .test_converge import Site, cluster, site, states

__all__ = ["cluster", "site"]
pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]

SMALL = {"cpu": "50m", "memory": "128Mi"}
# Answers on its port; what it is asked for, it prints.
SERVE = """
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked for", self.path, flush=True)
        self.send_response(200); self.end_headers()
        self.wfile.write(open("/opt/conf/it.json", "rb").read())
    def log_message(self, *args): pass
http.server.HTTPServer((os.environ["POD_IP"], 7000), Answer).serve_forever()
"""
# Looks at all that a role may be given, and at its fellow.
CHECK = """
import base64, json, os, stat, sys, urllib.request
seen = json.load(urllib.request.urlopen("http://" + sys.argv[1] + ":7000/hello-from-" + os.environ["POD_INDEX"], timeout=20))
assert seen == {"hosts": sys.argv[2].split(","), "label": 'a "quoted" label'}, seen
assert len(os.environ["COOKIE"]) >= 40, "no cookie"
key = "/etc/ssh-keys/id_ed25519"
assert stat.S_IMODE(os.stat(key).st_mode) & 0o037 == 0, oct(os.stat(key).st_mode)
assert open(key).read().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
assert open("/etc/ssh-keys/authorized_keys").read().startswith("ssh-ed25519 ")
open("/spill/x", "w").write("x")
assert os.environ["LITERAL"] == chr(36) + "{HOME} " + chr(36) + "(POD_IP)", os.environ["LITERAL"]
print("all is as promised for", os.environ["POD_INDEX"], flush=True)
"""


def template(*, launcher: str = CHECK, retries: int = 0) -> dict[str, Any]:
    return {
        "slug": "promises",
        "version": 1,
        "kind": "cluster",
        "title": {"en": "Promises"},
        "params": {"type": "object", "additionalProperties": False, "properties": {"label": {"type": "string", "default": 'a "quoted" label'}}},
        "secrets": {"cookie": {"kind": "token"}, "ssh": {"kind": "ssh-key"}},
        "success": {"role": "launcher"},
        "roles": [
            {
                "name": "server",
                "image": "python:3",
                "command": ["python", "-c", SERVE],
                "resources": SMALL,
                "ports": [{"name": "http", "port": 7000}],
                "files": {"/opt/conf/it.json": '{"hosts": ${roles.launcher.hosts:json}, "label": ${params.label:json}}'},
                "readiness": {"port": "http", "period_seconds": 1},
                "liveness": {"command": ["python", "-c", "pass"]},
            },
            {
                "name": "launcher",
                "replicas": {"min": 1, "max": 4, "default": 2},
                "run": "once",
                "retries": retries,
                "image": {"default": "python:3", "gpu": "nowhere:1"},
                # The server may come later than its first caller.
                "command": [
                    "python",
                    "-c",
                    "import time\nfor _ in range(100):\n try:\n  import urllib.request, sys; "
                    "urllib.request.urlopen('http://'+sys.argv[1]+':7000/', timeout=5); break\n except OSError: time.sleep(.1)\n" + launcher,
                ],
                "args": ["${roles.server.first}", "${role.hosts}"],
                "env": {"COOKIE": {"secret": "cookie"}, "LITERAL": "$${HOME} $$(POD_IP)"},
                "resources": SMALL,
                "volumes": [{"mount_path": "/spill", "size": "1Mi"}, {"secret": "ssh", "mount_path": "/etc/ssh-keys"}],
            },
        ],
    }


def request(site: Site, document: dict[str, Any], **params: Any) -> Environment:
    from portal.catalogue.validator import faults_of

    assert faults_of("template", document) == []
    fields = {key: document[key] for key in ("version", "kind", "title")}
    Template.objects.update_or_create(slug=document["slug"], defaults={**fields, "spec": document})
    return site.world.request("run", document["slug"], params=params)


def archived(environment: Environment) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for archive in LogArchive.objects.filter(environment=environment).order_by("replica"):
        found.setdefault(archive.role, []).append(storages["archive"].open(archive.path).read().decode())
    return found


def test_a_run_that_ends_well_stops_its_environment_as_completed_and_gives_its_quota_back(site: Site) -> None:
    environment = request(site, template())
    assert environment.reserved["environments"] == 1
    secrets: dict[str, str] = {}

    def note(now: Environment) -> bool:
        for item in site.cluster.find(api.SECRETS, "atelier-vision", labels=f"atelier.dev/environment={environment.pk}"):
            secrets.update({f"{item['metadata']['name']}/{key}": value for key, value in item["data"].items()})
        return now.state == "stopped"

    done = site.until(environment, note, "the run to have ended")
    assert (done.reason, done.message) == ("Completed", "launcher has run to its end: all 2 replicas ended with exit code 0.")
    assert (done.desired, done.reserved, done.observed["replicas"]) == ("stopped", {}, [])
    assert not Quota.objects.filter(team=site.world.vision, used__gt=0).exists()
    assert states(environment) == ["requested", "queued", "provisioning", "running", "stopping", "stopped"]
    assert Event.objects.filter(environment=environment, code="Completed").exclude(kind="state").count() == 1
    assert Notification.objects.filter(user=site.world.alice, code="Completed").count() == 1
    assert site.left(environment) == []
    logs = archived(environment)
    assert sorted(line.split(" ", 1)[1] for log in logs["launcher"] for line in log.splitlines()) == ["all is as promised for 0", "all is as promised for 1"]
    assert "asked for /hello-from-1" in logs["server"][0]

    kept = {key.rpartition("/")[2]: base64.b64decode(value).decode() for key, value in secrets.items()}
    assert set(kept) == {"value", "id_ed25519", "id_ed25519.pub", "authorized_keys"}
    everything = json.dumps([*Event.objects.filter(environment=environment).values_list("message", flat=True), done.observed, done.params, done.template_spec])
    assert not [key for key, value in kept.items() if value.strip() in everything + str(logs)]

    # Another run is another key, and ends as well.
    services.environment_start(actor=site.world.alice, environment_id=environment.pk)
    before, secrets = dict(secrets), {}
    again = site.until(environment, note, "the second run to have ended")
    assert again.reason == "Completed"
    assert secrets.keys() == before.keys()
    assert not set(secrets.values()) & set(before.values())


def test_a_run_that_ends_badly_fails_with_its_last_lines(site: Site) -> None:
    script = "import sys; print('step 1', flush=True); print('ValueError: shapes differ', file=sys.stderr, flush=True); sys.exit(3)"
    environment = request(site, template(launcher=script, retries=1), workers=1)
    failed = site.until_state(environment, "failed")
    assert failed.reason == "CommandFailed"
    for part in ("launcher: ended with exit code 3.", "ValueError: shapes differ", "It was tried 2 times.", "Read the log of this replica, then retry."):
        assert part in failed.message, failed.message
    site.until(environment, lambda now: not site.left(now), "nothing to be left")
    assert (row(environment.pk).reserved, len(archived(environment)["launcher"])) == ({}, 2)


def test_the_engine_is_told_before_a_replica_is_taken_away(site: Site) -> None:
    document = template()
    server, worker = document["roles"]
    del document["success"]
    tell = "import os, urllib.request; urllib.request.urlopen('http://${roles.server.first}:7000/gone-' + os.environ['POD_NAME'], timeout=20)"
    worker |= {"name": "worker", "run": "always", "command": ["python", "-c", "import time; time.sleep(3600)"], "args": []}
    worker |= {"stop_command": ["python", "-c", tell], "stop_timeout": "1m"}
    del worker["retries"]
    server["files"] = {"/opt/conf/it.json": "{}"}
    environment = request(site, document)
    up = site.until_state(environment, "running")
    pod = next(item["name"] for item in up.observed["replicas"] if item["role"] == "server")
    services.environment_scale(actor=site.world.alice, environment_id=environment.pk, workers=1)
    site.until(environment, lambda now: [item["name"][-8:] for item in now.observed["replicas"][1:]] == ["worker-0"], "one worker to be left")
    log, _ = site.cluster.read_log("atelier-vision", pod, "server", max_bytes=10_000)
    assert [line.split("/")[-1] for line in log.decode().splitlines() if "/gone-" in line] == [f"gone-{pod.replace('server-0', 'worker-1')}"]


def test_workers_that_meet_make_one_secret(site: Site) -> None:
    environment = request(site, template())
    teams.team_ensure(site.cluster, environment.team)
    spec = environment_spec(environment)
    owner = manifests.owner_reference(site.cluster.apply(manifests.parent(spec)))
    with ThreadPoolExecutor(max_workers=4) as pool:
        for each in [pool.submit(credentials.ensure, site.cluster, spec, owner) for _ in range(8)]:
            each.result()
    label = f"atelier.dev/environment={environment.pk}"
    made = {item["metadata"]["name"]: item["data"] for item in site.cluster.find(api.SECRETS, spec.namespace, labels=label)}
    assert sorted(made) == [f"{spec.base_name}-cookie", f"{spec.base_name}-ssh"]
    credentials.ensure(site.cluster, spec, owner)
    assert {item["metadata"]["name"]: item["data"] for item in site.cluster.find(api.SECRETS, spec.namespace, labels=label)} == made
