"""Profiles of hypothesis: ``dev`` unless ``--hypothesis-profile=long`` asks for the other. And where no test says it, snapshots of triggers and of deaths
go to a temporary directory."""

import pytest
from hypothesis import HealthCheck, settings

# shared runners stall for seconds: a deadline for one example would fail at random
settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile(
    "long",
    deadline=None,
    print_blob=True,
    max_examples=5000,
    stateful_step_count=200,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("dev")


@pytest.fixture(autouse=True, scope="session")
def _state_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    # not FRZMQ_SNAPSHOTS: programs that tests start have none of these
    pytest.MonkeyPatch().setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
