import copy
import pickle

import pytest

from frzmq import errors
from frzmq.errors import (
    ConfigError,
    ControlCode,
    ControlError,
    FrzmqError,
    SnapshotActiveError,
    SnapshotError,
    SnapshotWriteError,
    StateError,
    WireError,
)


def test_errors_tree_is_the_documented_one() -> None:
    classes = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)}
    assert {each: each.__base__ for each in classes} == {
        FrzmqError: Exception,
        WireError: FrzmqError,
        SnapshotError: WireError,
        StateError: FrzmqError,
        ConfigError: StateError,
        SnapshotActiveError: StateError,
        SnapshotWriteError: FrzmqError,
        ControlError: FrzmqError,
    }
    assert errors.__doc__ is not None
    assert {each.__name__ for each in classes if each.__name__ not in errors.__doc__} == set()


@pytest.mark.parametrize(
    "again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copied", "pickled"]
)
def test_control_error_copied_keeps_code_and_message(again: object) -> None:
    assert callable(again)
    error = again(ControlError(ControlCode.BUSY, "flush: one more"))
    assert (type(error), error.code, str(error)) == (ControlError, ControlCode.BUSY, "flush: one more")


def test_snapshot_write_error_pickled_keeps_count_and_message() -> None:
    error = pickle.loads(pickle.dumps(SnapshotWriteError("disk full", 4096)))
    assert (type(error), error.written_bytes, str(error)) == (SnapshotWriteError, 4096, "disk full")


def test_control_code_values_are_the_names_in_small_letters() -> None:
    assert {code.name.lower() for code in ControlCode} == {code.value for code in ControlCode}
