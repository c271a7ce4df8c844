"""What is recorded of a program that calls nothing: its log records and the exceptions that nothing caught."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator

import pytest
from support.records import recording, take

import frzmq
from frzmq.tracer import instrument
from frzmq.tracer.instrument import suppressed
from frzmq.tracer.redact import is_secret
from frzmq.wire.codec import Value


class Loud:
    """Says nothing of itself to us."""

    def __str__(self) -> str:
        raise AssertionError

    __repr__ = __str__


@pytest.fixture
def hooks() -> Iterator[None]:
    before = (logging.Logger.callHandlers, sys.excepthook, threading.excepthook)
    instrument.install()
    try:
        yield
    finally:
        instrument.uninstall()
        assert (logging.Logger.callHandlers, sys.excepthook, threading.excepthook) == before


@pytest.fixture
def logger() -> logging.Logger:
    found = logging.Logger("app", logging.INFO)  # noqa: LOG001  # one that no other test knows
    found.addHandler(logging.NullHandler())
    return found


def logs(taken: list[tuple[Value, ...]]) -> list[tuple[Value, ...]]:
    return [row[1:4] for row in taken if row[0] == "log"]


@pytest.mark.usefixtures("hooks")
def test_log_records_are_those_that_the_level_and_the_filters_let_through(logger: logging.Logger) -> None:
    logger.addFilter(lambda record: "no" not in record.getMessage())
    with recording() as buffer:
        logger.debug("quiet")
        logger.info("no")
        logger.info("yes")
        logger.warning("%s of %d", "two", 3)
        assert logs(take(buffer)) == [(20, "app", "yes"), (30, "app", "two of 3")]


@pytest.mark.usefixtures("hooks")
def test_log_message_is_bounded_and_runs_nothing_of_the_programs(logger: logging.Logger) -> None:
    with recording() as buffer:
        logger.info("x" * 100_000)
        logger.info("%s and %r", Loud(), "me")
        logger.info(Loud())
        logger.info("%d", Loud())
        logger.info("%s %s", "one only")  # noqa: PLE1206  # as programs do
        messages = [message for _, _, message in logs(take(buffer))]
        assert isinstance(messages[0], str)
        assert 4000 < len(messages[0]) <= 4096
        assert messages[1:] == ["Loud and 'me'", "Loud", "%d", "%s %s"]


@pytest.mark.usefixtures("hooks")
def test_log_of_an_exception_names_its_type_and_place(logger: logging.Logger) -> None:
    with recording() as buffer:
        try:
            dict[str, int]()["k"]
        except KeyError:
            logger.exception("lost")
        [row] = [row for row in take(buffer) if row[0] == "log"]
        attributes = row[4]
        assert isinstance(attributes, dict)
        assert attributes["exception"] == "KeyError"
        assert str(attributes["at"]).startswith(f"{__file__}:")


@pytest.mark.usefixtures("hooks")
def test_exception_that_no_task_caught_is_recorded_and_told_as_before() -> None:
    told: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(0.001)

    with recording() as buffer:
        asyncio.run(main())
        rows = [row[1:4] for row in take(buffer) if row[0] == "exception"]
        assert rows == [("ZeroDivisionError", "integer division or modulo by zero", "asyncio")]
    assert [type(error) for error in told] == [ZeroDivisionError]


@pytest.mark.usefixtures("hooks")
def test_exception_of_a_thread_says_its_arguments_without_asking_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        raise ValueError("bad", 3, Loud())

    with recording() as buffer:
        thread = threading.Thread(target=work)
        monkeypatch.setattr(instrument.exceptions._hooks["thread"], "original", lambda _: None)
        thread.start()
        thread.join()
        [row] = [row for row in take(buffer) if row[0] == "exception"]
        assert row[1:4] == ("ValueError", "bad, 3, Loud", "thread")
        assert str(row[4]).endswith("work")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True), ("DB_PASSWORD", True), ("http.request.header.authorization", True), ("set-cookie", True), ("x-api-key", True),
        ("auth", True), ("user.pin", True), ("author", False), ("pinned", False), ("spinach", False), ("tokens", True), ("user", False),
    ],
)  # fmt: skip
def test_secret_names(name: str, secret: bool) -> None:
    assert is_secret(name) is secret


@pytest.fixture
def suppressing() -> Iterator[None]:
    before = (logging.Logger.debug, logging.Logger.info, logging.Logger.log)
    suppressed.install()
    suppressed.install()
    try:
        yield
    finally:
        suppressed.uninstall()
        assert (logging.Logger.debug, logging.Logger.info, logging.Logger.log) == before


@pytest.mark.usefixtures("hooks", "suppressing")
def test_suppressed_calls_inside_of_an_operation_are_kept_unformatted(logger: logging.Logger) -> None:
    with recording() as buffer:
        logger.debug("outside")
        with frzmq.operation("work"):
            logger.debug("%s of %d", Loud(), 3)
            logger.log(5, "deep")
            logger.debug("%(user)s %(password)s", {"user": "me", "password": "p"})
            logger.debug(Loud())
            logger.info("let through")
        rows = [row for row in take(buffer) if str(row[0]).startswith("log")]
    assert [row[:5] for row in rows[:4]] == [
        ("log_suppressed", 10, "app", "%s of %d", {"0": "Loud", "1": 3}),
        ("log_suppressed", 5, "app", "deep", None),
        ("log_suppressed", 10, "app", "%(user)s %(password)s", {"user": "me", "password": "[redacted]"}),
        ("log_suppressed", 10, "app", "Loud", None),
    ]
    assert [row[:4] for row in rows[4:]] == [("log", 20, "app", "let through")]


@pytest.mark.usefixtures("suppressing")
def test_suppressing_leaves_the_place_of_enabled_calls_as_it_is() -> None:
    found = logging.Logger("app", logging.DEBUG)  # noqa: LOG001  # one that no other test knows
    places: list[tuple[str, str]] = []

    class Places(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            places.append((record.pathname, record.funcName))

    found.addHandler(Places())
    found.debug("1")
    found.info("2")
    found.log(30, "3")
    found.warning("4")
    assert places == [(__file__, "test_suppressing_leaves_the_place_of_enabled_calls_as_it_is")] * 4


def test_logs_given_back_are_not_recorded_again(logger: logging.Logger) -> None:
    instrument.install(with_exceptions=False, with_threads=False)
    try:
        with recording() as buffer:
            logger.info("new")
            logger.info("old", extra={instrument.logs.GIVEN_BACK: "ab"})
            assert logs(take(buffer)) == [(20, "app", "new")]
    finally:
        instrument.uninstall()
