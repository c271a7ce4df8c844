"""Profiles of hypothesis: ``dev`` unless ``--hypothesis-profile=long`` asks for the other. Directories for what tests put beside their own: temporary files, the
user's runtime directory, snapshots of triggers and of deaths. And no test leaves anything behind."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings
from support.left_behind import Places, nothing_left, shared, watch

from frzmq.transport import sockets

# shared runners stall for seconds: a deadline for one example would fail at random
# the gate decides the same each time: who looks for new histories and inputs runs the long ones
settings.register_profile("dev", deadline=None, print_blob=True, derandomize=True, database=None)
settings.register_profile(
    "long",
    deadline=None,
    print_blob=True,
    max_examples=5000,
    stateful_step_count=200,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("dev")
watch()

_FAILED = pytest.StashKey[bool]()
_PLACES = pytest.StashKey[Places]()


@pytest.fixture(autouse=True, scope="session")
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Nothing of all the tests together is left either: of the fixtures of modules and of the session."""
    tmp_path_factory.getbasetemp()  # beside, not in what is looked at
    places = request.session.stash[_PLACES] = Places()
    with pytest.MonkeyPatch.context() as patch:
        # not FRZMQ_*: programs that tests start have none of these
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_RUNTIME_DIR", str(places.runtime))
        patch.setenv("TMPDIR", str(places.temporary))
        patch.setattr(tempfile, "tempdir", str(places.temporary))
        with nothing_left(places, of_a_test=False):
            yield places
    places.remove()


@pytest.fixture(autouse=True, scope="session")
def _patient_close() -> Iterator[None]:
    """A close that comes to its end may take longer than a program would wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sockets, "CLOSE_DEADLINE_S", 20.0)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    places = request.session.stash.get(_PLACES, None)
    if fixturedef.scope == "function" or places is None:
        return (yield)
    with shared(places):
        return (yield)


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest, places: Places) -> Iterator[None]:
    with nothing_left(places, lambda: _FAILED in request.node.stash):
        yield
