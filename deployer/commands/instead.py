"""What a verb does when its deployment is a cluster. The one place where the command line tells the two apart.

A verb that is not named here goes to the server of the primary, like any server: users, indexes, packages, caches,
tokens, backups (:func:`deployer.deployment.find.find`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from deployer.operations.recorded import DEFAULT_PROFILE

if TYPE_CHECKING:
    from deployer.clusters.base import Cluster
    from deployer.profile.load import Loaded
    from deployer.ui.output import UI, Result

Run = Callable[[Any, "UI"], "Result"]
Instead = Callable[[Any, "UI", "Cluster"], "Result"]

_OF_THE_PROFILE = ("up", "plan")
"""Verbs that make a cluster of what is none so far."""
REFUSED = {
    "start": ("a cluster is not stopped and started as one", "deployer up starts the members that do not run"),
    "stop": (
        "a cluster is not stopped and started as one",
        "deployer down keeps all data, and deployer up brings it back",
    ),
    "move": (
        "the data of a member is not moved",
        "back it up, and restore it where it is to be: deployer backup create",
    ),
    "adopt": (
        "what runs already becomes a single server at first",
        "adopt it with cluster.replicas: 0, then: deployer up",
    ),
    "upgrade": (
        "a cluster needs devpi-server 6",
        "to upgrade: deployer down, then deployer upgrade with cluster.replicas: 0",
    ),
    "rollback": ("a cluster has no former server to go back to", "run the former deployer, and: deployer up"),
    "compact": (
        "the database of a member is not written anew",
        "deployer down, then deployer up with cluster.replicas: 0",
    ),
    "restore": ("a backup is restored into a single server", "restore it with cluster.replicas: 0, then: deployer up"),
    "install-service": ("the members of a cluster are started by their engine", "nothing is needed at boot"),
    "tls ca": ("the balancer of a cluster has no HTTPS", "put a proxy with HTTPS before it: network.outside_url"),
    "tls renew": ("the balancer of a cluster has no HTTPS", "put a proxy with HTTPS before it: network.outside_url"),
    "top": ("top shows one server", "deployer stats shows the counts of all members"),
}
"""Verbs that mean nothing for a cluster: why, and what to do."""


def clustered(verb: str, run: Run) -> Run:
    """The verb as ``run`` does it for a server, or its other form for a cluster."""

    def either(options: Any, ui: UI) -> Result:
        found = _instead(verb, options, ui)
        return run(options, ui) if found is None else found

    return either


def _instead(verb: str, options: Any, ui: UI) -> Result | None:
    """The result of a verb for a cluster; None where the deployment is none."""
    other, name = _VERBS.get(verb), getattr(options, "name", "")
    if not name or (other is None and verb not in REFUSED):
        return None
    from deployer.deployment.cluster import read_kept
    from deployer.deployment.record import read_applied

    kept = read_kept(name)
    # A host that knows nothing of the deployment, such as a job of CI, learns from the profile where the members run.
    unknown = kept is None and other is not None and read_applied(name) is None
    loaded = _profile(options, verb) if verb in _OF_THE_PROFILE or unknown else None
    if kept is None and loaded is None:
        return None
    from deployer.operations.cluster import places

    if loaded is not None and places.place_of(loaded.profile) is None:
        if kept is not None and verb in _OF_THE_PROFILE:
            from deployer.operations.cluster.single import leave

            leave(name, ui, keeping=verb == "plan")
        return None
    if other is None:
        from deployer.errors import Refused

        why, cure = REFUSED[verb]
        raise Refused(f"{name} is a cluster: {why}", hint=cure)
    cluster = places.open_wanted(loaded, name, ui) if loaded is not None else places.open_kept(name, ui)
    assert cluster is not None  # noqa: S101 - it is kept, or wanted
    return other(options, ui, cluster)


def _profile(options: Any, verb: str) -> Loaded | None:
    """The profile of the command line; None where it names none, so that no cluster elsewhere can be meant."""
    from deployer.commands import Overrides, overrides

    own = overrides(options) if isinstance(options, Overrides) and verb in _OF_THE_PROFILE else ()
    if options.profile == DEFAULT_PROFILE and not own:
        return None
    from deployer.profile.load import load

    return load(options.profile, overrides=own)


def _up(options: Any, ui: UI, cluster: Cluster) -> Result:
    from deployer.commands import overrides
    from deployer.errors import Refused
    from deployer.operations.cluster.up import up
    from deployer.ui.output import Result

    if options.prune and not options.yes:
        raise Refused("--prune removes users and indexes that are not in the profile", hint="confirm with --yes")
    if options.keep or options.new_data:
        raise Refused(
            f"--{'keep' if options.keep else 'new-data'} is for a single server",
            hint="leave it out; to begin anew: deployer down --purge",
        )
    done = up(
        options.profile,
        options.name,
        overrides=overrides(options),
        ui=ui,
        prune=options.prune,
        clients=not options.no_pip,
        lock_wait=options.wait,
    )
    warmed = None
    if done.profile.warm and not options.no_warm:
        from deployer.operations.warm.command import keep_warm

        warmed = keep_warm(options.name, ui)
    changes = [change for change in done.client_changes if change.changed]
    return Result(
        data={
            "url": done.url,
            "simple_url": done.simple_url,
            "engine": done.engine,
            "network": "host" if done.place == "host" else str(done.place),
            "server": "changed" if done.applied else "unchanged",
            "changes": [
                *done.applied,
                *(change.text for change in done.changes if change.due),
                *(f"{change.path} written" for change in changes),
            ],
            "timings": {stage: round(seconds, 3) for stage, seconds in done.timings.items()},
            "client_files": [str(change.path) for change in done.client_changes],
            "warmed": warmed
            and {"cached": len(warmed.cached), "fetched": len(warmed.fetched), "missing": len(warmed.missing)},
            "members": [one.data for one in done.members],
        },
        text=done.simple_url,
    )


def _plan(options: Any, ui: UI, cluster: Cluster) -> Result:
    from deployer.commands import overrides
    from deployer.errors import DriftError
    from deployer.operations.cluster.plan import steps
    from deployer.profile.load import load
    from deployer.ui.output import Result

    loaded = load(options.profile, overrides=overrides(options))
    found = steps(cluster, loaded, options.name)
    changing = [name for name, (_, changes) in found.items() if changes]
    url = cluster.address()
    from deployer.operations.cluster.up import simple_url

    return Result(
        data={
            "engine": loaded.profile.engine,
            "argv": [],
            "spec_sha256": "",
            "url": url,
            "simple_url": simple_url(url, loaded.profile),
            "steps": {name: lines for name, (lines, _) in found.items()},
            "changes": changing,
        },
        text="\n".join(f"{name.ljust(10)}{line}" for name, (lines, _) in found.items() for line in lines),
        error=DriftError(f"up would change: {', '.join(changing)}", hint="deployer up") if changing else None,
    )


def _down(options: Any, ui: UI, cluster: Cluster) -> Result:
    from deployer.deployment.lock import hold
    from deployer.operations.cluster.down import down
    from deployer.ui.output import Result

    with hold(options.name, wait=options.wait):
        done = down(cluster, options.name, purging=options.purge, yes=options.yes, ui=ui)
    return Result(
        data={"removed": list(done.removed), "data_kept": done.kept, "purged": done.purged},
        warnings=tuple(done.warnings),
    )


def _status(options: Any, ui: UI, cluster: Cluster) -> Result:
    from deployer.operations.cluster.status import status, text
    from deployer.ui.output import Result

    data, members, error = status(cluster, options.name)
    if options.check and error is None:
        from deployer.operations.cluster.plan import drift

        error = drift(options.profile, options.name, data, ui)
    return Result(data=data, text=text(data, members), error=error)


def _logs(options: Any, ui: UI, cluster: Cluster) -> Result:
    from deployer.operations.cluster.logs import followed, lines
    from deployer.secrets import mask
    from deployer.ui.output import Result

    pattern = _pattern(options)
    numbers = [member.number for member in cluster.members()]
    with suppress(Exception):
        cluster.password()  # from now on known to mask()
    chosen = numbers if options.member is None else [options.member]
    tail = None if options.grep else options.lines
    if options.follow:
        for line in followed(cluster, chosen, since=options.since, tail=tail):
            if pattern.search(line):
                ui.line(mask(line))
        return Result()
    found = [mask(line) for line in lines(cluster, chosen, since=options.since, tail=tail) if pattern.search(line)]
    if options.grep and options.lines is not None:
        found = found[max(0, len(found) - options.lines) :]
    return Result(data={"lines": found, "changes": []}, text="\n".join(found))


def _pattern(options: Any) -> Any:
    import re

    from deployer.errors import UsageError

    if options.follow and options.json:
        raise UsageError("--follow and --json exclude each other: a followed log has no end", hint="leave out --follow")
    if options.changes or options.refused:
        raise UsageError("--changes and --refused are not there for a cluster", hint="leave them out")
    try:
        return re.compile(options.grep)
    except re.error as error:
        raise UsageError(f"--grep: {error}") from None


_VERBS: dict[str, Instead] = {"up": _up, "plan": _plan, "down": _down, "status": _status, "logs": _logs}
