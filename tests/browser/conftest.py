"""A real portal (web server, Redis, database) and a real Chromium. A page that logs an error, throws, or breaks the CSP fails its test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from portal.runtime import ROOT
from tests.migrated import put_database
from tests.stack import Stack, free_ports, wait_until
from tests.web.world import PASSWORD

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"]
TIMEOUT = int(os.environ.get("BROWSER_TIMEOUT", "60000"))  # milliseconds; generous, for machines with other work to do
expect.set_options(timeout=TIMEOUT)


class Portal:
    """A portal of its own folder and port, with a small world in its database. No cluster: the tests write what an observer would."""

    def __init__(self, var: Path) -> None:
        self.var = var
        port, hub = free_ports(2)
        self.url, self.hub = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{hub}"
        inherited = {
            name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL", "KUBECONFIG", "PUBLIC_URL", "HUB_PUBLIC_URL")
        }
        self.env = {**inherited, "VAR_DIR": str(var), "PORT": str(port), "HUB_PORT": str(hub), "STATIC_COLLECTED": "true", "PYTHONUNBUFFERED": "1"}
        self.processes: list[subprocess.Popen[Any]] = []
        self._rows: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.var.mkdir(parents=True, exist_ok=True)
        put_database(self.var / "atelier.sqlite3")
        subprocess.run([sys.executable, "manage.py", "collectstatic", "--noinput", "-v0"], cwd=ROOT, env=self.env, check=True)
        self.spawn("redis", [sys.executable, "-m", "portal.ops.run", "redis"])
        self.spawn("web", [sys.executable, "-m", "uvicorn", "portal.asgi:application", "--host", "127.0.0.1", "--port", self.env["PORT"], "--no-access-log"])
        wait_until(self._answers, "the portal to answer")
        self.rows("make_world")

    def spawn(self, name: str, argv: list[str]) -> None:
        with (self.var / f"{name}.log").open("wb") as out:
            self.processes.append(subprocess.Popen(argv, cwd=ROOT, env=self.env, stdout=out, stderr=subprocess.STDOUT))

    def _answers(self) -> bool:
        assert all(process.poll() is None for process in self.processes), "".join(p.read_text() for p in self.var.glob("*.log"))
        try:
            return httpx.get(self.url + "/accounts/login/", timeout=10, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def rows(self, function: str, **arguments: Any) -> Any:
        """Call a function of `tests.browser.rows` on the portal's database."""
        if self._rows is None:
            argv = [sys.executable, "-m", "tests.browser.rows"]
            self._rows = subprocess.Popen(argv, cwd=ROOT, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._rows.stdin
        assert self._rows.stdout
        self._rows.stdin.write(json.dumps([function, arguments]) + "\n")
        self._rows.stdin.flush()
        line = self._rows.stdout.readline()
        assert line, "the process that makes rows has ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def stop(self) -> None:
        if self._rows is not None and self._rows.stdin:
            self._rows.stdin.close()
            self._rows.wait(timeout=30)
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    portal = Portal(tmp_path_factory.mktemp("portal"))
    try:
        portal.start()
        yield portal
    finally:
        portal.stop()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole installation, as `make up` starts it."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    put_database(stack.var / "atelier.sqlite3")
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine: `apt-get install chromium`, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Watch:
    """Collects what a page complains about. `allow` names texts that a test provokes on purpose."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.allowed: list[str] = []

    def allow(self, text: str) -> None:
        self.allowed.append(text)

    def follow(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))

    def _console(self, message: ConsoleMessage) -> None:
        if "htmx:sendAbort" in message.text and self.complaints and "htmx:afterRequest" in self.complaints[-1]:
            self.complaints.pop()  # the page was left while it asked for something, which htmx tells in these two lines
            return
        # breaches of the CSP are reported here too, as errors
        if message.type == "error" or "Content Security Policy" in message.text:
            self.complaints.append(f"console: {message.text} ({message.location.get('url', '')})")

    def check(self) -> None:
        bad = [line for line in self.complaints if not any(text in line for text in self.allowed)]
        assert not bad, "\n".join(bad)


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.check()


@pytest.fixture
def new_context(browser: Browser, watch: Watch) -> Iterator[Callable[..., BrowserContext]]:
    """Makes browser contexts whose every page is watched."""
    made: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **options})
        context.set_default_timeout(TIMEOUT)
        context.on("page", watch.follow)
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()


def sign_in(page: Page, url: str, user: str, password: str = PASSWORD) -> None:
    """Through the page, as a person does."""
    page.goto(url + "/accounts/login/")
    page.get_by_label("User name").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda address: "/accounts/login" not in address)


@pytest.fixture
def page_of(portal: Portal, new_context: Callable[..., BrowserContext]) -> Callable[..., Page]:
    """A page of someone who has signed in."""

    def make(user: str, **options: Any) -> Page:
        page = new_context(base_url=portal.url, **options).new_page()
        sign_in(page, portal.url, user)
        return page

    return make
