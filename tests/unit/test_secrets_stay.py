"""Secrets of the command line and of the environment go no further than they must."""

from __future__ import annotations

import pytest

from deployer.errors import UsageError
from deployer.operations import backup_remote, lifetime
from deployer.profile.models import Remote


def test_a_password_in_place_of_a_reference_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        backup_remote.chosen(Remote(), "/srv/backups", "hunter2", ())
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_the_keeper_gets_no_passwords_of_an_engine() -> None:
    env = {
        "DOCKER_HOST": "unix:///run/d.sock",
        "DOCKER_AUTH_CONFIG": "{}",
        "DOCKER_PASSWORD": "hunter2",
        "PATH": "/bin",
    }
    assert lifetime.environment(env) == {"DOCKER_HOST": "unix:///run/d.sock", "PATH": "/bin"}
