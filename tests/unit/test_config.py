import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frzmq.config import (
    RecorderConfig,
    TracerConfig,
    default_service,
    ensure_private_dir,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    runtime_dir,
)
from frzmq.errors import ConfigError

S = 10**9


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("30s", 30 * S),
        ("500ms", S // 2),
        ("2m", 120 * S),
        ("1h", 3600 * S),
        ("1.5s", 3 * S // 2),
        ("30", 30 * S),
        ("0", 0),
        ("0.1s", S // 10),
        ("250us", 250_000),
        (" 1 d ", 86400 * S),
        ("123456789012345678ns", 123456789012345678),
    ],
)
def test_parse_duration_good_text_is_ns(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "s", "-1s", "1.s", ".5s", "1 week", "1e3", "1S", "٣s", "1s2", "inf", "9" * 5000])
def test_parse_duration_bad_text_raises(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--min-age: wanted a duration such as 30s, 500ms, 2m or 1.5h, got '"):
        parse_duration(text, "--min-age")


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("64M", 64 << 20),
        ("64MiB", 64 << 20),
        ("64mib", 64 << 20),
        ("4k", 4096),
        ("123", 123),
        ("123B", 123),
        ("1.5K", 1536),
        ("2g", 2 << 30),
        ("1TiB", 1 << 40),
    ],
)
def test_parse_size_good_text_is_bytes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "M", "-1", "64MB", "64 megabytes", "1i", "0x10", "1_000"])
def test_parse_size_bad_text_raises(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^size: wanted a size such as 64M, 64MiB, 4k or 123, got '"):
        parse_size(text)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0ns"),
        (999, "999ns"),
        (1500 * 10**6, "1.5s"),
        (90 * S, "1.5m"),
        (123456789, "123.5ms"),
        (10**6 * 86400 * S, "1000000d"),
    ],
)
def test_format_duration_value_has_the_unit_that_suits(ns: int, text: str) -> None:
    assert format_duration(ns) == text
    assert format_duration(-ns) == (f"-{text}" if ns else text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (1023, "1023B"), (64 << 20, "64MiB"), (1536, "1.5KiB"), (1 << 60, "1048576TiB")]
)
def test_format_size_value_has_the_unit_that_suits(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 1 << 62))
def test_format_any_value_is_parsed_back_within_a_thousandth(value: int) -> None:
    assert parse_duration(format_duration(value)) == pytest.approx(value, rel=1e-3)
    assert parse_size(format_size(value)) == pytest.approx(value, rel=1e-3)


def test_tracer_config_from_empty_environment_is_the_default() -> None:
    assert TracerConfig.from_env({}) == TracerConfig()
    assert (
        TracerConfig.from_env(dict.fromkeys(("FRZMQ_SERVICE", "FRZMQ_BUFFER", "FRZMQ_MIN_AGE", "FRZMQ_DISABLE"), ""))
        == TracerConfig()
    )


def test_tracer_config_from_env_takes_every_variable() -> None:
    environ = {
        "FRZMQ_SERVICE": "shop",
        "FRZMQ_RECORDER": "tcp://127.0.0.1:7000",
        "FRZMQ_RUNTIME_DIR": "/run/fr",
        "FRZMQ_BUFFER": "py",
        "FRZMQ_BUFFER_BYTES": "1000001",
        "FRZMQ_MIN_AGE": "1500ms",
        "FRZMQ_MAX_BYTES": "8M",
        "FRZMQ_REDACT": "iban, tin,,",
        "FRZMQ_CALLS": "1",
        "FRZMQ_CALLS_INCLUDE": "shop, shop_*",
        "FRZMQ_CALLS_EXCLUDE": "shop.metrics",
        "FRZMQ_CALLS_PER_SECOND": "0",
        "FRZMQ_LOGGING": "off",
    }
    assert TracerConfig.from_env(environ) == TracerConfig(
        service="shop",
        recorder="tcp://127.0.0.1:7000",
        runtime_dir="/run/fr",
        buffer_bytes=245 * 4096,
        buffer_kind="py",
        calls=True,
        calls_include=("shop", "shop_*"),
        calls_exclude=("shop.metrics",),
        calls_per_second=0,
        logging=False,
        redact=("iban", "tin"),
        min_age_s=1.5,
        max_bytes=8 << 20,
    )


def test_tracer_config_from_env_disabled_ignores_the_rest() -> None:
    assert TracerConfig.from_env({"FRZMQ_DISABLE": "1", "FRZMQ_MIN_AGE": "nonsense"}) == TracerConfig(enabled=False)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FRZMQ_BUFFER", "rust", "FRZMQ_BUFFER: wanted auto, py or c, got 'rust'"),
        ("FRZMQ_BUFFER_BYTES", "4k", "FRZMQ_BUFFER_BYTES: wanted an integer in 262144..1073741824, got 4096"),
        ("FRZMQ_BUFFER_BYTES", "2G", "FRZMQ_BUFFER_BYTES: wanted an integer in 262144..1073741824, got 2147483648"),
        ("FRZMQ_MIN_AGE", "soon", "FRZMQ_MIN_AGE: wanted a duration such as 30s, 500ms, 2m or 1.5h, got 'soon'"),
        ("FRZMQ_MAX_BYTES", "-1", "FRZMQ_MAX_BYTES: wanted a size such as 64M, 64MiB, 4k or 123, got '-1'"),
        ("FRZMQ_DISABLE", "maybe", "FRZMQ_DISABLE: wanted 1 or 0, got 'maybe'"),
        ("FRZMQ_CALLS", "2", "FRZMQ_CALLS: wanted 1 or 0, got '2'"),
        ("FRZMQ_CALLS_PER_SECOND", "-1", "FRZMQ_CALLS_PER_SECOND: wanted a whole number such as 1000, or 0, got '-1'"),
        ("FRZMQ_LOGGING", "2", "FRZMQ_LOGGING: wanted 1 or 0, got '2'"),
    ],
)
def test_tracer_config_from_env_bad_value_names_the_variable(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TracerConfig.from_env({name: value})
    assert str(caught.value) == message


def test_tracer_config_from_env_of_another_user_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert TracerConfig.from_env({"FRZMQ_SERVICE": "forged", "FRZMQ_DISABLE": "1"}) == TracerConfig()


@pytest.mark.parametrize(
    "wrong",
    [
        {"service": ""},
        {"service": "x" * 257},
        {"service": None},
        {"recorder": ""},
        {"runtime_dir": "a\0b"},
        {"buffer_bytes": (256 << 10) - 4096},
        {"buffer_bytes": (256 << 10) + 1},
        {"buffer_bytes": 1e6},
        {"buffer_kind": "rust"},
        {"logging": 1},
        {"enabled": None},
        {"redact": "iban"},
        {"redact": ("",)},
        {"min_age_s": -1.0},
        {"min_age_s": float("nan")},
        {"min_age_s": float("inf")},
        {"min_age_s": True},
        {"max_bytes": -1},
        {"max_bytes": True},
    ],
    ids=repr,
)
def test_tracer_config_bad_value_raises_with_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^TracerConfig\.{next(iter(wrong))}: wanted "):
        TracerConfig(**wrong)


def test_tracer_config_replace_checks_again() -> None:
    config = TracerConfig(service="shop")
    assert config.replace(min_age_s=5.0) == TracerConfig(service="shop", min_age_s=5.0)
    with pytest.raises(ConfigError):
        config.replace(max_bytes=-1)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/srv/shop.py", "shop"),
        ("/usr/bin/gunicorn", "gunicorn"),
        ("/lib/http_shop/__main__.py", "http_shop"),
        ("-c", "python"),
        ("-m", "python"),
        ("", "python"),
        ("/srv/a\nb", "python"),
    ],
)
def test_default_service_is_the_name_of_the_program(path: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [path, "serve"])
    assert default_service() == name


def test_default_service_without_arguments_is_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [])
    assert default_service() == "python"


def test_recorder_config_default_is_a_minute_and_64_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRZMQ_SNAPSHOTS", "/s")
    assert dataclasses.asdict(RecorderConfig()) == {
        "min_age_ns": 60 * S,
        "max_bytes": 64 << 20,
        "max_generation_bytes": 8 << 20,
        "advance_every_ns": S,
        "heartbeat_ns": S,
        "silence_ns": 10 * S,
        "flush_timeout_ns": 2 * S,
        "mode": "service",
        "data_address": None,
        "link_address": None,
        "control_address": None,
        "keys": None,
        "insecure": False,
        "triggers": "",
        "on_death": True,
        "store": {"directory": "/s", "keep_count": 50, "keep_age_s": 7 * 86400.0, "keep_bytes": 1 << 30},
    }


@pytest.mark.parametrize(("max_bytes", "most"), [(1, 256 << 10), (2 << 20, 256 << 10), (1 << 30, 128 << 20)])
def test_recorder_config_generation_bytes_follow_max_bytes(max_bytes: int, most: int) -> None:
    assert RecorderConfig(max_bytes=max_bytes).max_generation_bytes == most


def test_recorder_config_generation_bytes_given_are_kept() -> None:
    assert RecorderConfig(max_generation_bytes=1000).max_generation_bytes == 1000


def test_recorder_config_mode_tells_service_from_embedded() -> None:
    assert (RecorderConfig().service_mode, RecorderConfig(mode="embedded").service_mode) == (True, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_age_ns": -1},
        {"min_age_ns": 1.5},
        {"max_bytes": -1},
        {"max_generation_bytes": -1},
        {"advance_every_ns": 0},
        {"heartbeat_ns": 0},
        {"silence_ns": S},
        {"flush_timeout_ns": 1 << 63},
        {"mode": "solo"},
        {"data_address": ""},
        {"insecure": 1},
    ],
    ids=repr,
)
def test_recorder_config_bad_value_raises_with_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^RecorderConfig\.{next(iter(wrong))}\b.*: wanted "):
        RecorderConfig(**wrong)


def test_runtime_dir_chosen_is_taken() -> None:
    assert runtime_dir({"FRZMQ_RUNTIME_DIR": "/run/fr", "XDG_RUNTIME_DIR": "/"}) == "/run/fr"


def test_runtime_dir_of_a_session_is_inside_it(tmp_path: Path) -> None:
    assert runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)}) == str(tmp_path / "frzmq")


@pytest.mark.parametrize(("writable", "parent"), [(True, "/dev/shm"), (False, "/scratch")])
def test_runtime_dir_without_session_is_the_users_own(
    writable: bool, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frzmq.config._may_create_in", lambda directory: writable and directory == "/dev/shm")
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/scratch")
    assert runtime_dir({"XDG_RUNTIME_DIR": "/gone"}) == f"{parent}/frzmq-{os.geteuid()}"


def test_runtime_dir_of_another_users_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert runtime_dir({"FRZMQ_RUNTIME_DIR": "/forged"}).endswith(f"/frzmq-{os.getuid() + 1}")


def test_ensure_private_dir_missing_is_made_with_mode_0700(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert ensure_private_dir(f"{path}/") == str(path)
    assert path.stat().st_mode & 0o7777 == 0o700
    assert ensure_private_dir(str(path)) == str(path)


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_ensure_private_dir_open_to_others_is_refused(mode: int, tmp_path: Path) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(ConfigError, match=f"wanted a directory of mode 0700, got {mode:04o}: others may enter it$"):
        ensure_private_dir(str(tmp_path))


def test_ensure_private_dir_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.getuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(ConfigError, match=f"wanted a directory of user {uid + 1}, got one of user {uid}$"):
        ensure_private_dir(str(tmp_path))


def test_ensure_private_dir_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(ConfigError, match=r"wanted a directory, got a symbolic link$"):
        ensure_private_dir(f"{tmp_path / 'link'}/")


def test_ensure_private_dir_over_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot make this directory: File exists$"):
        ensure_private_dir(str(tmp_path / "file"))


def test_config_imported_loads_no_heavy_module() -> None:
    program = "import sys, frzmq.config, frzmq.clock; print(*sorted({'tempfile', 'zmq', 'msgpack', 'rich', 'asyncio', 'logging'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout.split() == []
    )
