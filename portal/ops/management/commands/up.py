"""`manage.py up` (`make up`): every process of the installation in the foreground, until Ctrl-C."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

import honcho.manager
import honcho.printer
import psutil
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from honcho.environ import parse_procfile

from portal.ops import processes
from portal.ops.answers import wait_for
from portal.ops.prepare import prepare
from portal.runtime import ROOT

STOP_SECONDS = 11  # after this what still runs is killed; the whole stop takes at most 15 s
REAL_CLUSTER_NAMES = ("redis", "hub", "worker", "watcher", "web")


class LogPrinter(honcho.printer.Printer):
    """Each process's output goes to `var/log/<name>.log`; the console stays readable unless `verbose`."""

    def __init__(self, folder: Path, *, verbose: bool) -> None:
        super().__init__(sys.stdout)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.verbose = folder, verbose
        self.files: dict[str, TextIO] = {}
        self.lock = threading.Lock()

    def write(self, message: Any) -> None:
        text = message.data.decode("utf-8", "replace") if isinstance(message.data, bytes) else message.data
        with self.lock:
            if message.name not in self.files:
                path = self.folder / f"{message.name}.log"
                if path.exists() and path.stat().st_size > 10 * 2**20:
                    path.replace(path.with_suffix(".log.1"))
                self.files[message.name] = path.open("a", encoding="utf-8", errors="replace")
            file = self.files[message.name]
            file.write(text if text.endswith("\n") else text + "\n")
            file.flush()
        if self.verbose or (message.name == honcho.manager.SYSTEM_PRINTER_NAME and "stopped" in text):
            super().write(message)


class Manager(honcho.manager.Manager):
    """Stops the queue last: a worker that cannot give its tasks back waits for the queue until it is killed."""

    LAST = "redis"

    def _killall(self, force: bool = False) -> None:
        last = self._processes.get(self.LAST, {})
        if force or "pid" not in last:
            super()._killall(force=force)
            return
        hidden, self._processes = self._processes, {name: entry for name, entry in self._processes.items() if name != self.LAST}
        try:
            super()._killall()
        finally:
            self._processes = hidden
        threading.Thread(target=self._stop_last, args=(last,), daemon=True).start()

    def _stop_last(self, last: dict[str, Any]) -> None:
        while any(entry.get("returncode") is None for name, entry in self._processes.items() if name != self.LAST and "pid" in entry):
            time.sleep(0.05)
        if last.get("returncode") is None:
            self._procmgr.terminate(last["pid"])


class Command(BaseCommand):
    help = "Start everything on this machine and print the portal's URL, a user and a password."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--verbose", action="store_true", default=bool(os.environ.get("VERBOSE")), help="Show every process's output here too")

    def handle(self, *args: Any, verbose: bool, **options: Any) -> None:
        began = time.monotonic()
        settings.VAR_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self._lock()
        self._end_leftovers()
        self._check()
        names = list(processes.PROGRAMS) if settings.EMBEDDED_CLUSTER else list(REAL_CLUSTER_NAMES)
        printer = LogPrinter(settings.VAR_DIR / "log", verbose=verbose)
        honcho.manager.KILL_WAIT = STOP_SECONDS
        manager = Manager(printer)
        self._add_processes(manager, names)
        failures: list[str] = []
        threading.Thread(target=self._bring_up, args=(manager, names, began, failures), daemon=True).start()
        manager.loop()
        self._forget_pids()
        lock.close()
        interrupted = manager.returncode in (130, 143) and not failures
        if not interrupted:
            raise CommandError((failures or [self._why(manager)])[0])
        self.stdout.write("Stopped.")

    def _lock(self) -> TextIO:
        path = settings.VAR_DIR / "run" / "up.lock"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CommandError(
                f"Atelier already runs from this folder ({settings.VAR_DIR}). Stop it first, or use VAR_DIR=another PORT=... HUB_PORT=..."
            ) from error
        return lock

    def _check(self) -> None:
        if not settings.EMBEDDED_CLUSTER and not settings.KUBECONFIG_PATH.is_file():
            raise CommandError(f"KUBECONFIG: there is no file {settings.KUBECONFIG_PATH}.")
        problems = processes.port_problems()
        if problems:
            raise CommandError("\n".join(problems))

    def _add_processes(self, manager: honcho.manager.Manager, names: list[str]) -> None:
        commands = parse_procfile((ROOT / "Procfile").read_text()).processes
        env = {**os.environ, "PATH": f"{processes.BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}", "PYTHONUNBUFFERED": "1"}
        for name in names:
            manager.add_process(name, commands[name], env=env, cwd=str(ROOT))

    def _bring_up(self, manager: honcho.manager.Manager, names: list[str], began: float, failures: list[str]) -> None:
        """Beside the running processes: migrate, load, seed, wait until everything answers, say so."""
        try:
            self._remember_pids(manager, names)
            prepare()
            wait_for(("redis", "database", "cluster", "web", "worker", "hub"))
        except Exception as error:
            failures.append(f"Atelier did not come up: {error}. See {settings.VAR_DIR / 'log'}.")
            manager.returncode = 1
            manager.terminate()
            return
        self._announce(time.monotonic() - began)

    def _announce(self, seconds: float) -> None:
        credentials = json.loads((settings.VAR_DIR / "credentials.json").read_text())
        lines = [
            "",
            f"  Atelier is up after {seconds:.1f} s",
            f"  Portal:    {settings.PUBLIC_URL}",
            f"  User:      alice      Password: {credentials['alice']}",
            f"  Others:    {settings.VAR_DIR / 'credentials.json'}  (lena leads the team, admin owns the catalogue)",
            f"  Logs:      {settings.VAR_DIR / 'log'}",
            "  Ctrl-C stops everything.",
            "",
        ]
        print("\n".join(lines), flush=True)

    # --- processes of a run that was killed before it could stop them -------------

    @property
    def _pid_file(self) -> Path:
        return settings.VAR_DIR / "run" / "processes.json"

    def _remember_pids(self, manager: honcho.manager.Manager, names: list[str]) -> None:
        known = {}
        while not manager._all_started():
            time.sleep(0.05)
        for name in names:
            pid = manager._processes[name].get("pid")
            if pid and psutil.pid_exists(pid):
                known[name] = [pid, psutil.Process(pid).create_time()]
        self._pid_file.write_text(json.dumps(known))

    def _forget_pids(self) -> None:
        self._pid_file.unlink(missing_ok=True)

    def _end_leftovers(self) -> None:
        try:
            known = json.loads(self._pid_file.read_text())
        except (OSError, ValueError):
            return
        left = []
        for pid, born in known.values():
            try:
                process = psutil.Process(pid)
                if abs(process.create_time() - born) < 0.5:  # otherwise the number was given to someone else
                    left += [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        for process in left:
            self._quietly(process.terminate)
        _, alive = psutil.wait_procs(left, timeout=STOP_SECONDS)
        for process in alive:
            self._quietly(process.kill)
        self._forget_pids()

    @staticmethod
    def _quietly(act: Any) -> None:
        try:
            act()
        except psutil.NoSuchProcess:
            pass

    def _why(self, manager: honcho.manager.Manager) -> str:
        """Which process ended by itself, and the end of its log."""
        failed = [name for name, entry in manager._processes.items() if entry.get("returncode") not in (0, None, -15, 143)]
        parts = ["A process ended by itself, so everything was stopped."]
        for name in failed[:1]:
            log = settings.VAR_DIR / "log" / f"{name}.log"
            tail = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
            parts += [f"{name} (exit code {manager._processes[name]['returncode']}) said last:", *tail]
        return "\n".join(parts)
