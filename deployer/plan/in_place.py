"""Changes that a running server takes itself, without another container. Pure.

A container is made anew for all that its engine does: the image, ports, mounts, limits, variables, the log. The other
settings are arguments of our server, which begins anew with others while nginx goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from deployer.plan.container import ONLY_MARKED
from deployer.plan.drift import strayed
from deployer.protocol import Taken
from deployer.spec import LABEL_MADE, LABEL_SPEC, LABEL_VERSION, Container, ContainerSpec, State

VERB = "serve"
_PLACE = (
    *("--serverdir", "--host", "--port", "--tls"),
    *("--member", "--primary", "--primary-url", "--secret-file", "--root-password-file", "--cluster-uuid"),
)
"""Options with a value that say where the server serves what, and whom it follows; they go with the container."""


def arguments(container: Container) -> tuple[str, ...]:
    """The arguments of our server, from its verb on; empty for another image."""
    words = container.command
    return words[words.index(VERB) :] if VERB in words else ()


def in_force(container: Container, taken: Taken | None) -> Container:
    """The container with the settings that its server has taken since it was made."""
    made = container.labels.get(LABEL_MADE)
    if taken is None or not taken.words or not made or taken.made != made:
        return container
    before = container.command[: len(container.command) - len(arguments(container))]
    labels = container.labels | {LABEL_SPEC: taken.spec}
    return replace(container, labels=labels, command=(*before, *taken.words))


def taken_by(container: Container, *, order: str) -> Taken:
    """The settings that are in force now, as an order."""
    return Taken(
        id=order,
        made=container.labels.get(LABEL_MADE, ""),
        spec=container.labels.get(LABEL_SPEC, ""),
        words=arguments(container),
    )


def takes(spec: ContainerSpec, current: Container) -> bool:
    """Whether the running ``current`` becomes as ``spec`` says by other arguments of its server alone."""
    words = arguments(current)
    as_it_is = replace(spec, command=words)
    return (
        current.state is State.RUNNING
        and LABEL_MADE in current.labels
        and tuple(_place(words)) == tuple(_place(spec.command))
        and current.labels.get(LABEL_SPEC) == as_it_is.sha256()
        and all(current.labels.get(name) == value for name, value in spec.labels if name != LABEL_VERSION)
        and not strayed(as_it_is, current)
    )


def _place(words: tuple[str, ...]) -> Iterator[str]:
    yield words[0] if words else ""
    yield from (value for option, value in pairwise(words) if option in _PLACE)
    yield from (word for word in words if word == ONLY_MARKED)
