"""A process that runs pieces of Python with Django and the settings of an installation: one start of Django serves many pieces."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

from portal.runtime import ROOT

# Takes a piece a line, as JSON, and answers in the same way with what it printed and how it failed.
_LOOP = """
import contextlib, io, json, sys, traceback, django
from django.db import connections
django.setup()
answers = sys.stdout
for line in sys.stdin:
    printed, failed = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            exec(json.loads(line), {"__name__": "piece"})
        except BaseException:
            failed = traceback.format_exc()
    connections.close_all()  # a test takes the database away
    print(json.dumps([printed.getvalue(), failed]), file=answers, flush=True)
"""


class Shell:
    """Begins with the first piece, and anew when the environment has changed since."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._env: dict[str, str] = {}

    def run(self, code: str, env: Mapping[str, str]) -> str:
        """What a piece of Python printed. AssertionError with its traceback when it failed."""
        if self._process is None or self._env != env:
            self.end()
            self._env = dict(env)
            more = {**env, "DJANGO_SETTINGS_MODULE": "portal.settings"}
            self._process = subprocess.Popen([sys.executable, "-c", _LOOP], cwd=ROOT, env=more, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(code), file=self._process.stdin, flush=True)
        printed, failed = json.loads(self._process.stdout.readline())
        assert not failed, failed
        return str(printed)

    def end(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(60)
            self._process = None
