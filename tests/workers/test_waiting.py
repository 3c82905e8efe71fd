"""A full cluster, with every process of an installation: who waits is told why, and starts when room is given back."""

from __future__ import annotations

from pathlib import Path

import pytest

from portal.ops.client import Api
from tests.migrated import put_database
from tests.stack import running, wait_until

NODES = """
nodes:
  - name: only
    capacity: {cpu: "4", memory: 16Gi}
"""


@pytest.mark.integration
def test_a_second_cluster_waits_for_the_room_of_the_first_and_gets_it(tmp_path: Path) -> None:
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text(NODES)
    put_database(tmp_path / "var" / "atelier.sqlite3")
    with running(tmp_path / "var", CLUSTER_NODES=str(nodes)) as stack, Api(stack.url, stack.token()) as api:
        wish = {"template": "dask", "flavor": "cpu-small", "team": "vision", "params": {"workers": 2}}
        first = api.call("POST", "/environments", json=wish | {"name": "first"})["id"]
        api.wait_state(first, "running", timeout=240)
        seen = wait_until(lambda: api.call("POST", "/environments?dry_run=true", json=wish | {"name": "second"})["queue"], "a forecast")
        assert seen["position"] == 1, seen
        second = api.call("POST", "/environments", json=wish | {"name": "second"})["id"]
        told = wait_until(lambda: api.environment(second)["queue"], "the queue to have looked at it")
        assert told["message"] == "waiting for 2 x cpu-small: 1 free, 0 environments ahead", told
        assert told["eta"] is not None, "the first one has an expiry"
        assert api.environment(second)["state"] == "queued"
        small = {"template": "notebook", "flavor": "cpu-small", "team": "vision", "name": "small", "expires_in": "1h"}
        third = api.call("POST", "/environments", json=small)["id"]
        api.wait_state(third, "running", timeout=240)
        assert api.environment(second)["state"] == "queued", "a small one that ends before goes first"
        api.call("POST", f"/environments/{first}/stop")
        api.wait_state(second, "running", timeout=240)
        events = api.call("GET", f"/environments/{second}/events?after=0")
        codes = [event["code"] for event in (events["results"] if isinstance(events, dict) else events)]
        assert "Admitted" in codes, codes
        assert "NoRoom" not in codes, codes
