"""`manage.py demo` (`make demo`): the main job through the REST API, with a timeline. Exits non-zero when a step fails."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from portal.ops.answers import hub_answers, web_answers, worker_answers
from portal.ops.client import Api, Browser, StepFailed
from portal.runtime import ROOT

CODE = """
import platform
print("kernel on", platform.node(), "computed", sum(i * i for i in range(1000)))
"""
DASK_CODE = """
import json
from pathlib import Path
from dask.distributed import Client
clusters = json.loads(Path("/etc/atelier/clusters.json").read_text())
address = next(c["env"]["DASK_SCHEDULER_ADDRESS"] for c in clusters if c["name"] == "demo-dask")
with Client(address, timeout=30) as client:
    client.wait_for_workers(2, timeout=60)
    total = client.submit(sum, client.map(lambda i: i * i, range(1000))).result(timeout=60)
    workers = len(client.scheduler_info(n_workers=-1)["workers"])
print("dask computed", total, "on", workers, "workers")
"""


class Command(BaseCommand):
    help = "Request a notebook and a Dask cluster through the REST API, compute on both, tear both down; print a timeline."

    def handle(self, *args: Any, **options: Any) -> None:
        with contextlib.ExitStack() as stack:
            if not web_answers():
                stack.enter_context(self._portal())
            credentials = json.loads((settings.VAR_DIR / "credentials.json").read_text())
            self.began = time.monotonic()
            api = stack.enter_context(Api(settings.PUBLIC_URL, self._token()))
            try:
                self._job(api, credentials["alice"])
            except StepFailed as error:
                self._leave_nothing(api)
                raise CommandError(f"{self._clock()} FAILED: {error}") from error
        self.stdout.write(f"{self._clock()} done: everything worked and nothing is left")

    def _job(self, api: Api, password: str) -> None:
        self._leave_nothing(api)
        self.began = time.monotonic()
        notebook = self._request(api, "demo-notebook", "notebook", {})
        found = api.wait_state(notebook, "running", seen=lambda state, _: self._say("notebook", state))
        line = next(iter(api.log_lines(notebook, follow="true")), None)
        if line is None:
            raise StepFailed("the notebook's log ended without a line")
        self._say("notebook", f"first log line: {line[:100]}")
        with Browser(settings.PUBLIC_URL, "alice", password) as browser:
            lab = browser.open_notebook(found["url"])
            self._say("notebook", "JupyterLab opened, signed in once")
            self._expect(lab.run(CODE), "computed 332833500")
            dask = self._request(api, "demo-dask", "dask", {"workers": 2})
            cluster = api.wait_state(dask, "running", seen=lambda state, _: self._say("dask", state))
            replicas = [replica for replica in cluster["replicas"] if replica["ready"]]
            self._say("dask", f"cluster of 1+2 up: {len(replicas)} replicas ready")
            self._expect(self._wait_wired(lab), "dask computed 332833500 on 2 workers")
        for identifier, name in ((dask, "dask"), (notebook, "notebook")):
            api.call("DELETE", f"/environments/{identifier}", params={"purge": "true"})
            api.wait_state(identifier, "deleted", seen=lambda state, _, name=name: self._say(name, state))
        self._check_nothing_left([notebook, dask])

    def _request(self, api: Api, name: str, template: str, params: dict[str, Any]) -> str:
        body = {"name": name, "template": template, "flavor": "cpu-small", "team": "vision", "params": params, "expires_in": "1h"}
        made = api.call("POST", "/environments", json=body)
        self._say(template, f"requested as {made['id']}")
        return made["id"]

    def _wait_wired(self, lab: Any) -> str:
        """The cluster's address reaches a running notebook as a file, which a kubelet may refresh only about once a minute."""
        deadline = time.monotonic() + 150
        probe = "from pathlib import Path; p = Path('/etc/atelier/clusters.json'); print(p.exists() and 'demo-dask' in p.read_text())"
        while "True" not in lab.run(probe):
            if time.monotonic() > deadline:
                raise StepFailed("the cluster's address did not reach the notebook")
            time.sleep(0.2)
        self._say("notebook", "the cluster's address is there")
        return lab.run(DASK_CODE)

    def _expect(self, printed: str, wanted: str) -> None:
        if wanted not in printed:
            raise StepFailed(f"expected {wanted!r}, the kernel printed {printed!r}")
        self._say("notebook", printed.strip())

    def _leave_nothing(self, api: Api) -> None:
        """Remove what an earlier, broken demo left, so that it can be run again."""
        for environment in api.call("GET", "/environments")["results"]:
            if environment["name"].startswith("demo-") and environment["state"] != "deleted":
                with contextlib.suppress(StepFailed):
                    api.call("DELETE", f"/environments/{environment['id']}", params={"purge": "true"})
                    api.wait_state(environment["id"], "deleted")

    def _check_nothing_left(self, identifiers: list[str]) -> None:
        from k8s.cluster import Cluster
        from k8s.names import ENVIRONMENT

        cluster = Cluster(settings.KUBECONFIG_PATH)
        deadline = time.monotonic() + 60
        for identifier in identifiers:
            while left := cluster.list_labelled("atelier-vision", {ENVIRONMENT: identifier}):
                if time.monotonic() > deadline:
                    raise StepFailed(f"left behind: {[(item['kind'], item['metadata']['name']) for item in left]}")
                time.sleep(0.2)
        self._say("cluster", "the API lists nothing with either environment's label")

    def _token(self) -> str:
        out = io.StringIO()
        call_command("token", "alice", stdout=out)
        return out.getvalue().strip()

    @contextlib.contextmanager
    def _portal(self) -> Iterator[None]:
        """A portal of its own for the length of the demo."""
        self.stdout.write("No portal answers; starting one.")
        process = subprocess.Popen([sys.executable, "manage.py", "up"], cwd=ROOT, start_new_session=True)
        try:
            deadline = time.monotonic() + 180
            while not (web_answers() and hub_answers() and worker_answers()):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CommandError("the portal did not come up")
                time.sleep(0.2)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)
            process.wait(timeout=30)

    def _clock(self) -> str:
        return f"{time.monotonic() - self.began:8.2f} s"

    def _say(self, who: str, what: str) -> None:
        self.stdout.write(f"{self._clock()}  {who:9} {what}")
        self.stdout.flush()
