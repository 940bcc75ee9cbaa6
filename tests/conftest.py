"""What all tests share: the same verdict each time, on however slow a machine."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# An example has no time limit, and which ones are tried does not change from run to run.
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
# To look for new ones: HYPOTHESIS_PROFILE=explore pytest tests/unit
settings.register_profile("explore", settings.get_profile("same"), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
