"""The version of the package, for what says it in files and replies."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """As installed; ``0+unknown`` in a tree that is not."""
    try:
        return version("frzmq")
    except PackageNotFoundError:
        return "0+unknown"
