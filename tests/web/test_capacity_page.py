"""The page that shows what the cluster has, and what a request costs and how large it could be before it is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.test import Client

from portal.domain.models import Accelerator, User

from .world import World


def test_the_capacity_page_tells_what_is_free_on_how_many_nodes_and_what_no_node_holds(world: World, client_of: Callable[[User], Client]) -> None:
    response = client_of(world.alice).get("/capacity/")
    text = response.content.decode()
    assert "NVIDIA A100 80 GB" in text
    assert "with one free" in text
    assert "<code>giant</code>" in text.split('id="capacity-absent"')[1]
    (gpus,) = [rows for family, rows in response.context["families"] if family == "gpu"]
    a100 = next(item for item in gpus if item.accelerator.slug == "nvidia-a100-80g")
    assert 0 < a100.largest <= a100.free <= a100.total
    assert "No node can hold it:" in text


def test_the_page_is_there_before_any_node_is_known(db: None, client_of: Callable[[User], Client]) -> None:
    user = User.objects.create_user("newcomer")
    assert "The nodes are not known yet." in client_of(user).get("/capacity/").content.decode()


def test_a_preview_shows_the_price_where_there_is_one_and_the_largest_cluster(world: World, client_of: Callable[[User], Client], settings: Any) -> None:
    settings.CURRENCY = "EUR"
    Accelerator.objects.filter(slug="nvidia-a100-80g").update(cost_per_hour="2.5")
    form = {"name": "grid", "team": "vision", "flavor": "a100-1", "param_workers": "2", "expires_in": str(4 * 3600)}
    text = client_of(world.alice).post("/launch/dask/preview", form).content.decode()
    assert "5.00 EUR per hour, at most 20.00 EUR" in text
    assert "workers at once" in text
    settings.CURRENCY = ""
    assert 'id="preview-price"' not in client_of(world.alice).post("/launch/dask/preview", form).content.decode()
