"""Finds out what isolation this machine permits, by doing it. Prints a JSON document."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable

from k8s.local.kubelet.shim import linux
from k8s.local.kubelet.shim.rootfs import Root


def _in_child(work: Callable[[], None]) -> str:
    """Runs `work` in a child process; empty when it went well, else why not."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            work()
        except BaseException as error:
            os.write(write, (str(error) or type(error).__name__).encode())
        os._exit(0)
    os.close(write)
    message = b""
    while chunk := os.read(read, 4096):
        message += chunk
    os.close(read)
    os.waitpid(pid, 0)
    return message.decode(errors="replace")


def _try(mode: str, pidns: bool, base: str) -> str:
    def work() -> None:
        uid, gid = os.getuid(), os.getgid()
        pid = linux.CLONE_NEWPID if pidns else 0
        if mode == "user":
            linux.unshare(linux.CLONE_NEWUSER | pid)
            linux.map_identity(uid, gid)
        elif pid:
            linux.unshare(pid)

        def inner() -> None:
            linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC)
            root = Root(base)
            missing = "/home/.atelier-probe"
            root.build({"pidns": pidns, "mounts": [{"type": "tmpfs", "target": missing}]})
            root.enter()
            os.close(os.open(f"{missing}/written", os.O_CREAT | os.O_WRONLY, 0o600))

        problem = _in_child(inner)
        if problem:
            raise OSError(problem)

    return _in_child(work)


def main() -> int:
    answer: dict[str, object] = {"mode": "plain", "pidns": False, "problems": {}}
    problems: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as base:
        for mode in ("root", "user") if os.getuid() == 0 else ("user",):
            for pidns in (True, False):
                problem = _try(mode, pidns, base)
                if not problem:
                    answer = {"mode": mode, "pidns": pidns, "problems": problems}
                    print(json.dumps(answer))
                    return 0
                problems[f"{mode}{'+pid' if pidns else ''}"] = problem
    answer["problems"] = problems
    print(json.dumps(answer))
    return 0
