"""A headless chromium of one test: an empty profile, what it says on its console, and what it asks for."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

DEADLINE_S = 40.0
PROGRAMS = ("chromium", "chromedriver")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,800",
)


class Browser:
    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._events: list[dict[str, Any]] = []

    def open(self, url: str) -> None:
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body returns, awaited if it is a promise."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < deadline, f"{condition}; console: {self.console()}"
            self.run("return new Promise(resolve => setTimeout(resolve, 50))")

    def scheme(self, scheme: str) -> None:
        """``light`` or ``dark``: what its user prefers."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def console(self, *levels: str) -> list[str]:
        """What it said since the last call; SEVERE are errors."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if not levels or entry["level"] in levels]

    def requests(self) -> list[str]:
        """The URLs that were asked for, without those that a policy held back, those of the page itself and those of the browser's first page."""
        self._events += [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        failed = {e["params"]["requestId"] for e in self._events if e["params"].get("blockedReason") == "csp"}
        sent = [e["params"] for e in self._events if e["method"] == "Network.requestWillBeSent"]
        urls = [params["request"]["url"] for params in sent if params["requestId"] not in failed]
        return [url for url in urls if not url.startswith(("data:", "blob:", "chrome"))]


@contextmanager
def browser() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(prefix="fzb", ignore_cleanup_errors=True) as profile:
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        # dconf, where it is installed, writes there
        env = {**os.environ, "XDG_RUNTIME_DIR": profile}
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver"), env=env))
        try:
            driver.set_script_timeout(DEADLINE_S)
            yield Browser(driver)
        finally:
            driver.quit()
