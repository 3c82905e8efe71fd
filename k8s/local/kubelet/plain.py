"""Without namespaces: mount paths are replaced, in a container's words, by the directories that stand for them.

What is then not isolated: files (every container sees this machine's), /tmp, processes, host names. Service names reach programs that read
HOSTALIASES or a rewritten variable, not others.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from k8s.local.kubelet.pod import PodWorker

NOT_ISOLATED = (
    "This machine permits no namespaces: the pod sees the files and processes of the machine, paths of volumes and names of services are rewritten "
    "in its command and environment only"
)
_SKIPPED = {"/etc/hosts", "/etc/hostname", "/var/tmp", "/dev/shm"}  # noqa: S108


def rewrite(document: dict[str, Any], worker: PodWorker, domain: str) -> dict[str, Any]:
    """`document` with paths and names as they are on this machine."""
    paths = _paths(document, worker)
    names = worker.kubelet.network.names(worker.pod)

    def replaced(text: str) -> str:
        return _names(_replace_paths(text, paths), names)

    document["argv"] = [document["argv"][0], *(replaced(item) for item in document["argv"][1:])]
    document["argv"][0] = _replace_paths(document["argv"][0], paths)
    document["env"] = {key: value if key == "PATH" else replaced(value) for key, value in document["env"].items()}
    document["env"]["TMPDIR"] = paths["/tmp"]  # noqa: S108
    document["cwd"] = _replace_paths(document["cwd"], paths)
    Path(document["cwd"]).mkdir(parents=True, exist_ok=True)
    document["mounts"] = []
    return document


def _paths(document: dict[str, Any], worker: PodWorker) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, item in enumerate(document["mounts"]):
        if item["target"] in _SKIPPED:
            continue
        if item["type"] == "tmpfs":
            source = worker.directory / "memory" / str(number)
            source.mkdir(parents=True, exist_ok=True)
            found[item["target"]] = str(source)
        elif item["source"] != item["target"]:
            found[item["target"]] = item["source"]
    return found


def _replace_paths(text: str, paths: dict[str, str]) -> str:
    """Whole path prefixes only: /data is not replaced in /database or /srv/data. In one pass, so that no result is replaced again."""
    if not paths:
        return text
    pattern = "|".join(re.escape(path.rstrip("/")) for path in sorted(paths, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])({pattern})(?![\w.-])", lambda match: paths.get(match[1]) or paths[f"{match[1]}/"], text)


def _names(text: str, names: dict[str, str]) -> str:
    """Fully qualified service and pod names by their addresses; short names are too easily something else."""
    if not names:
        return text
    return re.sub(r"[a-z0-9][a-z0-9.-]*\.svc(?:\.[a-z0-9.-]+)?", lambda match: names.get(match[0], match[0]), text)
