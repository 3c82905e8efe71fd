"""Runs one more command inside a running container (exec, probes, hooks). Its stdio is that of this process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

from k8s.local.kubelet.shim import linux
from k8s.local.kubelet.shim.container import become

_NAMESPACES = (("ipc", linux.CLONE_NEWIPC), ("uts", linux.CLONE_NEWUTS), ("pid", linux.CLONE_NEWPID), ("mnt", linux.CLONE_NEWNS))


def read_document(fd: int) -> dict[str, Any]:
    data = b""
    while chunk := os.read(fd, 65536):
        data += chunk
    os.close(fd)
    return json.loads(data)


def join(spec: dict[str, Any]) -> None:
    names = _NAMESPACES if spec.get("pidns") else tuple(item for item in _NAMESPACES if item[0] != "pid")
    if spec["mode"] == "user":
        names = (("user", linux.CLONE_NEWUSER), *names)
    opened = [(os.open(f"/proc/{spec['init']}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind) for name, kind in names]
    for fd, kind in opened:
        linux.setns(fd, kind)
        os.close(fd)


def main() -> int:
    spec = read_document(int(sys.argv[2]))  # stdin is the command's
    procs = []
    for path in spec.get("cgroup_procs", []):
        with contextlib.suppress(OSError):
            procs.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    report_read, report_write = os.pipe()
    try:
        if spec["mode"] != "plain":
            join(spec)
    except OSError as error:
        os.write(2, f"cannot enter the container: {error}\n".encode())
        return 128
    child = os.fork()
    if child == 0:
        os.close(report_read)
        become(spec, (0, 1, 2), procs, report_write)
    os.close(report_write)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: os.kill(child, got))
    for fd in (0, 1, 2):  # only the command holds them, so that their ends are seen when it closes them
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, fd) if fd < 2 else None
        os.close(null)
    failure = b""
    while chunk := os.read(report_read, 65536):
        failure += chunk
    if failure:
        os.write(2, (json.loads(failure)["error"] + "\n").encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 126 if failure else 128 - code if code < 0 else code
