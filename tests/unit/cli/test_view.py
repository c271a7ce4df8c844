"""``frzmq view``: what it serves and opens, and how it ends. The browser is one that asks for the trace and then presses Ctrl-C."""

from __future__ import annotations

import sys
import urllib.request
import webbrowser
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.snapshots import Stream, event, to_bytes

from frzmq.cli import main
from frzmq.export.perfetto import write_perfetto
from frzmq.reader.snapshot import open_snapshot
from frzmq.view import ui


@dataclass
class Visitor:
    opened: list[str] = field(default_factory=list)
    trace: bytes = b""
    readable_by: str | None = None

    def open(self, url: str) -> bool:
        self.opened.append(url)
        with urllib.request.urlopen(url.partition("?url=")[2], timeout=10) as reply:
            self.trace = reply.read()
            self.readable_by = reply.headers["Access-Control-Allow-Origin"]
        raise KeyboardInterrupt


@pytest.fixture
def visitor(monkeypatch: pytest.MonkeyPatch) -> Visitor:
    visitor = Visitor()
    monkeypatch.setattr(webbrowser, "open", visitor.open)
    # there is no viztracer, whatever is installed
    monkeypatch.setitem(sys.modules, "viztracer", None)
    return visitor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "slow.frz"
    path.write_bytes(to_bytes(Stream().generation(1, [event(10, "a")])))
    return path


def exported(path: Path) -> bytes:
    parts: list[bytes] = []
    with open_snapshot(path) as snapshot:
        write_perfetto(snapshot, parts.append)
    return b"".join(parts)


def test_view_with_a_local_copy_opens_its_page(
    visitor: Visitor, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ui").mkdir()
    (tmp_path / "ui" / "index.html").touch()
    assert main(["view", str(path), "--ui", str(tmp_path / "ui")]) == 0
    (url,) = visitor.opened
    assert url.startswith("http://127.0.0.1:")
    assert (visitor.trace, visitor.readable_by) == (exported(path), None)
    assert capsys.readouterr() == (f"{url}\n", "frzmq: Ctrl-C ends it\n")


def test_view_without_one_opens_the_public_site(
    visitor: Visitor, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ui, "PUBLIC_PORT", 0)
    assert main(["view", str(path)]) == 0
    (url,) = visitor.opened
    assert url.startswith("https://ui.perfetto.dev/#!/?url=http://127.0.0.1:")
    assert (visitor.trace, visitor.readable_by) == (exported(path), "https://ui.perfetto.dev")
    assert "ui.perfetto.dev reads the trace in your browser" in capsys.readouterr().err


def test_view_public_site_reads_from_one_port_only(
    visitor: Visitor, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", str(path), "--port", "9002"]) == 2
    assert capsys.readouterr().err == (
        "frzmq: view: wanted --ui, or viztracer, or port 9001, from which alone https://ui.perfetto.dev reads\n"
    )
    assert visitor.opened == []


def test_view_without_a_user_interface_there_is_refused(
    visitor: Visitor, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", str(path), "--ui", str(tmp_path)]) == 2
    assert "view: wanted a directory with Perfetto's index.html in it" in capsys.readouterr().err
    assert visitor.opened == []
