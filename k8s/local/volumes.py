"""Volumes of pods: made as directories of this machine, which the container's file system binds where the manifest says.

ConfigMaps, Secrets, downward API and projections are written as Kubernetes writes them, behind a `..data` link that is swapped in one step,
and written again when their source changes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .documents import Doc, at, meta
from .kubelet.env import Surroundings, expand, field_value, resource_value, texts
from .quantity import parse


class VolumeError(Exception):
    """A volume cannot be mounted (yet)."""


@dataclass(frozen=True)
class Volume:
    """`path` on this machine; None is a tmpfs of `size` bytes (0: no limit) of the container's own."""

    path: Path | None
    readonly: bool = False
    size: int = 0


Files = dict[str, tuple[bytes, int]]  # relative path -> content, mode
ClaimPath = Callable[[str], Path]  # claim name -> directory; VolumeError when it is not bound


def prepare(pod: Doc, base: Path, around: Surroundings, claim_path: ClaimPath, token: Callable[[Doc, Mapping[str, Any]], str]) -> dict[str, Volume]:
    """Makes every volume of a pod below `base`. VolumeError with the kubelet's wording when a source is missing."""
    found: dict[str, Volume] = {}
    for volume in pod["spec"].get("volumes") or []:
        name = volume["name"]
        try:
            found[name] = _prepare_one(pod, volume, base / name, around, claim_path, token)
        except VolumeError as error:
            raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from None
    return found


def _prepare_one(pod: Doc, volume: Doc, directory: Path, around: Surroundings, claim_path: ClaimPath, token: Callable[[Doc, Mapping[str, Any]], str]) -> Volume:
    if "emptyDir" in volume:
        return _empty_dir(pod, volume, directory)
    if volume.get("persistentVolumeClaim"):
        claim = volume["persistentVolumeClaim"]
        return Volume(claim_path(claim["claimName"]), bool(claim.get("readOnly")))
    if volume.get("ephemeral"):
        return Volume(claim_path(f"{meta(pod)['name']}-{volume['name']}"))
    if volume.get("hostPath"):
        return Volume(_host_path(volume["hostPath"]))
    files = content(pod, volume, around, token)
    if files is None:
        kinds = ", ".join(key for key in volume if key != "name")
        raise VolumeError(f"volumes of type {kinds} are not known to the embedded cluster")
    write_atomically(directory, files)
    return Volume(directory, readonly=True)


def _empty_dir(pod: Doc, volume: Doc, directory: Path) -> Volume:
    source = volume["emptyDir"] or {}
    size = int(parse(source["sizeLimit"])) if source.get("sizeLimit") else 0
    if source.get("medium") == "Memory":
        users = [
            item["name"]
            for item in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
            if any(mount["name"] == volume["name"] for mount in item.get("volumeMounts") or [])
        ]
        if len(users) < 2:
            return Volume(None, size=size)
        shared = Path("/dev/shm") / f"atelier-{meta(pod)['uid']}-{volume['name']}"  # noqa: S108 - memory that several containers share
        if os.access(shared.parent, os.W_OK):
            shared.mkdir(mode=0o700, exist_ok=True)
            return Volume(shared)
    directory.mkdir(parents=True, exist_ok=True)
    return Volume(directory)


def forget_memory(pod_uid: str) -> None:
    """Removes what `_empty_dir` put into shared memory."""
    for path in Path("/dev/shm").glob(f"atelier-{pod_uid}-*"):  # noqa: S108
        shutil.rmtree(path, ignore_errors=True)


def _host_path(source: Mapping[str, Any]) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch()
    if not path.exists() or (kind == "Directory" and not path.is_dir()) or (kind == "File" and not path.is_file()):
        raise VolumeError(f"hostPath type check failed: {path} is not a {kind.lower() or 'path of this machine'}")
    return path


def content(pod: Doc, volume: Doc, around: Surroundings, token: Callable[[Doc, Mapping[str, Any]], str]) -> Files | None:
    """Files of a volume that is made of objects; None for other volumes."""
    if volume.get("configMap"):
        source = volume["configMap"]
        return _keyed("ConfigMap", source.get("name", ""), source, source.get("defaultMode", 0o644), around)
    if volume.get("secret"):
        source = volume["secret"]
        return _keyed("Secret", source.get("secretName", ""), source, source.get("defaultMode", 0o644), around)
    if volume.get("downwardAPI") is not None:
        return _downward(pod, volume["downwardAPI"], volume["downwardAPI"].get("defaultMode", 0o644), around)
    if volume.get("projected") is not None:
        mode = volume["projected"].get("defaultMode", 0o644)
        files: Files = {}
        for source in volume["projected"].get("sources") or []:
            files.update(_projection(pod, source, mode, around, token))
        return files
    return None


def _projection(pod: Doc, source: Doc, mode: int, around: Surroundings, token: Callable[[Doc, Mapping[str, Any]], str]) -> Files:
    if source.get("configMap"):
        return _keyed("ConfigMap", source["configMap"].get("name", ""), source["configMap"], mode, around)
    if source.get("secret"):
        return _keyed("Secret", source["secret"].get("name", ""), source["secret"], mode, around)
    if source.get("downwardAPI"):
        return _downward(pod, source["downwardAPI"], mode, around)
    if source.get("serviceAccountToken"):
        wanted = source["serviceAccountToken"]
        return {_checked(wanted["path"]): (token(pod, wanted).encode(), mode)}
    raise VolumeError(f"projections of {', '.join(source)} are not known to the embedded cluster")


def _keyed(kind: str, name: str, source: Mapping[str, Any], mode: int, around: Surroundings) -> Files:
    found = around.lookup(kind, name)
    optional = bool(source.get("optional"))
    if found is None:
        if optional:
            return {}
        raise VolumeError(f'{kind.lower()} "{name}" not found')
    values = texts(found)
    items = source.get("items")
    if not items:
        return {_checked(key): (value, mode) for key, value in values.items()}
    files: Files = {}
    for item in items:
        if item["key"] in values:
            files[_checked(item["path"])] = (values[item["key"]], item.get("mode", mode))
        elif not optional:
            raise VolumeError(f"references non-existent {kind.lower()} key: {item['key']}")
    return files


def _downward(pod: Doc, source: Mapping[str, Any], mode: int, around: Surroundings) -> Files:
    files: Files = {}
    for item in source.get("items") or []:
        if item.get("fieldRef"):
            text = field_value(pod, item["fieldRef"]["fieldPath"], around)
        else:
            text = resource_value(pod, pod["spec"]["containers"][0], item["resourceFieldRef"], around)
        files[_checked(item["path"])] = (text.encode(), item.get("mode", mode))
    return files


def _checked(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise VolumeError(f"invalid path {path!r}")
    return path


def write_atomically(directory: Path, files: Files) -> bool:
    """Replaces the content of a directory in one step, as the kubelet does. False when it was the same already."""
    directory.mkdir(parents=True, exist_ok=True)
    link = directory / "..data"
    if link.exists() and _read(link) == files:
        return False
    fresh = directory / f"..{time.strftime('%Y_%m_%d_%H_%M_%S')}.{time.time_ns() % 10**9:09d}"
    fresh.mkdir()
    for path, (data, mode) in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(mode)
    old = os.readlink(link) if link.is_symlink() else ""
    new = directory / "..data_tmp"
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    new.symlink_to(fresh.name)
    new.rename(link)
    tops = {path.split("/")[0] for path in files}
    for name in tops:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    for entry in list(directory.iterdir()):
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    if old:
        shutil.rmtree(directory / old, ignore_errors=True)
    return True


def _read(link: Path) -> Files:
    base = link.resolve()
    return {str(path.relative_to(base)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) for path in sorted(base.rglob("*")) if path.is_file()}


def mounts(container: Doc, volumes: Mapping[str, Volume], env: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the shim is to mount for a container. VolumeError when a mount names a path that is not there."""
    found = []
    for mount in container.get("volumeMounts") or []:
        volume = volumes[mount["name"]]
        readonly = bool(mount.get("readOnly")) or volume.readonly
        if volume.path is None:
            found.append({"type": "tmpfs", "target": mount["mountPath"], "size": volume.size, "readonly": readonly})
            continue
        source = volume.path
        sub = expand(mount["subPathExpr"], env) if mount.get("subPathExpr") else mount.get("subPath") or ""
        if sub:
            source = _sub_path(source, sub, create=not volume.readonly)
        found.append({"type": "bind", "target": mount["mountPath"], "source": str(source), "readonly": readonly})
    return found


def _sub_path(base: Path, sub: str, *, create: bool) -> Path:
    if sub.startswith("/") or ".." in sub.split("/"):
        raise VolumeError(f"subPath {sub!r} must stay within the volume")
    path = base / sub
    if not path.exists() and create:
        path.mkdir(parents=True, exist_ok=True)
    found = path.resolve()
    if not found.is_relative_to(base.resolve()) or not found.exists():
        raise VolumeError(f"failed to prepare subPath for volumeMount: {sub!r} is not in the volume")
    return found


def refresh(pod: Doc, base: Path, around: Surroundings, token: Callable[[Doc, Mapping[str, Any]], str], names: Iterable[str]) -> None:
    """Writes the volumes that are made of objects again; a source that has gone leaves what was there."""
    for volume in pod["spec"].get("volumes") or []:
        if volume["name"] in names:
            with contextlib.suppress(VolumeError, OSError):
                files = content(pod, volume, around, token)
                if files is not None:
                    write_atomically(base / volume["name"], files)


def made_of(volume: Doc) -> set[tuple[str, str]]:
    """(kind, name) of the objects that a volume shows; ("Pod", "") for the downward API."""
    found: set[tuple[str, str]] = set()
    for source in [volume, *at(volume, "projected.sources", [])]:
        if source.get("configMap"):
            found.add(("ConfigMap", source["configMap"].get("name", "")))
        if source.get("secret"):
            found.add(("Secret", source["secret"].get("secretName") or source["secret"].get("name", "")))
        if source.get("downwardAPI"):
            found.add(("Pod", ""))
    return found
