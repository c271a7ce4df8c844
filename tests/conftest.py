"""Profiles of hypothesis: ``dev`` unless ``--hypothesis-profile=long`` asks for the other."""

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
