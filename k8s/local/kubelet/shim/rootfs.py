"""The file system that a container sees: this machine's, read-only, with the pod's volumes where the manifest wants them.

A mount point need not exist on the machine and nothing is written there: the new root is a tmpfs whose entries are binds of the old ones, and
a directory that must gain an entry is *shadowed*, that is replaced by a tmpfs with binds of everything it had.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from k8s.local.kubelet.shim.linux import MNT_DETACH, MS_BIND, MS_MOVE, MS_NODEV, MS_NOSUID, MS_PRIVATE, MS_REC, make_readonly, mount, pivot_root, unmount

_SPECIAL = {"proc", "dev", "sys"}


class Root:
    """Builds the new root below the empty directory `base`; `enter` makes it `/`."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.mine = {base}  # mounts that may gain entries
        self.mounted = {base}
        self.late_readonly: list[str] = []

    def build(self, spec: dict[str, Any]) -> None:
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount("tmpfs", self.base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64m")
        with os.scandir("/") as entries:
            for entry in sorted(entries, key=lambda item: item.name):
                self._copy_entry(entry, self.base, readonly=entry.name not in _SPECIAL)
        self._proc(own=bool(spec.get("pidns")))
        for path in spec.get("keep", []):
            self.mounted.add(self.base + path)
        for item in sorted(spec["mounts"], key=lambda one: one["target"].rstrip("/").count("/")):
            self._mount(item)
        for path in spec.get("directories", []):
            self._place(path, directory=True)
        for path in spec.get("masks", []):
            found = self._resolve(path)
            if os.path.isdir(found):
                mount("tmpfs", found, "tmpfs", MS_NOSUID | MS_NODEV, "mode=555,size=4k")
                self.late_readonly.append(found)
        for path in self.late_readonly:
            make_readonly(path)

    def enter(self) -> None:
        os.chdir(self.base)
        pivot_root(".", ".")
        unmount(".", MNT_DETACH)
        os.chdir("/")

    def _proc(self, *, own: bool) -> None:
        if own:
            mount("proc", self.base + "/proc", "proc", MS_NOSUID | MS_NODEV)

    def _copy_entry(self, entry: os.DirEntry[str], into: str, *, readonly: bool) -> None:
        target = os.path.join(into, entry.name)
        try:
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), target)
                return
            if entry.is_dir():
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
            mount(entry.path, target, None, MS_BIND | MS_REC)
        except FileNotFoundError:  # it vanished meanwhile
            return
        self.mounted.add(target)
        if readonly:
            make_readonly(target)

    def _mount(self, item: dict[str, Any]) -> None:
        if item["type"] == "tmpfs":
            target = self._place(item["target"], directory=True)
            size = f",size={item['size']}" if item.get("size") else ""
            mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={item.get('mode', '1777')}{size}")
        else:
            target = self._place(item["target"], directory=os.path.isdir(item["source"]))
            mount(item["source"], target, None, MS_BIND | MS_REC)
        self.mounted.add(target)
        self.mine.add(target)
        if item.get("readonly"):
            self.late_readonly.append(target)

    def _resolve(self, path: str) -> str:
        """`path` below the new root, its symbolic links followed as seen from inside."""
        parts = [part for part in path.split("/") if part and part != "."]
        done: list[str] = []
        follows = 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            here = "/".join([self.base, *done, part])
            if os.path.islink(here) and follows < 40:
                follows += 1
                link = os.readlink(here)
                if link.startswith("/"):
                    done = []
                parts = [item for item in link.split("/") if item and item != "."] + parts
            else:
                done.append(part)
        return "/".join([self.base, *done])

    def _place(self, path: str, *, directory: bool) -> str:
        """A mount point for `path`, made when there is none."""
        target = self._resolve(path)
        if os.path.lexists(target):
            if os.path.isdir(target) != directory:
                raise NotADirectoryError(f"mount {path}: not a directory" if directory else f"mount {path}: is a directory")
            return target
        parent = os.path.dirname(target)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        if self._holder(parent) not in self.mine:
            self._shadow(parent)
        os.makedirs(target if directory else os.path.dirname(target), exist_ok=True)
        if not directory:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        return target

    def _holder(self, path: str) -> str:
        """The innermost mount that `path` is in."""
        while path not in self.mounted and path != self.base:
            path = os.path.dirname(path)
        return path

    def _shadow(self, directory: str) -> None:
        stage = self.base + "/.stage"
        os.makedirs(stage, exist_ok=True)
        mount("tmpfs", stage, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={stat.S_IMODE(os.stat(directory).st_mode):o},size=64m")
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    self._copy_entry(entry, stage, readonly=False)  # a bind of a read-only mount is read-only
        except PermissionError:  # unreadable for this user: it gains its one entry and loses what could not be seen anyway
            pass
        mount(stage, directory, None, MS_MOVE)
        os.rmdir(stage)
        moved = {directory + path[len(stage) :] if path.startswith(stage) else path for path in self.mounted}
        self.mounted = moved | {directory}
        self.mine.add(directory)
