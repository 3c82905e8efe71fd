"""Servers spawned by a real Hub on the embedded cluster: one click to JupyterLab, restarts, failures, removal."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from k8s import manifests, names
from k8s.hub import order, trouble
from k8s.spec import EnvironmentSpec, Port, Resources, Role
from tests.hub.conftest import Browser, Site
from tests.stack import wait_until

pytestmark = pytest.mark.integration

PODS = "/api/v1/namespaces/atelier-vision/pods"


def ordered(name: str, owner: str = "alice", **changes: Any) -> tuple[str, dict[str, Any]]:
    """Server name and order of a small notebook. `changes` go into the role."""
    environment = str(uuid.uuid4())
    role = Role(
        **{
            "name": "notebook",
            "replicas": 1,
            "image": "jupyterhub/singleuser:6.1",
            "resources": Resources(cpu_millis=500, memory_bytes=2**29),
            "command": ("jupyterhub-singleuser",),
            "ports": (Port(name="notebook", number=8888),),
            **changes,
        }
    )
    spec = EnvironmentSpec(
        id=environment,
        install="test",
        name=name,
        kind="notebook",
        team="vision",
        owner=owner,
        roles=(role,),
        namespace="atelier-vision",
        base_name=names.object_name(name, environment),
    )
    pod = manifests.notebook_pod(spec, {})
    del pod["metadata"]["ownerReferences"]
    return spec.base_name, {"environment": environment, "namespace": spec.namespace, "pod": pod}


def start(site: Site, server: str, options: dict[str, Any], owner: str = "alice") -> None:
    answer = site.service("POST", f"/users/{owner}/servers/{server}", json=options)
    # 201 when it has failed before the answer is written; the progress stream tells.
    assert answer.status_code in (201, 202), answer.text


def progress(site: Site, server: str, owner: str = "alice") -> list[dict[str, Any]]:
    """What the progress stream says, to its end."""
    url = f"{site.hub_api}/users/{owner}/servers/{server}/progress"

    def said() -> list[dict[str, Any]]:
        """Nothing yet while the Hub clears away what failed: then it neither calls it starting nor tells of the failure."""
        with httpx.stream("GET", url, headers={"Authorization": f"token {site.service_token}"}, timeout=120, trust_env=False) as stream:
            if stream.status_code == 400:
                return []
            assert stream.status_code == 200, stream.read()
            return [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line.startswith("data: ")]

    return list(wait_until(said, "the Hub to tell how the start went"))


def start_and_wait(site: Site, server: str, options: dict[str, Any], owner: str = "alice") -> None:
    start(site, server, options, owner)
    *_, last = progress(site, server, owner)
    assert last.get("ready"), last


def remove(site: Site, server: str, owner: str = "alice") -> None:
    assert site.service("DELETE", f"/users/{owner}/servers/{server}", json={"remove": True}).status_code in (202, 204)
    wait_until(lambda: site.kube("GET", f"{PODS}/{server}").status_code == 404, "the pod to be gone")
    wait_until(lambda: server not in site.service("GET", f"/users/{owner}").json()["servers"], "the Hub to forget the server")


def ready(site: Site, server: str, owner: str = "alice") -> bool:
    return bool(site.service("GET", f"/users/{owner}").json()["servers"].get(server, {}).get("ready"))


@pytest.fixture(scope="module")
def notebook(live: Site) -> Iterator[str]:
    """Name of a running server of alice."""
    server, options = ordered("shared")
    start_and_wait(live, server, options)
    yield server
    remove(live, server)


def lab(browser: Browser, server: str, owner: str = "alice") -> httpx.Response:
    return browser.get(f"{browser.site.hub}/user/{owner}/{server}/")


def test_one_click_from_the_portal_opens_jupyterlab(live: Site, notebook: str) -> None:
    response = lab(live.browser("alice"), notebook)
    assert response.status_code == 200
    assert response.url.path == f"/user/alice/{notebook}/lab"
    assert "JupyterLab" in response.text
    assert all(each.is_redirect for each in response.history)


def test_the_pod_is_the_ordered_one_and_the_hub_added_its_variables(live: Site, notebook: str) -> None:
    pod = live.kube("GET", f"{PODS}/{notebook}").json()
    env = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
    assert env["JUPYTERHUB_SERVICE_URL"] == f"http://$(POD_IP):8888/user/alice/{notebook}/"
    assert {name for name in env if not name.startswith("JUPYTERHUB_")} == {"POD_IP", "POD_NAME", "POD_NAMESPACE", "HOME"}
    assert pod["metadata"]["labels"][names.OWNER] == "alice"


def test_nobody_else_gets_into_a_server(live: Site, notebook: str) -> None:
    for outsider in ("bob", "charlie"):
        assert lab(live.browser(outsider), notebook).status_code == 403
    bob = live.user_token("bob")
    for path in ("/api/contents", "/api/kernels", "/lab"):
        answer = httpx.get(f"{live.hub}/user/alice/{notebook}{path}", headers={"Authorization": f"token {bob}"}, timeout=30, trust_env=False)
        assert answer.status_code == 403, path
    assert httpx.get(f"{live.hub}/user/alice/{notebook}/api/contents", timeout=30, trust_env=False).status_code == 403


def test_the_owner_cannot_stop_her_server_behind_the_portals_back(live: Site, notebook: str) -> None:
    token = live.user_token("alice")
    answer = httpx.delete(f"{live.hub_api}/users/alice/servers/{notebook}", headers={"Authorization": f"token {token}"}, timeout=30, trust_env=False)
    assert answer.status_code in (403, 404)
    browser = live.browser("alice")
    lab(browser, notebook)
    answer = browser.request(
        "DELETE", f"{live.hub}/hub/api/users/alice/servers/{notebook}", headers={"X-XSRFToken": browser.cookies.get("_xsrf", path="/hub/")}
    )
    assert answer.status_code in (403, 404)
    assert ready(live, notebook)


def test_ending_sessions_locks_the_browser_out_of_the_server_within_the_cache_time(live: Site, notebook: str) -> None:
    browser = live.browser("alice")
    lab(browser, notebook)
    url = f"{live.hub}/user/alice/{notebook}/api/status"
    xsrf = {"X-XSRFToken": browser.cookies.get("_xsrf", path=f"/user/alice/{notebook}/") or ""}
    assert browser.get(url, headers=xsrf).status_code == 200
    assert live.service("DELETE", "/atelier/users/alice/sessions").status_code == 204
    wait_until(
        lambda: browser.get(url, headers=xsrf, follow_redirects=False).status_code != 200, "the server to ask the Hub again", timeout=order.CACHE_SECONDS + 45
    )
    # The server itself goes on, and lets her in again: she is still signed in at the portal.
    assert ready(live, notebook)
    assert lab(browser, notebook).status_code == 200


def test_servers_survive_a_restart_of_the_hub(live: Site, notebook: str) -> None:
    uid = live.kube("GET", f"{PODS}/{notebook}").json()["metadata"]["uid"]
    live.stop("hub")
    live.start("hub")
    wait_until(lambda: ready(live, notebook), "the Hub to take the server up again")
    assert live.kube("GET", f"{PODS}/{notebook}").json()["metadata"]["uid"] == uid
    assert lab(live.browser("alice"), notebook).status_code == 200


def test_a_server_starts_tells_its_events_and_is_removed_without_a_trace(live: Site) -> None:
    server, options = ordered("brief")
    start(live, server, options)
    said = list(progress(live, server))
    assert said[-1].get("ready"), said
    assert any("Scheduled" in each["message"] for each in said), said
    remove(live, server)


def test_a_server_removed_while_it_starts_leaves_nothing(live: Site) -> None:
    server, options = ordered("early")
    start(live, server, options)
    remove(live, server)


def test_the_home_claim_stays_when_the_server_goes(live: Site) -> None:
    claims = "/api/v1/namespaces/atelier-vision/persistentvolumeclaims"
    claim = {"metadata": {"name": "home-kept"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    assert live.kube("POST", claims, claim).status_code == 201
    server, options = ordered("kept")
    options["pod"]["spec"]["volumes"] = [{"name": "scratch", "persistentVolumeClaim": {"claimName": "home-kept"}}]
    options["pod"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "scratch", "mountPath": "/scratch"}]
    start_and_wait(live, server, options)
    remove(live, server)
    kept = live.kube("GET", f"{claims}/home-kept").json()
    assert "deletionTimestamp" not in kept["metadata"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "registry.invalid/no/such:image"}, ("ImagePull", "registry.invalid/no/such:image")),
        ({"command": ("/bin/sh", "-c", "echo the reason is here; exit 3")}, ("exit code 3", "the reason is here")),
        ({"command": ("no-such-program",)}, ("no-such-program",)),
    ],
)
def test_a_pod_that_will_never_run_is_reported_with_its_cause_before_time_runs_out(live: Site, changes: dict[str, Any], words: tuple[str, ...]) -> None:
    server, options = ordered("broken", **changes)
    start(live, server, options)
    *_, last = progress(live, server)  # which waits less than the Hub does for a start
    assert last.get("failed"), last
    for word in words:
        assert word in last["message"]
    remove(live, server)


def test_a_malformed_order_fails_with_its_reason_and_makes_no_pod(live: Site) -> None:
    server, options = ordered("odd")
    options["namespace"] = "kube-system"
    start(live, server, options)
    *_, last = progress(live, server)
    assert last.get("failed"), last
    assert "`namespace`" in last["message"]
    assert not [pod for pod in live.kube("GET", "/api/v1/pods").json()["items"] if pod["metadata"]["name"] == server]
    # The same server with a good order starts.
    good = ordered("odd")[1]
    good["pod"]["metadata"]["name"] = server
    start_and_wait(live, server, good)
    remove(live, server)


def test_a_pod_of_someone_else_that_is_in_the_way_is_left_alone(live: Site) -> None:
    server, options = ordered("taken")
    other = {
        "metadata": {"name": server, "labels": {"app": "other"}},
        "spec": {"containers": [{"name": "c", "image": "busybox", "command": ["sleep", "600"]}]},
    }
    made = live.kube("POST", PODS, other)
    assert made.status_code == 201, made.text
    start(live, server, options)
    *_, last = progress(live, server)
    assert "in the way" in last["message"], last
    assert "deletionTimestamp" not in live.kube("GET", f"{PODS}/{server}").json()["metadata"]
    live.kube("DELETE", f"{PODS}/{server}?gracePeriodSeconds=0")


def test_a_server_whose_process_ends_is_noticed_and_its_pod_kept_for_its_log(live: Site) -> None:
    server, options = ordered("ends", command=("/bin/sh", "-c", "jupyterhub-singleuser --allow-root; echo last words"))
    start_and_wait(live, server, options)
    live.browser("alice").enter_hub()  # a token counts only while the portal vouches for its user
    token = {"Authorization": f"token {live.user_token('alice')}"}
    assert httpx.post(f"{live.hub}/user/alice/{server}/api/shutdown", headers=token, timeout=30, trust_env=False).status_code == 200
    wait_until(lambda: not ready(live, server), "the Hub to notice")
    assert "last words" in live.kube("GET", f"{PODS}/{server}/log").text
    remove(live, server)


def test_with_the_clusters_api_away_a_start_waits_and_no_server_is_given_up(live: Site, notebook: str) -> None:
    """A poll that nobody answers must not read as the server's end, nor a start that cannot be made now as one that failed."""
    server, options = ordered("later")
    live.stop("cluster")
    try:
        start(live, server, options)
        wait_until(lambda: "The cluster's API does not answer" in live.log("hub").read_text(), "the start to meet it")
    finally:
        live.start("cluster")
    assert notebook in live.service("GET", "/users/alice").json()["servers"]
    wait_until(lambda: ready(live, server), "the server to start after all")
    remove(live, server)


def test_a_pod_that_nobody_saw_go_ends_its_start(live: Site) -> None:
    """One without a node is deleted in one step: no watch tells that it is being deleted."""
    server, options = ordered("homeless")
    options["pod"]["spec"]["nodeSelector"] = {"somewhere": "else"}
    start(live, server, options)
    wait_until(lambda: live.kube("GET", f"{PODS}/{server}").status_code == 200, "its pod")
    assert live.kube("DELETE", f"{PODS}/{server}?gracePeriodSeconds=0").status_code == 200
    wait_until(lambda: not live.service("GET", "/users/alice").json()["servers"].get(server, {}).get("pending"), "the start to end")
    (last,) = progress(live, server)
    assert trouble.DELETED in last["message"]
    remove(live, server)


def test_a_server_whose_pod_goes_while_a_new_hub_looks_for_it_is_let_go(live: Site) -> None:
    """Until then it can be neither stopped nor started."""
    server, options = ordered("silent", command=("sleep", "86400"))
    start(live, server, options)
    wait_until(lambda: "'running': {" in str(live.kube("GET", f"{PODS}/{server}").json()), "the pod and its container")
    os.killpg(live.processes.pop("hub").pid, signal.SIGKILL)
    live.start("hub")

    def pending() -> Any:
        return live.service("GET", f"/users/alice/servers/{server}").json()["pending"]

    assert pending() == "check"
    live.kube("DELETE", f"{PODS}/{server}?gracePeriodSeconds=0")
    wait_until(lambda: not pending(), "the Hub to let it go", 60)
    remove(live, server)
