"""Configuration: frozen values, checked when they are made, and the environment that they may come from.

=====================  =====================================================  =======================
variable               meaning                                                `TracerConfig`
=====================  =====================================================  =======================
``FRZMQ_DISABLE``      1: nothing is recorded, the others are not looked at   ``enabled``
``FRZMQ_SERVICE``      the service's name                                     ``service``
``FRZMQ_RECORDER``     the address of a running recorder                      ``recorder``
``FRZMQ_KEY``          the key file for a recorder on tcp that has keys       ``key``
``FRZMQ_RUNTIME_DIR``  where sockets and shared buffers are                   ``runtime_dir``
``FRZMQ_BUFFER``       ``auto``, ``py`` or ``c``                              ``buffer_kind``
``FRZMQ_BUFFER_BYTES`` size of a process's buffer, such as ``4M``             ``buffer_bytes``
``FRZMQ_MIN_AGE``      how long to keep, such as ``60s``                      ``min_age_s``
``FRZMQ_MAX_BYTES``    how much to keep, such as ``64M``                      ``max_bytes``
``FRZMQ_REDACT``       more words that make an attribute secret: ``iban,tin`` ``redact``
``FRZMQ_LOGGING``      0: do not record logging                               ``logging``
``FRZMQ_EXCEPTIONS``   0: do not record uncaught exceptions                   ``exceptions``
``FRZMQ_THREADS``      0: only threads that record something else             ``threads``
``FRZMQ_TRIGGERS``     when a snapshot is left: ``slow 500ms; error``         ``triggers``
``FRZMQ_DEBUG_ON_FAILURE``  1: suppressed log lines of what fails come back   ``debug_on_failure``
``FRZMQ_CALLS``        1: every call of the program                           ``calls``
``FRZMQ_CALLS_INCLUDE``  of these modules: ``shop,shop_*``                    ``calls_include``
``FRZMQ_CALLS_EXCLUDE``  but not of these                                     ``calls_exclude``
``FRZMQ_CALLS_PER_SECOND``  of code called more often they are only counted   ``calls_per_second``
``FRZMQ_SNAPSHOTS``    the directory for these, of an embedded recorder       ``snapshots``
=====================  =====================================================  =======================

An empty variable is one that is not set. All of them are ignored in a process whose real and effective users differ.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

from frzmq.errors import ConfigError

BufferKind: TypeAlias = Literal["auto", "py", "c"]
RecorderMode: TypeAlias = Literal["service", "embedded"]

PAGE_BYTES: Final = 4096
MIN_BUFFER_BYTES: Final = 256 << 10
MAX_BUFFER_BYTES: Final = 1 << 30
MIN_GENERATION_BYTES: Final = 256 << 10
MAX_NAME_CHARS: Final = 256
_MEMORY_DIR: Final = "/dev/shm"  # noqa: S108 - `ensure_private_dir` checks what is made in it

_MAX_INT: Final = (1 << 63) - 1
_S: Final = 10**9
_DURATIONS_NS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": _S, "m": 60 * _S, "h": 3600 * _S, "d": 86400 * _S}
_BINARY_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZES_BYTES: Final = {"": 1} | {
    spelt: size for unit, size in _BINARY_BYTES.items() for spelt in (unit.lower(), unit[0].lower())
}
_QUANTITY: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))? *([a-z]*)")


def default_service() -> str:
    """The name of the program: of its script, or of the package that ``-m`` runs; ``python`` if there is neither."""
    path = sys.argv[0] if sys.argv else ""
    head, name = os.path.split(path)
    if name == "__main__.py":
        name = os.path.basename(head)
    name = name.removesuffix(".py")
    return name[:MAX_NAME_CHARS] if name.isprintable() and name not in ("", "-c", "-m") else "python"


@dataclass(frozen=True, slots=True)
class TracerConfig:
    """What the part inside an application does. Raises ConfigError when a value is wrong."""

    service: str = field(default_factory=default_service)
    recorder: str | None = None
    """The address of a running recorder; None: one of our own, or the user's."""
    key: str | None = None
    """The path of the key file for a recorder on tcp that has keys; it is not looked at for others."""
    runtime_dir: str | None = None
    """None: `runtime_dir()`."""
    buffer_bytes: int = 4 << 20
    """Of each process, in whole pages."""
    buffer_kind: BufferKind = "auto"
    """``auto``: the C one where it could be compiled."""
    logging: bool = True
    exceptions: bool = True
    threads: bool = True
    redact: tuple[str, ...] = ()
    """Words, beside the usual ones, that make the value of an attribute a secret."""
    enabled: bool = True
    triggers: str = ""
    """As in `frzmq.triggers`, with ``;`` between them."""
    debug_on_failure: bool = False
    """Logging calls below the enabled level are recorded unformatted; those of an operation that fails are given back to the program's logging."""
    calls: bool = False
    """Every call of the program's functions."""
    calls_include: tuple[str, ...] = ()
    """Patterns of modules, such as ``shop`` or ``shop_*``, each with all that is in it; none: all but the standard library."""
    calls_exclude: tuple[str, ...] = ()
    calls_per_second: int = 1000
    """Code that is called more often is quiet: its calls are counted, not recorded, until it is calm. 0: they are all recorded."""
    snapshots: str | None = None
    """The directory in which an embedded recorder leaves them; None: `snapshot_dir()`."""
    min_age_s: float = 60.0
    """Seconds that are kept at the least, if ``max_bytes`` allows it: ``max_bytes`` wins."""
    max_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        where = type(self).__name__
        _check_text(f"{where}.service", self.service, MAX_NAME_CHARS)
        if self.recorder is not None:
            _check_text(f"{where}.recorder", self.recorder)
        if self.key is not None:
            _check_text(f"{where}.key", self.key)
        if self.runtime_dir is not None:
            _check_text(f"{where}.runtime_dir", self.runtime_dir)
        _check_int(f"{where}.buffer_bytes", self.buffer_bytes, MIN_BUFFER_BYTES, MAX_BUFFER_BYTES)
        if self.buffer_bytes % PAGE_BYTES:
            raise ConfigError(f"{where}.buffer_bytes: wanted a multiple of {PAGE_BYTES}, got {self.buffer_bytes}")
        _check_choice(f"{where}.buffer_kind", self.buffer_kind, get_args(BufferKind))
        if self.snapshots is not None:
            _check_text(f"{where}.snapshots", self.snapshots)
        if self.triggers:
            from frzmq.triggers import parse_triggers

            parse_triggers(self.triggers, f"{where}.triggers")
        for name in ("logging", "exceptions", "threads", "enabled", "debug_on_failure", "calls"):
            _check_flag(f"{where}.{name}", getattr(self, name))
        for name in ("redact", "calls_include", "calls_exclude"):
            words = getattr(self, name)
            if not isinstance(words, tuple):
                raise ConfigError(f"{where}.{name}: wanted a tuple of words, got {words!r:.80}")
            for word in words:
                _check_text(f"{where}.{name}", word, MAX_NAME_CHARS)
        _check_int(f"{where}.calls_per_second", self.calls_per_second, 0)
        if type(self.min_age_s) not in (int, float) or not 0 <= self.min_age_s * _S < 1 << 63:
            raise ConfigError(f"{where}.min_age_s: wanted seconds, 0 or more, got {self.min_age_s!r:.80}")
        _check_int(f"{where}.max_bytes", self.max_bytes, 0)

    def replace(self, **changes: Any) -> TracerConfig:
        """A copy with other values, checked again."""
        return dataclasses.replace(self, **changes)

    def embedded(self) -> RecorderConfig:
        """Of a recorder of its own."""
        return RecorderConfig(
            min_age_ns=round(self.min_age_s * 1e9),
            max_bytes=self.max_bytes,
            mode="embedded",
            store=StoreConfig(os.path.abspath(self.snapshots or snapshot_dir())),
        )

    def calls_environment(self) -> dict[str, str]:
        """Of a child that is to record calls as this process does."""
        return {
            "FRZMQ_CALLS": "1" if self.calls else "0",
            "FRZMQ_CALLS_INCLUDE": ",".join(self.calls_include),
            "FRZMQ_CALLS_EXCLUDE": ",".join(self.calls_exclude),
            "FRZMQ_CALLS_PER_SECOND": str(self.calls_per_second),
        }

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> TracerConfig:
        """What the ``FRZMQ_*`` variables of ``environ`` say. Raises ConfigError that names the variable."""
        read = _Environment(environ)
        if read.flag("FRZMQ_DISABLE", default=False):
            return cls(enabled=False)
        defaults = cls()
        return cls(
            service=read.text("FRZMQ_SERVICE") or defaults.service,
            recorder=read.text("FRZMQ_RECORDER"),
            key=read.text("FRZMQ_KEY"),
            runtime_dir=read.text("FRZMQ_RUNTIME_DIR"),
            buffer_bytes=read.buffer_bytes("FRZMQ_BUFFER_BYTES", defaults.buffer_bytes),
            buffer_kind=read.buffer_kind("FRZMQ_BUFFER", defaults.buffer_kind),
            logging=read.flag("FRZMQ_LOGGING", default=defaults.logging),
            exceptions=read.flag("FRZMQ_EXCEPTIONS", default=defaults.exceptions),
            threads=read.flag("FRZMQ_THREADS", default=defaults.threads),
            redact=read.words("FRZMQ_REDACT"),
            triggers=read.triggers("FRZMQ_TRIGGERS"),
            debug_on_failure=read.flag("FRZMQ_DEBUG_ON_FAILURE", default=defaults.debug_on_failure),
            calls=read.flag("FRZMQ_CALLS", default=defaults.calls),
            calls_include=read.words("FRZMQ_CALLS_INCLUDE"),
            calls_exclude=read.words("FRZMQ_CALLS_EXCLUDE"),
            calls_per_second=read.count("FRZMQ_CALLS_PER_SECOND", defaults.calls_per_second),
            snapshots=read.text("FRZMQ_SNAPSHOTS"),
            min_age_s=read.seconds("FRZMQ_MIN_AGE", defaults.min_age_s),
            max_bytes=read.size("FRZMQ_MAX_BYTES", defaults.max_bytes, least=0),
        )


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where the snapshots of triggers go, and how many of them stay: of all limits the first that is reached. Raises ConfigError."""

    directory: str = field(default_factory=lambda: snapshot_dir())  # noqa: PLW0108  # it is defined below
    keep_count: int = 50
    keep_age_s: float = 7 * 86400.0
    keep_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        where = type(self).__name__
        _check_text(f"{where}.directory", self.directory)
        _check_int(f"{where}.keep_count", self.keep_count, 1)
        _check_int(f"{where}.keep_bytes", self.keep_bytes, 1)
        if type(self.keep_age_s) not in (int, float) or not 0 < self.keep_age_s < 1 << 40:
            raise ConfigError(f"{where}.keep_age_s: wanted seconds above 0, got {self.keep_age_s!r:.80}")


@dataclass(frozen=True, slots=True)
class RecorderConfig:
    """What the recorder keeps and when it acts. Times are ns, sizes bytes. Raises ConfigError when a value is wrong."""

    min_age_ns: int = 60 * _S
    """Kept at the least, if ``max_bytes`` allows it: ``max_bytes`` wins."""
    max_bytes: int = 64 << 20
    """0 keeps one generation of each tracer."""
    max_generation_bytes: int = 0
    """An open generation that grows past it is ended early; 0 becomes an eighth of ``max_bytes``, 256 KiB at the least."""
    advance_every_ns: int = _S
    heartbeat_ns: int = _S
    silence_ns: int = 10 * _S
    """A tracer that was not heard for so long counts as gone."""
    flush_timeout_ns: int = 2 * _S
    mode: RecorderMode = "service"
    """``embedded``: of one program, and ends with it."""
    data_address: str | None = None
    link_address: str | None = None
    control_address: str | None = None
    """None, all three: they follow from the runtime directory."""
    keys: str | None = None
    """A directory of keys, as `frzmq keys` makes it: of those who are admitted on tcp. None: whoever reaches it."""
    insecure: bool = False
    """Allows tcp beyond this host without keys."""
    triggers: str = ""
    """That each process is to look out for, as in `frzmq.triggers`."""
    on_death: bool = True
    """A process that dies, and not by somebody's wish, leaves a snapshot as a trigger does."""
    store: StoreConfig = field(default_factory=StoreConfig)

    def __post_init__(self) -> None:
        where = type(self).__name__
        _check_int(f"{where}.min_age_ns", self.min_age_ns, 0)
        _check_int(f"{where}.max_bytes", self.max_bytes, 0)
        _check_int(f"{where}.max_generation_bytes", self.max_generation_bytes, 0)
        if self.max_generation_bytes == 0:
            object.__setattr__(self, "max_generation_bytes", max(self.max_bytes // 8, MIN_GENERATION_BYTES))
        for name in ("advance_every_ns", "heartbeat_ns", "flush_timeout_ns"):
            _check_int(f"{where}.{name}", getattr(self, name), 1)
        _check_int(f"{where}.silence_ns (more than heartbeat_ns)", self.silence_ns, self.heartbeat_ns + 1)
        _check_choice(f"{where}.mode", self.mode, get_args(RecorderMode))
        for name in ("data_address", "link_address", "control_address"):
            if (address := getattr(self, name)) is not None:
                _check_text(f"{where}.{name}", address)
        if self.keys is not None:
            _check_text(f"{where}.keys", self.keys)
        _check_flag(f"{where}.insecure", self.insecure)
        _check_flag(f"{where}.on_death", self.on_death)
        if self.triggers:
            from frzmq.triggers import parse_triggers

            parse_triggers(self.triggers, f"{where}.triggers")

    @property
    def service_mode(self) -> bool:
        """Whether it outlives the programs that it records."""
        return self.mode == "service"


def parse_duration(text: str, where: str = "duration") -> int:
    """Nanoseconds of ``30s``, ``500ms``, ``1.5h``; a plain number is seconds. Raises ConfigError."""
    return _parse(text, text, _DURATIONS_NS, "s", f"{where}: wanted a duration such as 30s, 500ms, 2m or 1.5h")


def parse_size(text: str, where: str = "size") -> int:
    """Bytes of ``64M``, ``64MiB``, ``4k``, ``123``; the units are powers of 1024. Raises ConfigError."""
    return _parse(text, text.lower(), _SIZES_BYTES, "", f"{where}: wanted a size such as 64M, 64MiB, 4k or 123")


def parse_count(text: str, where: str = "count", most: int = 1_000_000) -> int:
    """A whole number from 1 on. Raises ConfigError."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= most:
        raise ConfigError(f"{where}: wanted a number in 1..{most}, got {text!r:.80}")
    return int(text)


def format_duration(ns: int) -> str:
    """About ``ns``, in four digits and the unit that suits it; `parse_duration` reads it."""
    return _format(ns, _DURATIONS_NS)


def format_size(size_bytes: int) -> str:
    """About ``size_bytes``, in four digits and the unit that suits it; `parse_size` reads it."""
    return _format(size_bytes, _BINARY_BYTES)


def runtime_dir(environ: Mapping[str, str] | None = None) -> str:
    """The directory of this user's sockets and shared buffers; it need not exist yet.

    ``FRZMQ_RUNTIME_DIR``, else ``frzmq`` in ``XDG_RUNTIME_DIR`` (when one may write there), else ``frzmq-<uid>`` in ``/dev/shm``, else in the
    directory for temporary files.
    """
    read = _Environment(os.environ if environ is None else environ)
    if chosen := read.text("FRZMQ_RUNTIME_DIR"):
        return chosen
    session = read.text("XDG_RUNTIME_DIR")
    if session and os.path.isabs(session) and _may_create_in(session):
        return os.path.join(session, "frzmq")
    name = f"frzmq-{os.geteuid()}"
    if _may_create_in(_MEMORY_DIR):
        return os.path.join(_MEMORY_DIR, name)
    import tempfile

    return os.path.join(tempfile.gettempdir(), name)


def snapshot_dir(environ: Mapping[str, str] | None = None) -> str:
    """Where triggers leave snapshots unless it is said: ``FRZMQ_SNAPSHOTS``, else ``frzmq`` in ``XDG_STATE_HOME`` or ``~/.local/state``, else, without a home,
    ``frzmq-snapshots-<uid>`` in the directory for temporary files. It need not exist yet."""
    read = _Environment(os.environ if environ is None else environ)
    if chosen := read.text("FRZMQ_SNAPSHOTS"):
        return os.path.abspath(chosen)
    state = read.text("XDG_STATE_HOME") or os.path.join(read.text("HOME") or "", ".local", "state")
    if os.path.isabs(state):
        return os.path.join(state, "frzmq")
    import tempfile

    return os.path.join(tempfile.gettempdir(), f"frzmq-snapshots-{os.geteuid()}")


def ensure_private_dir(path: str) -> str:
    """Creates ``path`` with mode 0700 if it is not there, and returns it, absolute.

    Raises ConfigError when it cannot be made, or is not a directory (a symbolic link is none), or another user's, or open to others.
    """
    path = os.path.abspath(path)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        check_private_dir(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot make this directory: {error.strerror}") from None
    return path


def check_private_dir(path: str) -> None:
    """Raises ConfigError when ``path`` is not a directory (a symbolic link is none), or another user's, or open to others; OSError: it is not there."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{path}: wanted a directory, got a symbolic link")
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{path}: wanted a directory of user {os.geteuid()}, got one of user {status.st_uid}")
    if status.st_mode & 0o077:
        raise ConfigError(
            f"{path}: wanted a directory of mode 0700, got {stat.S_IMODE(status.st_mode):04o}: others may enter it"
        )


class _Environment:
    """Typed access; empty when the process runs with another user's rights."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ if os.getuid() == os.geteuid() else {}

    def text(self, name: str) -> str | None:
        return self._environ.get(name) or None

    def flag(self, name: str, *, default: bool) -> bool:
        match (self.text(name) or "").lower():
            case "":
                return default
            case "1" | "true" | "yes" | "on":
                return True
            case "0" | "false" | "no" | "off":
                return False
            case other:
                raise ConfigError(f"{name}: wanted 1 or 0, got {other!r:.80}")

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(word for part in (self.text(name) or "").split(",") if (word := part.strip()))

    def count(self, name: str, default: int) -> int:
        text = self.text(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise ConfigError(f"{name}: wanted a whole number such as 1000, or 0, got {text!r:.80}")
        return int(text)

    def size(self, name: str, default: int, least: int = 1, most: int = _MAX_INT) -> int:
        text = self.text(name)
        if text is None:
            return default
        size_bytes = parse_size(text, name)
        _check_int(name, size_bytes, least, most)
        return size_bytes

    def buffer_bytes(self, name: str, default: int) -> int:
        size_bytes = self.size(name, default, MIN_BUFFER_BYTES, MAX_BUFFER_BYTES)
        return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES

    def buffer_kind(self, name: str, default: BufferKind) -> BufferKind:
        match self.text(name):
            case None:
                return default
            case "auto" | "py" | "c" as kind:
                return kind
            case other:
                raise ConfigError(f"{name}: wanted auto, py or c, got {other!r:.80}")

    def triggers(self, name: str) -> str:
        text = self.text(name) or ""
        if text:
            from frzmq.triggers import parse_triggers

            parse_triggers(text, name)
        return text

    def seconds(self, name: str, default: float) -> float:
        text = self.text(name)
        return default if text is None else parse_duration(text, name) / _S


def _may_create_in(directory: str) -> bool:
    return os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)


def _parse(text: str, plain: str, units: dict[str, int], default_unit: str, wanted: str) -> int:
    matched = _QUANTITY.fullmatch(plain.strip())
    unit = units.get(matched[3] or default_unit) if matched else None
    if matched is None or unit is None:
        raise ConfigError(f"{wanted}, got {text!r:.80}")
    whole, fraction = matched[1], matched[2] or ""
    scale: int = 10 ** len(fraction)
    return int(whole + fraction) * unit // scale


def _format(value: int, units: dict[str, int]) -> str:
    """``units``: the smallest first."""
    if value < 0:
        return f"-{_format(-value, units)}"
    name, unit = [each for each in units.items() if each[1] <= max(value, 1)][-1]
    amount = value / unit
    return f"{amount:.0f}{name}" if amount >= 1000 else f"{amount:.4g}{name}"


def _check_text(where: str, value: object, most_chars: int = 4096) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= most_chars or "\0" in value:
        raise ConfigError(f"{where}: wanted 1 to {most_chars} characters, got {value!r:.80}")


def _check_int(where: str, value: object, least: int, most: int = _MAX_INT) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(f"{where}: wanted an integer in {least}..{most}, got {value!r:.80}")


def _check_flag(where: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: wanted True or False, got {value!r:.80}")


def _check_choice(where: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{where}: wanted one of {', '.join(choices)}, got {value!r:.80}")
