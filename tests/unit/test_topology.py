"""What is to be changed, as a pure function of what is and what is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.devpi.change import Kind
from deployer.devpi.converge import apply
from deployer.devpi.declared import wanted
from deployer.devpi.difference import anew, changes, compare, retyped
from deployer.devpi.fields import INDEX_FIELDS, IndexCodec, Value
from deployer.devpi.topology import EMPTY, Node, Topology
from deployer.errors import ConflictError, ProfileError
from deployer.profile.models import Index, Profile, User
from deployer.secrets import Secret

UPSTREAM = "https://packages.example.com/simple/"
NAMES = st.sampled_from(["root/a", "root/b", "dev/a", "dev/b", "ops/c"])
TEXTS = st.text("abc @:/", max_size=5)


@st.composite
def nodes(draw: st.DrawFn, bases: st.SearchStrategy[tuple[str, ...]]) -> Node:
    fields: dict[str, Value] = {"type": draw(st.sampled_from(["mirror", "stage"]))}
    if draw(st.booleans()):
        fields["volatile"] = draw(st.booleans())
    if draw(st.booleans()):
        fields["title"] = draw(TEXTS)
    if fields["type"] == "stage":
        fields["bases"] = draw(bases)
    else:
        fields["mirror_url"] = UPSTREAM + draw(TEXTS)
    return Node(fields=fields)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Any topology that devpi can hold: bases form no circle."""
    names = draw(st.lists(NAMES, unique=True))
    indexes: dict[str, Node] = {}
    for position, name in enumerate(names):
        known = names[:position]
        bases = st.lists(st.sampled_from(known), unique=True).map(tuple) if known else st.just(())
        indexes[name] = draw(nodes(bases))
    owners = {name.partition("/")[0] for name in names} | {"root"}
    users = {name: Node(fields=draw(st.dictionaries(st.sampled_from(["email", "title"]), TEXTS))) for name in owners}
    shuffled = draw(st.permutations(list(indexes)))
    return Topology(users=users, indexes={name: indexes[name] for name in shuffled})


@dataclass
class Model:
    """devpi in memory, as strict about the order of things as the real one."""

    topology: Topology
    passwords: dict[str, Secret] = field(default_factory=dict)

    def put_user(self, name: str, fields: Mapping[str, Value], *, password: Secret) -> None:
        assert name not in self.topology.users
        assert password
        self._set_user(name, fields)

    def patch_user(self, name: str, fields: Mapping[str, Value]) -> None:
        self._set_user(name, {**self.topology.users[name].fields, **fields})

    def put_index(self, name: str, fields: Mapping[str, Value]) -> None:
        assert name not in self.topology.indexes
        assert name.partition("/")[0] in self.topology.users
        self._set_index(name, fields)

    def patch_index(self, name: str, fields: Mapping[str, Value]) -> None:
        assert "type" not in fields
        self._set_index(name, {**self.topology.indexes[name].fields, **fields})

    def _set_user(self, name: str, fields: Mapping[str, Value]) -> None:
        users = {**self.topology.users, name: Node(fields=fields)}
        self.topology = Topology(users=users, indexes=self.topology.indexes)

    def _set_index(self, name: str, fields: Mapping[str, Value]) -> None:
        bases = fields.get("bases", ())
        assert isinstance(bases, tuple)
        assert set(bases) <= self.topology.indexes.keys()
        indexes = {**self.topology.indexes, name: Node(fields=fields)}
        self.topology = Topology(users=self.topology.users, indexes=indexes)


def run(model: Model, goal: Topology, *, only: int | None = None) -> int:
    done: list[str] = []
    steps = changes(model.topology, goal)[:only]
    apply(model, steps, on_change=lambda step: done.append(step.target), new_password=lambda _: Secret("secret"))
    return len(done)


@given(topologies())
def test_nothing_changes_what_is_as_wanted(topology: Topology) -> None:
    assert changes(topology, topology) == ()


@given(topologies(), topologies(), st.integers(0, 12))
def test_every_start_converges(current: Topology, goal: Topology, killed_after: int) -> None:
    same_type = {
        name: node
        for name, node in current.indexes.items()
        if name not in goal.indexes or goal.indexes[name].fields["type"] == node.fields["type"]
    }
    model = Model(Topology(users=current.users, indexes=same_type))
    run(model, goal, only=killed_after)
    run(model, goal)
    assert run(model, goal) == 0
    for name, node in goal.indexes.items():
        assert node.fields.items() <= model.topology.indexes[name].fields.items()
    assert same_type.keys() <= model.topology.indexes.keys()


@given(topologies(), topologies())
def test_another_type_is_a_conflict_and_nothing_else_is(current: Topology, goal: Topology) -> None:
    differ = any(
        goal.indexes[name].fields["type"] != current.indexes[name].fields["type"]
        for name in goal.indexes.keys() & current.indexes.keys()
    )
    if differ:
        with pytest.raises(ConflictError):
            changes(current, goal)
    else:
        changes(current, goal)


def test_default_profile() -> None:
    profile = Profile()
    goal = wanted(profile.users, profile.indexes, default_mirror_url=UPSTREAM)
    steps = changes(EMPTY, goal)
    assert [(step.kind, step.target) for step in steps] == [
        (Kind.CREATE_INDEX, "root/pypi"),
        (Kind.CREATE_INDEX, "root/dev"),
    ]
    assert steps[0].values == {"type": "mirror", "mirror_url": UPSTREAM, "mirror_no_project_list": True}
    assert steps[1].values == {
        "type": "stage",
        "volatile": False,
        "bases": ("root/pypi",),
        "acl_toxresult_upload": (),
        "mirror_whitelist": (),
    }


@pytest.mark.parametrize(("asked", "stored"), [(None, True), (False, True), (True, False)])
def test_project_list_is_decided_at_creation(asked: bool | None, stored: bool) -> None:
    goal = wanted({}, {"root/pypi": Index(type="mirror", project_list=asked)}, default_mirror_url=UPSTREAM)
    (step,) = changes(Topology(), goal)
    assert step.values["mirror_no_project_list"] is stored


def test_what_is_not_owned_is_left_alone() -> None:
    have: dict[str, Value] = {
        "type": "mirror",
        "mirror_url": "https://other.example.com/",
        "mirror_no_project_list": False,
    }
    goal = wanted({}, {"root/pypi": Index(type="mirror")}, default_mirror_url=UPSTREAM)
    (row,) = compare(Topology(indexes={"root/pypi": Node(fields=have)}), goal)
    assert row.kind is Kind.UNCHANGED


def test_unsafe_default_of_devpi_is_always_owned() -> None:
    have: dict[str, Value] = {"type": "stage", "acl_toxresult_upload": (":ANONYMOUS:",)}
    goal = wanted({}, {"root/dev": Index(type="stage")}, default_mirror_url="")
    (step,) = changes(Topology(indexes={"root/dev": Node(fields=have)}), goal)
    assert step.values == {"acl_toxresult_upload": ()}


def test_mirror_of_nothing_is_refused_only_when_it_must_be_created() -> None:
    goal = wanted({}, {"root/pypi": Index(type="mirror")}, default_mirror_url="")
    with pytest.raises(ProfileError, match="root/pypi has no url"):
        changes(Topology(), goal)
    have = Topology(indexes={"root/pypi": Node(fields={"type": "mirror", "mirror_url": UPSTREAM})})
    assert changes(have, goal) == ()


def test_another_upstream_is_told_with_what_it_means() -> None:
    have = Topology(indexes={"root/pypi": Node(fields={"type": "mirror", "mirror_url": UPSTREAM, "volatile": True})})
    index = Index(type="mirror", url="https://user:secret@other.example.com/simple/", volatile=False)
    (step,) = changes(have, wanted({}, {"root/pypi": index}, default_mirror_url=""))
    said = (
        f"volatile true -> false, mirrors https://****@other.example.com/simple/ instead of {UPSTREAM}; "
        f"pages of {UPSTREAM} are no longer used"
    )
    assert step.brief == f"root/pypi: {said}"
    assert step.text == f"modify index root/pypi: {said}"


def test_the_last_slash_of_an_upstream_makes_no_other_upstream() -> None:
    have = Topology(indexes={"root/pypi": Node(fields={"type": "mirror", "mirror_url": UPSTREAM})})
    index = Index(type="mirror", url=UPSTREAM.rstrip("/"))
    (step,) = changes(have, wanted({}, {"root/pypi": index}, default_mirror_url=""))
    assert "no longer used" not in step.text


def test_owner_of_an_index_is_made_with_it() -> None:
    goal = wanted({}, {"dev/work": Index(type="stage")}, default_mirror_url="")
    steps = changes(Topology(users={"root": Node()}), goal)
    assert [(step.kind, step.target) for step in steps] == [
        (Kind.CREATE_USER, "dev"),
        (Kind.CREATE_INDEX, "dev/work"),
    ]


def test_what_the_profile_does_not_name_is_kept_and_told() -> None:
    have = Topology(users={"root": Node(), "eve": Node()}, indexes={"eve/old": Node(fields={"type": "stage"})})
    rows = compare(have, Topology())
    assert [(row.kind, row.target) for row in rows] == [(Kind.KEPT, "eve"), (Kind.KEPT, "eve/old")]
    assert changes(have, Topology()) == ()


def test_circle_of_bases_is_the_profiles_fault() -> None:
    indexes = {
        "root/a": Index(type="stage", bases=("root/b",)),
        "root/b": Index(type="stage", bases=("root/a",)),
    }
    with pytest.raises(ProfileError, match="circular bases: root/"):
        changes(Topology(), wanted({}, indexes, default_mirror_url=""))


def test_values_are_compared_as_devpi_stores_them() -> None:
    index = Index(type="stage", acl_upload=("zoe", ":authenticated:"), mirror_whitelist=("My_Project", "a.b"))
    raw = {
        "root": {
            "username": "root",
            "indexes": {
                "dev": {
                    "type": "stage",
                    "acl_upload": [":AUTHENTICATED:", "zoe"],
                    "acl_toxresult_upload": [],
                    "mirror_whitelist": ["a-b", "my-project"],
                    "projects": ["not", "ours"],
                }
            },
        }
    }
    assert changes(Topology.parse(raw), wanted({}, {"root/dev": index}, default_mirror_url="")) == ()


def test_order_of_bases_counts() -> None:
    have = Topology(indexes={"root/dev": Node(fields={"type": "stage", "bases": ("root/a", "root/b")})})
    goal = Topology(indexes={"root/dev": Node(fields={"type": "stage", "bases": ("root/b", "root/a")})})
    (step,) = changes(have, goal)
    assert step.text == "modify index root/dev: bases [root/a, root/b] -> [root/b, root/a]"


def test_credentials_in_an_address_are_not_told() -> None:
    index = Index(type="mirror", url="https://deploy:s3cr3t@packages.example.com/simple/")
    (step,) = changes(Topology(), wanted({}, {"root/private": index}, default_mirror_url=""))
    assert "packages.example.com" in step.text
    assert "s3cr3t" not in step.text


def test_user_fields_that_are_empty_are_not_owned() -> None:
    have = Topology(users={"dev": Node(fields={"email": "old@example.com", "title": "kept"})})
    (step,) = changes(have, wanted({"dev": User(email="new@example.com")}, {}, default_mirror_url=""))
    assert step.text == "modify user dev: email old@example.com -> new@example.com"


def test_another_dialect_is_only_data() -> None:
    codec = IndexCodec(fields={"mirror_url": "remote_url"}, types={"mirror": "remote"})
    fields: dict[str, Value] = {"type": "mirror", "mirror_url": UPSTREAM, "volatile": True}
    raw = codec.encode(fields)
    assert raw == {"type": "remote", "remote_url": UPSTREAM, "volatile": True}
    assert codec.decode(raw) == fields


@pytest.mark.parametrize(
    "raw",
    [
        {"root": "no object"},
        {"root": {"indexes": []}},
        {"root": {"email": 1}},
        {"root": {"indexes": {"dev": None}}},
        {"root": {"indexes": {"dev": {"volatile": "perhaps"}}}},
        {"root": {"indexes": {"dev": {"bases": 7}}}},
        {"root": {"indexes": {"dev": {"mirror_cache_expiry": True}}}},
    ],
)
def test_what_is_not_devpis_shape_is_refused(raw: Mapping[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Topology.parse(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "indexes": st.dictionaries(st.text(max_size=3), st.dictionaries(st.sampled_from([*INDEX_FIELDS]), JSON)) | JSON
    },
)


@given(st.dictionaries(st.text(max_size=3), CONFIGS | JSON))
def test_any_json_parses_or_is_a_value_error(raw: dict[str, object]) -> None:
    try:
        topology = Topology.parse(raw)
    except ValueError:
        return
    assert topology.users.keys() == raw.keys()


def test_an_ordered_index_knows_itself_what_is_owned_below_it() -> None:
    indexes = {
        "root/pypi": Index(type="mirror", url=UPSTREAM),
        "root/private": Index(type="mirror", url=UPSTREAM, owns=("Acme_*", "shop"), only_owned=True),
        "root/team": Index(type="stage", bases=("root/private",), owns=("team-*",)),
        "root/dev": Index(type="ordered", bases=("root/team", "root/pypi"), owns=("local",)),
        "root/flat": Index(type="ordered", bases=("root/private", "root/pypi")),
    }
    made = wanted({}, indexes, default_mirror_url="").indexes
    assert made["root/dev"].fields["owns"] == (
        "root/dev:local",
        "root/team:acme-*",
        "root/team:shop",
        "root/team:team-*",
    )
    assert made["root/dev"].fields["only_owned"] == ()
    assert made["root/flat"].fields["owns"] == ("root/private:acme-*", "root/private:shop")
    assert made["root/flat"].fields["only_owned"] == ("root/private",)
    assert made["root/dev"].fields["acl_toxresult_upload"] == ()
    assert made["root/dev"].initial == {"volatile": False}
    assert "owns" not in made["root/private"].fields


def test_what_takes_uploads_is_made_anew_as_another_type_when_it_is_empty() -> None:
    old = Node(fields={"type": "stage", "bases": ("root/a", "root/b"), "acl_upload": ("dev",), "title": "ours"})
    current = Topology(
        users={"root": Node()},
        indexes={"root/dev": old, "root/full": old, "root/a": Node(fields={"type": "mirror"})},
    )
    ordered = Node(fields={"type": "ordered", "bases": ("root/a",), "title": "theirs"}, initial={"volatile": False})
    goal = Topology(users={}, indexes={"root/dev": ordered, "root/full": ordered, "root/a": old})
    assert retyped(current, goal) == ("root/dev", "root/full")  # a mirror is never taken for a stage
    removals, after, wanted = anew(current, goal, ["root/dev"])
    assert [change.text for change in removals] == ["remove index root/dev"]
    assert set(after.indexes) == {"root/full", "root/a"}
    (made,) = [
        change
        for change in compare(after, Topology(indexes={"root/dev": wanted.indexes["root/dev"]}))
        if change.kind is Kind.CREATE_INDEX
    ]
    assert made.values == {
        "type": "ordered",
        "bases": ("root/a",),
        "title": "theirs",
        "volatile": False,
        "acl_upload": ("dev",),
    }
    with pytest.raises(ConflictError, match="root/full is of type stage") as caught:
        compare(after, Topology(indexes={"root/full": ordered}))
    assert "--prune --yes" in caught.value.hint
