from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frzmq.errors import ConfigError
from frzmq.triggers import MAX_TRIGGERS, Trigger, parse_trigger, parse_triggers

MS, S = 10**6, 10**9


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("slow 500ms", {"on": "slow", "over_ns": 500 * MS}),
        ("slow p99", {"on": "slow", "percentile": 99, "factor": 1.0}),
        ("slow p95*2.5 span=query*", {"on": "slow", "percentile": 95, "factor": 2.5, "target": "span", "pattern": "query*"}),
        ('slow 1s operation="GET /cart"', {"on": "slow", "over_ns": S, "target": "operation", "pattern": "GET /cart"}),
        ("error", {"on": "error"}),
        ("log warning logger=app.*", {"on": "log", "level": 30, "target": "logger", "pattern": "app.*"}),
        ("signal SIGUSR2", {"on": "signal", "signal": int(signal.SIGUSR2)}),
        ("when busy", {"on": "when"}),
        (
            "error before=30s after=500ms cooldown=2m per_hour=3 team=shop tier=1",
            {
                "on": "error", "before_ns": 30 * S, "after_ns": 500 * MS, "cooldown_ns": 120 * S, "per_hour": 3,
                "labels": (("team", "shop"), ("tier", "1")),
            },
        ),
    ],
)  # fmt: skip
def test_parse_trigger_good_text_is_what_it_says(text: str, wanted: dict[str, object]) -> None:
    assert parse_trigger(text) == Trigger(text=text, **wanted)  # type: ignore[arg-type]  # of the names above


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wanted slow DURATION, slow pNN, error, log LEVEL, or signal NAME, got ''"),
        ("slowly 5s", "wanted slow DURATION"),
        ("slow", "wanted slow DURATION"),
        ("slow soon", "slow: wanted a duration such as 30s"),
        ("slow 0s", "slow: wanted a duration above 0"),
        ("slow p0", "slow: wanted a percentile such as p99"),
        ("log LOUD", "log: wanted one of DEBUG, INFO, WARNING, ERROR, CRITICAL, got 'LOUD'"),
        ("signal SIGKILL", "signal: wanted one that can be caught, such as SIGUSR2, got 'SIGKILL'"),
        ("signal 12", "signal: wanted one that can be caught"),
        ("error span=x", "error: wanted operation, got span=x"),
        ("slow 1s span=x operation=y", "slow: wanted operation or span, got"),
        ("signal SIGUSR2 logger=x", "signal: wanted no pattern, got logger=x"),
        ("error after=soon", "after: wanted a duration"),
        ("error per_hour=0", "per_hour: wanted a number in 1..1000000, got '0'"),
        ("error a=1 a=2", "wanted options NAME=VALUE, each once, got 'a=2'"),
        ("error a=", "wanted options NAME=VALUE"),
        ("error team=x slow", "wanted the condition before its options"),
        ("error team='x", "No closing quotation"),
        ("error\x07", "wanted at most 1024 printable characters"),
    ],
)
def test_parse_trigger_bad_text_raises_with_the_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_trigger(text, "here")
    assert str(caught.value).startswith(f"here: {message}")


def test_parse_triggers_names_the_one_that_is_wrong() -> None:
    assert [t.on for t in parse_triggers(" slow 1s ; error;", "x")] == ["slow", "error"]
    with pytest.raises(ConfigError, match=r"^FRZMQ_TRIGGERS: trigger 2: wanted slow DURATION"):
        parse_triggers("error; oops", "FRZMQ_TRIGGERS")
    with pytest.raises(ConfigError, match=r"^x: wanted at most 64 triggers, got 65$"):
        parse_triggers(";".join(["error"] * (MAX_TRIGGERS + 1)), "x")


def test_parse_triggers_takes_no_predicate() -> None:
    with pytest.raises(ConfigError, match=r"a predicate is frzmq\.trigger's$"):
        parse_triggers("when busy", "x")


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["slow", "p99", "1s", "error", "a=b", "'", "span=*", ";"])).map(" ".join)
)
def test_parse_triggers_any_text_is_triggers_or_a_config_error(text: str) -> None:
    try:
        found = parse_triggers(text, "x")
    except ConfigError:
        return
    assert all(trigger.text.strip() == trigger.text for trigger in found)
