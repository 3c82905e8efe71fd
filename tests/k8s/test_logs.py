"""Reaching the log API: credentials of a kubeconfig, errors in the project's own words."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.errors import Denied, Gone, Rejected, Unreachable
from k8s.logs import LogClient, read_kubeconfig
from tests.k8s.log_server import LogServer


def written(folder: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> Path:
    document = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_token_file_is_read_anew_each_time_since_bound_tokens_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    access = read_kubeconfig(written(tmp_path, {"tokenFile": "token"}))
    assert access.authorization() == {"Authorization": "Bearer first"}
    (tmp_path / "token").write_text("second\n")
    assert access.authorization() == {"Authorization": "Bearer second"}


@pytest.mark.parametrize("text", ["", "[]", "current-context: x", "{", "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"])
def test_an_incomplete_kubeconfig_is_told_as_such(tmp_path: Path, text: str) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    with pytest.raises(Unreachable, match="kubeconfig"):
        read_kubeconfig(tmp_path / "kubeconfig")


def test_a_broken_certificate_is_told_as_such(tmp_path: Path) -> None:
    cluster = {"server": "https://127.0.0.1:1", "certificate-authority-data": base64.b64encode(b"no certificate").decode()}
    with pytest.raises(Unreachable):
        read_kubeconfig(written(tmp_path, {"token": "t"}, cluster))


async def test_errors_are_the_projects_own(tmp_path: Path) -> None:
    nowhere = LogClient(tmp_path / "absent")
    with pytest.raises(Unreachable):
        await nowhere.pod("n", "p")
    refused = LogClient(written(tmp_path, {"token": "t"}))
    with pytest.raises(Unreachable):
        await refused.pod("n", "p")
    await refused.close()
    server = LogServer()
    await server.start(tmp_path)
    client = LogClient(server.kubeconfig)
    try:
        assert await client.pod("n", "absent") is None
        with pytest.raises(Gone):
            await anext(client.lines("n", "absent", "main"))
        server.create("p")
        with pytest.raises(Rejected, match="waiting to start"):
            await anext(client.lines("n", "p", "main"))
        assert server.kubeconfig
        server.kubeconfig.write_text(server.kubeconfig.read_text().replace("sesame", "wrong"))
        with pytest.raises(Denied):
            await client.pod("n", "p")
    finally:
        await client.close()
        await server.stop()
