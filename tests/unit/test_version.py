"""The version that the code says of itself."""

from __future__ import annotations

from importlib.metadata import version

import frzmq


def test_version_is_that_of_what_is_installed() -> None:
    assert frzmq.__version__ == version("frzmq")
