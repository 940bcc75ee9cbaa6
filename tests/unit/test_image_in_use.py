"""Which image a deployment runs from: one made since is taken up, and the former goes when nobody needs it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from deployer.errors import ConflictError
from deployer.image import reference
from deployer.operations.apply import Done, ensure_container, is_current
from deployer.operations.images import remove_former
from deployer.plan import Plan
from deployer.spec import LABEL_BUILD, PREVIOUS, Container, Image, State
from tests.fake_engine import FakeEngine
from tests.unit.test_plan import FACTS, make

BUILT = Image(id="sha256:1", ref=FACTS.image_ref, names=(FACTS.image_ref,), labels={LABEL_BUILD: FACTS.image_build})
ANEW = replace(BUILT, id="sha256:2")


def running(plan: Plan, image: Image = BUILT) -> tuple[FakeEngine, Container]:
    engine = FakeEngine(stock={plan.spec.image: image})
    engine.run(plan.spec)
    return engine, engine.held[plan.name]


@pytest.mark.parametrize(
    ("image", "current"),
    [
        (BUILT, True),
        (None, True),  # its name was taken away: there is no other one
        (ANEW, False),
        # The name is another deployment's now, with another base: that is no reason to restart this one.
        (replace(ANEW, labels={LABEL_BUILD: "c" * 64}), True),
    ],
)
def test_one_that_was_made_since_is_meant_to_be_used(image: Image | None, current: bool) -> None:
    plan = make()
    _, container = running(plan)
    assert is_current(plan, container, image) is current
    assert is_current(plan, replace(container, image_id=""), image)  # an engine that does not tell
    assert not is_current(plan, replace(container, labels={}), BUILT)
    assert not is_current(plan, None, image)


@pytest.mark.parametrize("state", [State.RUNNING, State.STOPPED])
def test_a_container_of_the_former_image_is_replaced_whether_it_runs_or_not(state: State) -> None:
    plan = make()
    engine, container = running(plan)
    engine.stock[plan.spec.image] = ANEW
    engine.held[plan.name] = current = replace(container, state=state)
    with ExitStack() as rollback:
        assert ensure_container(plan, engine, current, ANEW, rollback) is Done.RECREATED
        rollback.pop_all()
    assert engine.held[plan.name].image_id == ANEW.id
    assert engine.held[plan.name + PREVIOUS].image_id == BUILT.id


def test_what_is_set_aside_takes_no_name_from_others() -> None:
    plan = make()
    engine, current = running(plan)
    stranger = replace(current, name=plan.name + PREVIOUS, labels={})
    engine.held[stranger.name] = stranger
    with ExitStack() as rollback, pytest.raises(ConflictError) as caught:
        ensure_container(make(uid=0, gid=0), engine, current, None, rollback)
    assert stranger.name in caught.value.message
    assert stranger.name in caught.value.hint
    assert engine.held == {plan.name: current, stranger.name: stranger}


@pytest.mark.parametrize(
    ("image", "stays"),
    [
        (replace(BUILT, names=()), False),
        (BUILT, True),  # it has a name: an older deployer wants it
        (replace(BUILT, names=(), labels={}), True),  # not ours
        (replace(BUILT, names=(reference("6", "a lock"),)), False),  # of plugins that this profile had
        (replace(BUILT, names=(reference("6", "the lock"),)), True),
    ],
)
def test_the_former_image_goes_when_nobody_could_name_it(image: Image, stays: bool) -> None:
    engine = FakeEngine(stock={image.id: image})
    remove_former(engine.images, image.id, ref=reference("6", "the lock"))
    assert (engine.images.find(image.id) is not None) is stays


def test_the_former_image_stays_while_a_container_was_made_from_it() -> None:
    engine, _ = running(make(), replace(BUILT, names=()))
    engine.stock[BUILT.id] = replace(BUILT, names=())
    remove_former(engine.images, BUILT.id)
    assert engine.images.find(BUILT.id) is not None
