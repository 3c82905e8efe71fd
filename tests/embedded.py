"""An embedded cluster of its own for the tests of a module, as a process that can be killed and started again."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from portal.runtime import ROOT
from tests.stack import free_ports, wait_until


class EmbeddedCluster:
    """`start`, `stop`, `kill`; the same port, state and kubeconfig each time."""

    def __init__(self, state: Path, *extra: str) -> None:
        self.state, self.extra = state, extra
        self.kubeconfig = state / "kubeconfig"
        (self.port,) = free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = state / "cluster.log"

    def start(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.unlink(missing_ok=True)
        command = [sys.executable, "-m", "k8s.local", "--port", str(self.port), "--state", str(self.state), "--kubeconfig", str(self.kubeconfig), *self.extra]
        with self.log.open("ab") as out:
            self.process = process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        wait_until(lambda: self._answers() or process.poll() is not None, "the embedded cluster to answer")
        assert process.poll() is None, self.log.read_text()

    def _answers(self) -> bool:
        from k8s import cluster as api
        from k8s import errors

        cluster = api.Cluster(self.kubeconfig)
        try:
            return cluster.get(api.NAMESPACES, "default") is not None
        except errors.ClusterError:
            return False
        finally:
            cluster.close()

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


@pytest.fixture(scope="module")
def embedded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    """A cluster for the tests of a module, with the options in its `CLUSTER_OPTIONS` if there are any."""
    with EmbeddedCluster(tmp_path_factory.mktemp("cluster"), *getattr(request.module, "CLUSTER_OPTIONS", ())) as found:
        yield found
