"""The index type ``ordered``: the order of its bases is a priority, and it fails closed.

devpi merges the files of all bases of an index, and an installer takes the highest version, wherever it comes from.
Below an ordered index one base alone serves a project:

1. the index itself, if the project was uploaded there;
2. else the base that owns the name by a pattern of ``owns``; no upstream is asked;
3. else the first base that has the project. A base of ``only_owned`` is skipped. A base whose answer is unknown (its
   upstream is down, and no page of the project is stored) ends the search: then nobody serves the project.

Where this finds another base than the one that served the project first, nobody serves it until that is accepted,
unless a pattern of ``owns`` names the base, or the index has ``changed: allow``.

An index that inherits from an ordered index obeys it, too. devpi calls the filters of an index type only after it has
asked every base, so deployer narrows the walk over the bases itself (``narrow`` in version6.py and version7.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from devpi_server.normalized import normalize_name

from deployer.server.devpi.installed import inside, installed
from deployer.server.guard.rules import InvalidRule, checked

TYPE = "ordered"
ASKED = "deployer_has"
"""Attribute of devpi's ``xom``: a function of a mirror's name and a project, whether the mirror has the project, None
when that is unknown. It asks the upstream if need be."""
EXPIRE = "deployer_expire"
"""Attribute of devpi's ``xom``: a function of a mirror's name and a project, whose page is then asked for again."""
KNOWN = "deployer_known"
"""Attribute of devpi's ``xom``: a function of a mirror's name, the projects of which its upstream has sent a page."""
OWNERS = "deployer_owners"
"""Attribute of devpi's ``xom``: who served each project first (:class:`deployer.server.guard.owners.Owners`)."""
_ENTRY = re.compile(r"(?P<base>[^:/]+/[^:/]+):(?P<pattern>[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?)")


class Ordered:
    """The fields of the type, in the form that devpi expects of a customizer.

    ``owns``: ``user/index:pattern``. ``only_owned``: ``user/index``.
    """

    stage: Any

    def get_possible_indexconfig_keys(self) -> tuple[str, ...]:
        return ("owns", "only_owned", "changed")

    def get_default_config_items(self) -> list[tuple[str, list[str]]]:
        return [("owns", []), ("only_owned", [])]

    def normalize_indexconfig_value(self, key: str, value: Any) -> Any:
        if key == "changed":
            return _rule(key, value)
        entries = [str(entry) for entry in inside().ensure_list(value)]
        if key == "only_owned":
            return entries
        return [_checked(entry) for entry in entries]

    def validate_config(self, oldconfig: Mapping[str, Any], newconfig: Mapping[str, Any]) -> None:
        known = {self.stage.name, *newconfig.get("bases", ())}
        named = {entry.partition(":")[0] for entry in newconfig.get("owns", ())} | set(newconfig.get("only_owned", ()))
        if named - known:
            raise inside().InvalidIndexconfig([f"{', '.join(sorted(named - known))}: not a base of {self.stage.name}"])


def _rule(key: str, value: object) -> Any:
    try:
        return checked(key, value)
    except InvalidRule as error:
        raise inside().InvalidIndexconfig([str(error)]) from None


def _checked(entry: str) -> str:
    base, colon, pattern = entry.partition(":")
    normal = f"{base}{colon}{re.sub(r'[-_.]+', '-', pattern).lower()}"
    if not _ENTRY.fullmatch(normal):
        raise inside().InvalidIndexconfig([f"{entry!r} is not user/index:pattern"])
    return normal


@dataclass(frozen=True)
class Priority:
    """The order of one ordered index. Names of projects are normalised."""

    bases: tuple[str, ...]
    owners: tuple[tuple[str, re.Pattern[str]], ...]
    only_owned: frozenset[str]

    @classmethod
    def of(cls, stage: Any) -> Priority:
        config = stage.ixconfig
        return _priority(
            stage.name,
            tuple(config.get("bases", ())),
            tuple(config.get("owns", ())),
            tuple(config.get("only_owned", ())),
        )

    def owner(self, project: str) -> str | None:
        """The base, or the index itself, that owns the name by a pattern."""
        return next((base for base, pattern in self.owners if pattern.fullmatch(project)), None)


@lru_cache(maxsize=256)
def _priority(name: str, bases: tuple[str, ...], owns: tuple[str, ...], only_owned: tuple[str, ...]) -> Priority:
    patterns: dict[str, list[str]] = {base: [] for base in (name, *bases)}
    for base, _, pattern in (entry.partition(":") for entry in owns):
        patterns.setdefault(base, []).append(".*".join(map(re.escape, pattern.split("*"))))
    owners = tuple((base, re.compile("|".join(found))) for base, found in patterns.items() if found)
    return Priority(bases, owners, frozenset(only_owned))


@dataclass(frozen=True)
class Verdict:
    """Who serves one project below an index. ``open``: the answer of a base is unknown."""

    refused: frozenset[str] = frozenset()
    open: bool = False
    winners: Mapping[str, str | None] = field(default_factory=dict)
    """For each ordered index the base that serves the project; None for nobody."""
    taken: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """For each ordered index the base that served the project first, and another one that would serve it now."""


def verdict(stages: Iterable[Any], project: str) -> Verdict:
    """Apply the ordered indexes among ``stages``, an index and all that it inherits from, to ``project``."""
    refused: set[str] = set()
    winners: dict[str, str | None] = {}
    taken: dict[str, tuple[str, str]] = {}
    is_open = False
    for stage in stages:
        if stage.ixconfig["type"] == TYPE and stage.name not in refused:
            groups = _groups(stage)
            winner, unknown = _winner(stage, groups, project)
            if winner is not None and (first := _robbed(stage, project, winner)) is not None:
                taken[stage.name] = (first, winner)
                winner, unknown = None, True
            winners[stage.name] = winner
            is_open |= unknown
            refused |= {name for group in groups.values() for name in group} - set(groups.get(winner or "", ()))
    return Verdict(frozenset(refused), is_open, winners, taken)


def _robbed(stage: Any, project: str, winner: str) -> str | None:
    """The base that served the project first, if ``winner`` is another one and may not take the name over."""
    if Priority.of(stage).owner(project) == winner or stage.ixconfig.get("changed") == "allow":
        return None  # the configuration itself says so
    first: str | None = getattr(stage.xom, OWNERS).first(stage.name, project)
    return None if first == winner else first


def note_owners(stages: Iterable[Any], project: str, origins: Collection[str]) -> None:
    """Record who serves a project below the ordered indexes among ``stages``. ``origins``: the indexes whose files the
    page has; of the last base it is not known before that it has the project."""
    stages = list(stages)
    for name, winner in verdict(stages, project).winners.items():
        stage = next(one for one in stages if one.name == name)
        if winner is not None and not _groups(stage).get(winner, {}).keys().isdisjoint(origins):
            getattr(stage.xom, OWNERS).note(name, project, winner)


def _groups(stage: Any) -> dict[str, dict[str, Any]]:
    """The index itself, then each existing base, with all indexes that are served through it."""
    groups: dict[str, dict[str, Any]] = {stage.name: {stage.name: stage}}
    for base in Priority.of(stage).bases:
        found = stage.model.getstage(base)
        if found is not None:
            groups[base] = {below.name: below for below in found.sro()}
    return groups


def _winner(stage: Any, groups: Mapping[str, Mapping[str, Any]], project: str) -> tuple[str | None, bool]:
    """The base that serves the project, and whether that is unknown."""
    if stage.has_project_perstage(project):
        return stage.name, False
    priority = Priority.of(stage)
    owner = priority.owner(project)
    if owner is not None:
        return owner, False
    asked = [base for base in groups if base != stage.name and base not in priority.only_owned]
    for base in asked:
        # The last base is not asked in advance: it answers when it serves the project.
        has = True if base == asked[-1] else _has(groups[base].values(), project)
        if has is not False:
            return (base, False) if has else (None, True)
    return None, False


def _has(stages: Iterable[Any], project: str) -> bool | None:
    """Whether an index, given with all that it inherits from, has the project; None when that is unknown."""
    stages = list(stages)
    inner = verdict(stages, project)
    answers = [_has_itself(stage, project) for stage in stages if stage.name not in inner.refused]
    if any(answers):
        return True
    return None if inner.open or None in answers else False


def _has_itself(stage: Any, project: str) -> bool | None:
    if stage.ixconfig["type"] != installed().mirror:
        return bool(stage.has_project_perstage(project))
    # What a mirror has served once it goes on to own, also when its upstream has deleted it: nobody else may take over.
    if inside().has_served(stage, project):
        return True
    asked: bool | None = getattr(stage.xom, ASKED)(stage.name, project)
    return asked


def _refused(stage: Any, project: str) -> frozenset[str]:
    """The indexes, of ``stage`` and all that it inherits from, that must not serve ``project`` through it.

    One request asks several times and gets the same answer, kept in its transaction.
    """
    if stage.ixconfig["type"] == installed().mirror:
        return frozenset()
    name = str(normalize_name(project))
    transaction = stage.keyfs.tx
    if getattr(transaction, "write", False):  # the data may change during it
        return _decided(stage, name)
    known: dict[tuple[str, str], frozenset[str]] = vars(transaction).setdefault("deployer_refused", {})
    if (stage.name, name) not in known:
        known[stage.name, name] = _decided(stage, name)
    return known[stage.name, name]


def serving(stage: Any, project: str) -> tuple[Any, ...]:
    """The index and all that it inherits from, without those that must not serve the project."""
    refused = _refused(stage, project)
    return tuple(one for one in stage.sro() if one.name not in refused)


def _decided(stage: Any, project: str) -> frozenset[str]:
    stages = list(stage.sro())
    if not any(one.ixconfig["type"] == TYPE for one in stages):
        return frozenset()
    return verdict(stages, project).refused


def _listed(stage: Any, found: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """The names that each base may serve, as far as the configuration says."""
    orders = [(Priority.of(one), _groups(one)) for one in stage.sro() if one.ixconfig["type"] == TYPE]
    for base, names in found:
        for priority, groups in orders:
            names = _asked(priority, groups, base.name, names)
        yield base, names


def _asked(priority: Priority, groups: Mapping[str, Mapping[str, Any]], base: str, names: Any) -> Any:
    through = {name for name, group in groups.items() if base in group}
    itself = next(iter(groups))
    if not through or itself in through:
        return names

    def may(project: str) -> bool:
        owner = priority.owner(str(normalize_name(project)))
        return owner in through if owner is not None else not through <= priority.only_owned

    return (
        {name: names[name] for name in names if may(name)}
        if isinstance(names, Mapping)
        else frozenset(filter(may, names))
    )


def install() -> None:
    """Replace devpi's walks over bases."""
    inside().narrow(_refused, _listed)
