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
Instead = Callable[[Any, "UI", "Cluster"], "Result | None"]
"""Without a result the verb is as for a server."""

_OF_THE_PROFILE = ("up", "plan")
"""Verbs that make a cluster of what is none so far."""
REFUSED = {
    "start": ("its members are not started by hand", "run deployer up: it starts those that do not run"),
    "stop": ("its members are not stopped by hand", "run deployer down, which keeps all data, and later deployer up"),
    "move": (
        "the data of a member can't be moved",
        "run deployer down, move the directories, and change data in the profile",
    ),
    "adopt": (
        "what another program runs becomes a single server",
        "adopt it with cluster.replicas: 0, then deployer up",
    ),
    "upgrade": ("a cluster needs devpi-server 6", "run deployer down, then deployer up with cluster.replicas: 0"),
    "rollback": ("a cluster has no former version of its data", "install the former deployer, and run deployer up"),
    "compact": ("a member serves while it is a member", "run deployer down, then deployer up with cluster.replicas: 0"),
    "backup restore": ("a backup becomes a single server", "restore it with cluster.replicas: 0, then deployer up"),
    "install-service": (
        "docker and nerdctl start its members at boot",
        "with podman or processes, have the host run deployer up at boot",
    ),
    "top": ("top shows one server", "run deployer stats for the counts of all members"),
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
    from deployer.errors import DeployerError
    from deployer.operations.cluster.logs import followed, lines
    from deployer.secrets import mask
    from deployer.ui.output import Result

    pattern = _pattern(options)
    numbers = [member.number for member in cluster.members()]
    with suppress(DeployerError):
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


def _restart(options: Any, ui: UI, cluster: Cluster) -> Result:
    from deployer.operations.cluster.change import restart
    from deployer.ui.output import Result

    restart(options.profile, options.name, lock_wait=options.wait, ui=ui)
    return Result(data={"url": cluster.address(), "timings": {}})


def _stats(options: Any, ui: UI, cluster: Cluster) -> Result:
    from deployer.errors import UsageError
    from deployer.operations.cluster.stats import counts, rows, summed
    from deployer.ui.output import Result
    from deployer.ui.table import table

    if options.since:
        raise UsageError("--since is not there for a cluster", hint="leave it out")
    found = counts(cluster)
    return Result(
        data={
            "name": options.name,
            "front": None,
            "since": min(one["since"] for one in found.values()),
            "indexes": summed(list(found.values())),
            "upstreams": {},
            "missed": None,
            "members": [{"number": number, **one} for number, one in found.items()],
        },
        text=table(("index", "requests", "hits", "misses", "served", "saved"), rows(found)),
    )


def _doctor(options: Any, ui: UI, cluster: Cluster) -> Result:
    from deployer.errors import Refused, VerificationError
    from deployer.operations.cluster.doctor import checks
    from deployer.secrets import mask
    from deployer.ui.output import Result

    if options.fix:
        raise Refused("--fix is for a single server", hint="deployer up brings each member to its state")
    found = []
    for check in checks(cluster):
        found.append(check)
        cure = f"\n{'':20}-> {check.cure}" if check.cure else ""
        mark = "FAILURE" if check.level == "failure" else str(check.level)
        if not ui.silent:
            ui.line(ui.address(mask(f"{mark.ljust(8)}  {check.name.ljust(10)}{check.evidence}{cure}")))
    failed = [check.name for check in found if check.level == "failure"]
    shown = ("name", "level", "evidence", "cure")
    return Result(
        data={"checks": [{key: ui.address(str(getattr(check, key))) for key in shown} for check in found]},
        error=VerificationError(f"failed checks: {', '.join(failed)}", hint="apply the fix below each failed check")
        if failed
        else None,
    )


def _cluster_status(options: Any, ui: UI, cluster: Cluster) -> Result:
    from deployer.operations.cluster.status import status, text
    from deployer.ui.output import Result

    data, members, error = status(cluster, options.name)
    return Result(data=data, text=text(data, members), error=error)


def _tls_ca(options: Any, _ui: UI, cluster: Cluster) -> None:
    """On this host it is the same as for a server."""
    _check_https(options.name, cluster)


def _tls_renew(options: Any, ui: UI, cluster: Cluster) -> Result:
    from deployer.operations.cluster.host.renew import renew
    from deployer.ui.output import Result

    _check_https(options.name, cluster)
    found = renew(options.profile, options.name, lock_wait=options.wait, ui=ui)
    ui.step("tls", f"certificate until {found.ends:%Y-%m-%d}: {'renewed' if found.changed else 'unchanged'}")
    return Result(data={"changed": found.changed, "ends": found.ends.isoformat(), "fingerprint": found.fingerprint})


def _check_https(name: str, cluster: Cluster) -> None:
    from deployer.clusters.base import PlaceName
    from deployer.errors import Refused

    if cluster.place is not PlaceName.HOST:
        raise Refused(
            f"{name} is a cluster: its members have no HTTPS of their own",
            hint="put a proxy or an Ingress with HTTPS before it, and set network.outside_url",
        )


def _secret_show(options: Any, ui: UI, cluster: Cluster) -> Result:
    from deployer.deployment.passwords import ROOT, Passwords
    from deployer.errors import ConflictError
    from deployer.ui.output import Result

    password = cluster.password() if options.user == ROOT else Passwords(name=options.name).stored(options.user)
    if password is None:
        raise ConflictError(
            f"the password of {options.user} is not stored on this host",
            hint=f"store it: deployer secret set {options.user}",
        )
    return Result(data={"user": options.user, "password": password.reveal()}, text=password.reveal())


_VERBS: dict[str, Instead] = {
    "up": _up,
    "plan": _plan,
    "down": _down,
    "status": _status,
    "logs": _logs,
    "restart": _restart,
    "stats": _stats,
    "doctor": _doctor,
    "cluster status": _cluster_status,
    "secret show": _secret_show,
    "tls ca": _tls_ca,
    "tls renew": _tls_renew,
}
