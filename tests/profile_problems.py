"""What is told of a profile that is wrong."""

from __future__ import annotations

import pytest

from deployer.errors import ProfileError
from deployer.profile.load import load


def problems(ref: str, **kwargs: object) -> list[str]:
    """Every problem line of a profile that must be refused."""
    with pytest.raises(ProfileError) as caught:
        load(ref, **kwargs)  # type: ignore[arg-type]
    error = caught.value
    return list(error.details) or [f"{error.message} ({error.hint})"]
