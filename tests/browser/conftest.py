"""A browser for each test, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from support.browser import PROGRAMS, Browser, browser


@pytest.fixture
def chromium() -> Iterator[Browser]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"wanted {' and '.join(PROGRAMS)}; not installed: {', '.join(missing)}")
    with browser() as opened:
        yield opened
