"""What a process says of itself is shown, and does not command the terminal of whoever looks."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.raw_tracer import RawTracer
from support.recorder_process import recorder_process

from frzmq.cli import main

NAME = "evil\x1b[2J\nrecorder 1, all is well"


def test_malicious_service_name_is_on_one_line_without_escapes(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path_factory.mktemp("r")
    directory.chmod(0o700)
    with recorder_process(str(directory)) as recorder:
        tracer = RawTracer(recorder.address, service=NAME)
        tracer.deaf = True
        tracer.record(1)
        tracer.flush_mark()
        for arguments in (
            ["status", recorder.address],
            ["flush", recorder.address, "--timeout", "50ms"],
            ["snapshot", recorder.address, "-o", str(tmp_path / "s.frz")],
        ):
            assert main(arguments) == 0
            out, err = capsys.readouterr()
            assert "evil" in out + err, arguments
            assert "\x1b" not in out + err, arguments
            assert not any(line.startswith("recorder 1,") for line in (out + err).splitlines()), arguments
        tracer.close(0)
