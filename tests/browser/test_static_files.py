"""Static files as production serves them: collected, with their content's hash in the name, to be kept for ever."""

from __future__ import annotations

import re

import httpx
import pytest

from .conftest import Portal

pytestmark = pytest.mark.integration


def test_a_page_names_files_by_their_hash_and_each_is_there_to_be_kept(portal: Portal) -> None:
    with httpx.Client(base_url=portal.url, timeout=30, trust_env=False) as client:
        found = set(re.findall(r'(?:href|src)="(/static/[^"]+\.(?:css|js))"', client.get("/accounts/login/").text))
        assert found
        for path in found:
            assert re.search(r"\.[0-9a-f]{12}\.(css|js)$", path), path
            answer = client.get(path, headers={"Accept-Encoding": "gzip"})
            assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip"), path
            assert "immutable" in answer.headers["cache-control"], path
