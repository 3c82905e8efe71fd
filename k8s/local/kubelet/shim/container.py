"""Starts one container, writes its log, and records how it ended.

    shim (this machine's namespaces: log, exit record)
      `- init, process 1 of the container's namespaces (reaps; forwards signals)
           `- the container's command

Without a PID namespace the shim is subreaper instead and kills every descendant when the command has ended.
SIGTERM asks the command to end, SIGUSR1 kills everything at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import pty
import select
import signal
import sys
import termios
import time
from typing import Any

from k8s.local.kubelet.shim import linux
from k8s.local.kubelet.shim.pump import LogFile, Stream
from k8s.local.kubelet.shim.rootfs import Root

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2, signal.SIGWINCH)


def write_json(path: str, document: dict[str, Any]) -> None:
    with open(path + ".new", "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(document, file)
    os.rename(path + ".new", path)


def detach_stdio() -> None:
    """Lets go of the cluster process's pipe, so that it sees the end of the answer."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def descendants(root: int) -> list[int]:
    """Every process below `root`, the youngest generation last."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                parents.setdefault(int(file.read().rpartition(b")")[2].split()[1]), []).append(int(name))
    found: list[int] = []
    level = [root]
    while level:
        level = [child for parent in level for child in parents.get(parent, [])]
        found += level
    return found


def private_memory(root: int) -> int:
    """Bytes that the processes below `root` have for themselves, pages of files and shared memory left out."""
    total = 0
    for pid in descendants(root):
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm") as file:
            fields = file.read().split()
            total += int(fields[1]) - int(fields[2])
    return total * os.sysconf("SC_PAGE_SIZE")


def explain(error: OSError, argv: list[str], cwd: str) -> str:
    """Why a command could not be started, as runc words it."""
    head = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
    if isinstance(error, FileNotFoundError) and error.filename == cwd:
        return head + f'error during container init: chdir to cwd ("{cwd}") set in config.json failed: no such file or directory: unknown'
    if isinstance(error, FileNotFoundError):
        why = "executable file not found in $PATH" if "/" not in argv[0] else "no such file or directory"
        return head + f'error during container init: exec: "{argv[0]}": {why}: unknown'
    return head + f'error during container init: exec: "{argv[0]}": {(error.strerror or str(error)).lower()}: unknown'


def take_number(spec: dict[str, Any]) -> None:
    """`runAsUser` as a number only: inside one more user namespace this user is known by it, and keeps its rights to this machine's files.

    A real change of user could not read a virtual environment in somebody's home. Programs that refuse to be root are content.
    """
    user, group = spec.get("run_as_user"), spec.get("run_as_group")
    if user is None or spec["mode"] == "plain" or spec.get("privileged"):
        return
    uid, gid = os.getuid(), os.getgid()
    try:
        linux.unshare(linux.CLONE_NEWUSER)
    except PermissionError:  # no nested namespaces on this machine
        return
    linux.map_identity(uid, gid, inside_uid=user, inside_gid=group)


def become(spec: dict[str, Any], stdio: tuple[int, int, int], procs: list[int], report: int) -> None:
    """In the forked child: turns into the container's command. Returns never."""
    try:
        os.setsid()
        for fd in procs:
            with contextlib.suppress(OSError):
                os.write(fd, b"0\n")
        if spec.get("tty"):
            fcntl.ioctl(stdio[0], termios.TIOCSCTTY, 0)
        for number, fd in enumerate(stdio):
            os.dup2(fd, number)
        for number in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if not spec.get("privileged"):
            linux.limit_capabilities(spec.get("add_capabilities", []), spec.get("drop_capabilities", []))
            linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        take_number(spec)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.umask(0o022)
        os.chdir(spec["cwd"])
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(report, json.dumps({"error": explain(error, spec["argv"], spec["cwd"]), "code": 128}).encode())
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(report, json.dumps({"error": f"{type(error).__name__}: {error}", "code": 128}).encode())
    os._exit(128)


def wait_for(main: int) -> int:
    """Reaps everything until `main` has ended; its wait status."""
    while True:
        try:
            pid, status = os.wait()
        except InterruptedError:
            continue
        if pid == main:
            return status


def init(spec: dict[str, Any], stdio: tuple[int, int, int], procs: list[int], report: int, result: int) -> None:
    """Process 1 of the container. Returns never."""
    code = 1
    try:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        detach_stdio()
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC)
        linux.sethostname(spec["hostname"])
        root = Root(spec["root"])
        root.build(spec)
        root.enter()
        main = os.fork()
        if main == 0:
            become(spec, stdio, procs, report)
        os.close(report)
        for fd in {*stdio, *procs}:
            os.close(fd)

        def forward(number: int, _frame: object) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(main, number)

        for number in _FORWARDED:
            signal.signal(number, forward)
        status = wait_for(main)
        os.write(result, status.to_bytes(4, "little"))
        code = 0
    except OSError as error:
        with contextlib.suppress(OSError):
            why = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
            os.write(report, json.dumps({"error": f"failed to create the container's file system: {why}", "code": 128}).encode())
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(report, json.dumps({"error": f"{type(error).__name__}: {error}", "code": 128}).encode())
    os._exit(code)


class Shim:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.child = 0
        self.over = False  # beyond its memory limit, where no control group says so
        self.isolated = spec["mode"] != "plain"
        self.pidns = bool(spec.get("pidns"))

    def run(self) -> None:
        spec = self.spec
        procs = [fd for path in spec.get("cgroup_procs", []) if (fd := self._open_procs(path)) >= 0]
        if spec.get("tty"):
            master, slave = pty.openpty()
            streams, stdio = [master], (slave, slave, slave)
        else:
            out_read, out_write = os.pipe()
            err_read, err_write = os.pipe()
            null = os.open("/dev/null", os.O_RDWR)
            streams, stdio = [out_read, err_read], (null, out_write, err_write)
        report_read, report_write = os.pipe()
        result_read, result_write = os.pipe()
        uid, gid = os.getuid(), os.getgid()
        if spec["mode"] == "user":
            linux.unshare(linux.CLONE_NEWUSER | (linux.CLONE_NEWPID if self.pidns else 0))
            linux.map_identity(uid, gid)
        elif self.pidns:
            linux.unshare(linux.CLONE_NEWPID)
        if not self.pidns:
            linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        self.child = os.fork()
        if self.child == 0:
            os.close(report_read)
            os.close(result_read)
            if self.isolated:
                init(spec, stdio, procs, report_write, result_write)
            os.close(result_write)
            become(spec, stdio, procs, report_write)
        for fd in {*stdio, *procs, report_write, result_write}:
            os.close(fd)
        self._supervise(streams, report_read, result_read)

    @staticmethod
    def _open_procs(path: str) -> int:
        try:
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return -1

    def _supervise(self, streams: list[int], report: int, result: int) -> None:
        wake_read, wake_write = os.pipe()
        for fd in (wake_read, wake_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self._signal(signal.SIGTERM))
        signal.signal(signal.SIGUSR1, lambda *_: self.kill())
        directory = self.spec["directory"]
        record = {
            "shim": os.getpid(),
            "shim_start": linux.start_time(os.getpid()),
            "init": self.child,
            "started_at": time.time(),
        }
        with contextlib.suppress(ProcessLookupError):
            record["init_start"] = linux.start_time(self.child)
        write_json(f"{directory}/state.json", record)
        failure = self._read_report(report)
        log = LogFile(self.spec["log"], self.spec["log_limit"])  # first: what is told to run has a log, empty at least
        self._answer(failure or record)
        names = ["stdout", "stderr"]
        readers = {fd: Stream(fd, name, log) for fd, name in zip(streams, names, strict=False)}
        status = self._loop(readers, wake_read)
        self._bury(status, result, failure, directory)

    def _read_report(self, report: int) -> dict[str, Any]:
        """What went wrong before the command ran; empty when it runs. The writing end closes at exec."""
        data = b""
        while chunk := os.read(report, 65536):
            data += chunk
        os.close(report)
        return json.loads(data) if data else {}

    @staticmethod
    def _answer(document: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            os.write(1, json.dumps(document).encode() + b"\n")
        detach_stdio()

    def _loop(self, readers: dict[int, Stream], wake: int) -> int:
        """Copies output until the child has ended and its output is drained; the child's wait status."""
        poll = select.poll()
        for fd in [*readers, wake]:
            poll.register(fd, select.POLLIN)
        status: int | None = None
        deadline = looked = 0.0
        watched = self.spec.get("memory_watch")
        while status is None or readers:
            events = poll.poll((1000 if watched else None) if status is None else 200)
            if watched and status is None and time.monotonic() - looked >= 1:
                looked = time.monotonic()
                if private_memory(os.getpid()) > watched:
                    self.over = True
                    self.kill()
            for fd, _ in events:
                if fd == wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 4096)
                elif not readers[fd].read():
                    poll.unregister(fd)
                    del readers[fd]
            if status is None:
                status = self._reap()
                if status is not None:
                    deadline = time.monotonic() + 2
                    if not self.pidns:
                        self.kill()
            elif time.monotonic() > deadline:
                break
        for reader in readers.values():
            reader.finish()
        return status

    def _reap(self) -> int | None:
        status = None
        while True:
            try:
                pid, found = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status if status is not None else 0
            if pid == 0:
                return status
            if pid == self.child:
                status = found

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, number)

    def kill(self) -> None:
        if self.pidns:
            self._signal(signal.SIGKILL)
            return
        me = os.getpid()
        for _ in range(50):  # a process may fork while the list is read
            found = descendants(me)
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while True:
                    info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    if info is None or info.si_pid == self.child:
                        break
                    os.waitpid(info.si_pid, 0)
            if not [pid for pid in found if pid != self.child]:
                return
            time.sleep(0.002)

    def _bury(self, status: int, result: int, failure: dict[str, Any], directory: str) -> None:
        own = os.read(result, 4) if self.isolated else b""
        if len(own) == 4:
            status = int.from_bytes(own, "little")
        code = os.waitstatus_to_exitcode(status)
        record: dict[str, Any] = {"code": 128 - code if code < 0 else code, "finished_at": time.time(), "oom": self._oom()}
        if code < 0:
            record["signal"] = -code
        if failure:
            record.update(code=failure["code"], error=failure["error"])
        write_json(f"{directory}/exit.json", record)
        for path in self.spec.get("cgroup_dirs", []):
            for _ in range(20):
                try:
                    os.rmdir(path)
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)

    def _oom(self) -> bool:
        if self.over:
            return True
        for path in self.spec.get("cgroup_oom", []):
            with contextlib.suppress(OSError), open(path) as file:
                for line in file:
                    word, _, count = line.partition(" ")
                    if word == "oom_kill" and int(count) > 0:
                        return True
        return False


def main() -> int:
    spec = json.loads(sys.stdin.buffer.read())
    try:
        Shim(spec).run()
    except OSError as error:
        record = {"error": f"failed to start the container: {error}", "code": 128, "finished_at": time.time(), "oom": False}
        write_json(f"{spec['directory']}/exit.json", record)
        Shim._answer(record)
    ctypes.CDLL(None).fflush(None)
    return 0
