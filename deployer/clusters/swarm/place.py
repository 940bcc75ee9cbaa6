"""A Docker Swarm as the place of a cluster: implements :class:`deployer.clusters.base.Cluster`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from deployer.clusters.base import Identity, Member, PlaceName, Wanted, in_image
from deployer.clusters.swarm import names
from deployer.clusters.swarm.answers import Service, Task, current, member_of, service_of, task_of
from deployer.clusters.swarm.checks import check, warnings
from deployer.clusters.swarm.difference import Difference, compare, part_of
from deployer.clusters.swarm.docker import Docker, no_manager
from deployer.clusters.swarm.objects import Kept, Objects
from deployer.clusters.swarm.stack import Ground, constraint, stack, text
from deployer.engines.answers import at
from deployer.engines.remote import far
from deployer.errors import ConflictError, EngineError, EngineUnreachable, NotReadyError, Refused
from deployer.host.runner import Runner
from deployer.plan.container import OWN_DATA
from deployer.protocol import IMAGE_PYTHON, parsed
from deployer.secrets import Secret
from deployer.spec import LABEL_NAME, ExecResult

PATIENCE = timedelta(minutes=10)
"""For a replaced replica to be in sync, and for anything that Swarm does by itself."""
PAUSE = 0.5
EMPTY = (
    "import pathlib, shutil\n"
    f"for one in pathlib.Path({OWN_DATA!r}).iterdir():\n"
    "    shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()\n"
)


class SwarmCluster:
    """The cluster ``name``. ``context``: docker's context of a manager; empty: the current one."""

    place = PlaceName.SWARM

    def __init__(
        self,
        name: str,
        *,
        context: str = "",
        runner: Runner | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._name, self._clock, self._sleep = name, clock, sleep
        self._docker = Docker(context, runner or Runner())
        self._objects = Objects(name, self._docker)

    # What there is

    def probe(self) -> str:
        found = self._info()
        return f"swarm {found['ServerVersion']}, node {found['Name']} of {at(found, 'Swarm', 'Nodes')}"

    def _info(self) -> dict[str, Any]:
        found = self._docker.json(self._docker.checked("info", "--format", "{{json .}}"))
        swarm = at(found, "Swarm") or {}
        if swarm.get("LocalNodeState") != "active" or not swarm.get("ControlAvailable"):
            raise no_manager(self._docker.context, worker=swarm.get("LocalNodeState") == "active")
        return dict(found)

    def identity(self) -> Identity | None:
        kept = self._objects.kept()
        return kept.identity if kept is not None else None

    def remember(self, identity: Identity) -> None:
        kept = self._objects.kept() or Kept(home=str(at(self._info(), "Swarm", "NodeID") or ""))
        self._objects.keep(replace(kept, primary=identity.primary, uuid=identity.uuid))
        for service in self._services():
            if service.number is not None and service.labels.get(names.LABEL_UUID) != identity.uuid:
                # A label of a service replaces no task.
                self._update(service.part, f"--label-add={names.LABEL_UUID}={identity.uuid}")

    def _services(self) -> list[Service]:
        rows = self._docker.rows("service", "ls", f"--filter=label={names.NAMESPACE}={self._name}")
        found = self._docker.inspected("service", [str(row.get("ID")) for row in rows])
        return sorted((service_of(raw, self._name) for raw in found), key=lambda one: (one.number is None, one.part))

    def _service(self, number: int) -> Service:
        for service in self._services():
            if service.number == number and service.ours:
                return service
        raise ConflictError(f"{self._name} has no member {number}", hint="deployer cluster status")

    def _tasks(self, services: Sequence[Service]) -> dict[str, list[Task]]:
        """The tasks of each service, by its ID."""
        found: dict[str, list[Task]] = defaultdict(list)
        if services:
            rows = self._docker.rows("service", "ps", "--no-trunc", *(service.id for service in services))
            for raw in self._docker.inspected("task", [str(row.get("ID")) for row in rows]):
                found[(task := task_of(raw)).service].append(task)
        return found

    def _nodes(self) -> Mapping[str, str]:
        """The names of nodes, by ID."""
        return {str(row.get("ID")): str(row.get("Hostname")) for row in self._docker.rows("node", "ls")}

    def members(self) -> tuple[Member, ...]:
        services = [service for service in self._services() if service.ours and service.number is not None]
        tasks, nodes = self._tasks(services), self._nodes() if services else {}
        return tuple(member_of(service, tasks[service.id], nodes, self._name) for service in services)

    # What is wanted

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        check(wanted)
        self._info()
        return self._compared(wanted)[1].lines

    def _compared(self, wanted: Wanted) -> tuple[dict[str, Any], Difference, list[Service]]:
        services = self._services()
        if foreign := [service.part for service in services if not service.ours]:
            raise ConflictError(
                f"the stack {self._name} has services that are not deployer's: {', '.join(foreign)}",
                hint="choose another name with --name",
            )
        ground = self._ground(wanted, services)
        self._check_nodes(wanted, services, ground)
        document = stack(wanted, ground)
        return document, compare(document, services, wanted.identity.primary), services

    def _ground(self, wanted: Wanted, services: Sequence[Service]) -> Ground:
        kept, versions = self._objects.kept(), self._objects.secrets()
        home = kept.home if kept is not None and kept.home else str(at(self._info(), "Swarm", "NodeID") or "")
        promoted = any(one.labels.get(names.LABEL_PRIMARY) != str(wanted.identity.primary) for one in services)
        stopped = (one.number for one in services if promoted and one.number is not None and not one.replicas)
        return Ground(
            home=home,
            subnet=self._objects.subnet() or Ground().subnet,
            secrets={secret: version or 1 for secret, version in versions.items()},
            # The former primary: it follows once it has been renewed.
            stopped=frozenset(number for number in stopped if number != wanted.identity.primary),
        )

    def _check_nodes(self, wanted: Wanted, services: Sequence[Service], ground: Ground) -> None:
        """Raise Refused for a node that is not there, or one that is not the primary's."""
        nodes, profile = self._nodes(), wanted.profile
        known = list(nodes.values())
        for node in dict.fromkeys(profile.swarm.nodes):
            if known.count(node) != 1:
                why = "has several nodes" if node in known else "has no node"
                raise Refused(
                    f"the swarm {why} named {node}", hint=f"set swarm.nodes to some of: {', '.join(sorted(set(known)))}"
                )
        leader = next((one for one in services if one.number == wanted.identity.primary), None)
        if leader is None:
            return
        node, former = (
            nodes.get(value, value)
            for value in (
                constraint(profile, ground, wanted.identity.primary).rpartition(" ")[2],
                leader.constraint.rpartition(" ")[2],
            )
        )
        if node != former:
            raise Refused(
                f"member {wanted.identity.primary} is the primary, and its volume is at the node {former}, not {node}",
                hint="promote another member first: deployer cluster promote MEMBER",
            )

    # Effects

    def apply(self, wanted: Wanted, on_line: Callable[[str], None]) -> bool:
        check(wanted)
        info = self._info()
        for line in warnings(wanted):
            on_line(line)
        if self._objects.kept() is None:
            self._compared(wanted)  # every refusal before the first effect
            self._objects.keep(Kept(home=str(at(info, "Swarm", "NodeID") or "")))
        self._objects.have_secrets()
        self._objects.have_network()
        document, due, services = self._compared(wanted)
        if due.made:
            on_line(f"creating {', '.join(due.made)}")
            self._deploy(wanted, document, due.made)
        leaders = {service.labels.get(names.LABEL_PRIMARY) for service in services}
        promoted = bool(leaders) and leaders != {str(wanted.identity.primary)}
        for part in due.replaced:
            on_line(f"replacing {part}")
            self._deploy(wanted, document, (part,))
            if document["services"][part]["deploy"]["replicas"]:
                self._await_replaced(part, document["services"][part]["labels"], on_line)
                if part.startswith("member-") and not promoted and part != names.member(wanted.identity.primary):
                    self._await_synced(int(part.partition("-")[2]), on_line)
        for part in due.removed:
            on_line(f"removing {part}")
            self._docker.checked("service", "rm", names.full(self._name, part))
        return bool(due.lines)

    def _deploy(self, wanted: Wanted, document: Mapping[str, Any], parts: Sequence[str]) -> None:
        # An image of a registry is pinned by its digest; one that is on the nodes alone has none.
        resolving = (
            ("--resolve-image=changed", "--with-registry-auth")
            if wanted.profile.cluster.image
            else ("--resolve-image=never",)
        )
        given = text(part_of(document, parts)).encode()
        self._docker.told("stack", "deploy", "--compose-file=-", *resolving, self._name, stdin=given)

    def _await_replaced(self, part: str, labels: Mapping[str, str], on_line: Callable[[str], None]) -> None:
        """Wait until the new task of a service is healthy. Raises NotReadyError."""
        digest = next(value for key, value in labels.items() if key.endswith("sha256"))

        def stands() -> bool:
            service = next((one for one in self._services() if one.part == part), None)
            if service is None or service.failed:
                raise NotReadyError(
                    f"{part} was rolled back: {service.update if service is not None else 'it was removed'}",
                    hint=f"docker service ps --no-trunc {names.full(self._name, part)}",
                )
            return any(task.runs and task.digest == digest for task in self._tasks([service])[service.id])

        if not self._until(stands):
            raise NotReadyError(f"{part} did not become healthy", hint=f"docker service ps {self._name}_{part}")

    def _await_synced(self, number: int, on_line: Callable[[str], None]) -> None:
        """Wait until a replica has what the primary has. Raises NotReadyError."""
        told = ""

        def synced() -> bool:
            nonlocal told
            done = self.exec(number, ("member", "status"))
            told = done.stderr.strip()
            if done.returncode:
                return False
            try:
                return at(parsed(done.stdout), "synced") is True
            except ValueError:
                return False

        try:
            if not self._until(synced):
                raise NotReadyError(
                    f"member {number} is not in sync: {told[-300:]}", hint=f"deployer logs --member {number}"
                )
        except EngineUnreachable as error:  # it is healthy, and at a node that can't be asked
            on_line(f"member {number} is healthy; whether it is in sync is not known here: {error}")

    def _until(self, stands: Callable[[], bool], patience: timedelta = PATIENCE) -> bool:
        until = self._clock() + patience.total_seconds()
        while not stands():
            if self._clock() > until:
                return False
            self._sleep(PAUSE)
        return True

    def _update(self, part: str, *words: str) -> None:
        self._docker.checked("service", "update", "--detach=true", "--quiet", *words, names.full(self._name, part))

    def restart(self, number: int) -> None:
        service = self._service(number)
        former = {task.id for task in self._tasks([service])[service.id]}
        self._update(service.part, "--force", "--replicas=1")
        if not self._until(
            lambda: any(one.runs and one.id not in former for one in self._tasks([service])[service.id])
        ):
            raise NotReadyError(f"member {number} did not become healthy", hint=f"deployer logs --member {number}")

    def stop(self, number: int, *, timeout: timedelta) -> None:
        service = self._service(number)
        self._update(service.part, "--replicas=0")
        if not self._until(lambda: all(one.gone for one in self._tasks([service])[service.id]), timeout):
            task = current(self._tasks([service])[service.id])
            node = self._nodes().get(task.node, task.node) if task is not None else ""
            raise EngineError(
                f"member {number} did not stop within {timeout.total_seconds():.0f} s; it may still run at {node}",
                hint=f"make sure that {node} is off, then: docker node rm --force {node}",
            )

    def renew(self, number: int) -> None:
        """The volume is emptied by a task at its node, and stays: another node's volumes can't be removed from here."""
        kept = self._objects.kept()
        if kept is not None and kept.primary == number:
            raise Refused(
                f"member {number} is the primary, and its data is the cluster's",
                hint="promote another one first: deployer cluster promote MEMBER",
            )
        service = self._service(number)
        self.stop(number, timeout=PATIENCE)
        self._empty(service)
        self._update(service.part, "--replicas=1")

    def _empty(self, service: Service) -> None:
        job = names.full(self._name, f"empty-{service.number}")
        volume = names.full(self._name, service.part)
        python, *options = IMAGE_PYTHON
        words = (
            *("service", "create", "--detach=true", "--quiet", "--no-resolve-image", f"--name={job}"),
            *(f"--label={LABEL_NAME}={self._name}", "--restart-condition=none"),
            f"--container-label={names.NAMESPACE}={self._name}",  # `down` waits for it
            *(f"--constraint={service.constraint}", f"--mount=type=volume,source={volume},target={OWN_DATA}"),
            *("--read-only", "--cap-drop=ALL", "--no-healthcheck", f"--entrypoint={python}", service.image),
            *(*options, "-c", EMPTY),
        )
        self._docker.call("service", "rm", job)  # of a run that was killed
        self._docker.checked(*words)
        try:
            made = service_of(self._docker.inspected("service", (job,))[0], self._name)
            ended: list[Task] = []

            def done() -> bool:
                ended[:] = [one for one in self._tasks([made])[made.id] if one.gone]
                return bool(ended)

            if not self._until(done) or ended[0].state != "complete":
                why = ended[0].why if ended else "no node runs it"
                raise EngineError(f"the volume {volume} can't be emptied: {why}", hint=f"docker service ps {job}")
        finally:
            self._docker.call("service", "rm", job)

    # Reaching members

    def _container(self, number: int) -> tuple[Docker, str]:
        """The container of a running member, and the engine of its node."""
        service = self._service(number)
        task = current(self._tasks([service])[service.id])
        if task is None or not task.container or task.state not in ("running", "starting"):
            raise NotReadyError(f"member {number} does not run", hint=f"deployer logs --member {number}")
        if task.node == at(self._info(), "Swarm", "NodeID"):
            return self._docker, task.container
        node = self._nodes().get(task.node, task.node)
        if not self._docker.knows(node):
            raise EngineUnreachable(
                f"member {number} runs at the node {node}, and docker has no context of that name",
                hint=f"docker context create {node} --docker host=ssh://{node}",
            )
        return self._docker.at(node), task.container

    def exec(self, number: int, words: Sequence[str], *, stdin: bytes = b"") -> ExecResult:
        docker, container = self._container(number)
        done = docker.call("exec", *(("--interactive",) if stdin else ()), container, *in_image(words), stdin=stdin)
        return ExecResult(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def logs(self, number: int, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        service = self._service(number)
        begun = [task for task in self._tasks([service])[service.id] if task.container]
        task = current(begun)
        if task is None:
            return iter(())
        words = ["service", "logs", "--raw"]
        words += ["--follow"] if follow else []
        words += [f"--since={since}"] if since else []
        words += [f"--tail={tail}"] if tail is not None else []
        return self._docker.lines(*words, task.id)

    def https(self) -> None:
        return None

    def password(self) -> Secret:
        kept = self._objects.kept()
        if kept is None:
            raise ConflictError(f"there is no deployment named {self._name!r}", hint="deployer up")
        done = self.exec(kept.primary, ("secret", "show", "root"))
        if done.returncode or not done.stdout.strip():
            raise ConflictError(
                f"member {kept.primary} does not tell root's password: {done.stderr.strip()[-300:]}",
                hint="deployer secret set root",
            )
        return Secret(done.stdout.strip())

    def _balancers(self) -> list[tuple[str, int]]:
        """The node of each balancer that runs, by its ID, and its port."""
        services = [service for service in self._services() if service.ours and service.published]
        tasks = self._tasks(services)
        found = [(current(tasks[service.id]), service.published) for service in services]
        return [(task.node, port) for task, port in found if task is not None and not task.gone]

    @contextmanager
    def reach(self) -> Iterator[str]:
        """Balancers alone publish a port: no member can be reached on its own."""
        found, here = self._balancers(), str(at(self._info(), "Swarm", "NodeID") or "")
        if not found:
            raise NotReadyError(f"no balancer of {self._name} runs", hint=f"docker stack ps {self._name}")
        near = next((port for node, port in found if node == here), None)
        if near is not None and not far(self._docker.endpoint()):
            yield f"http://127.0.0.1:{near}"
        else:
            yield self._url(*found[0])

    def address(self) -> str:
        found = self._balancers()
        return self._url(*found[0]) if found else ""

    def _url(self, node: str, port: int) -> str:
        raw = self._docker.inspected("node", (node,))
        host = str(at(raw[0], "Status", "Addr") or "") if raw else ""
        if host in ("", "0.0.0.0"):  # noqa: S104 - a manager that does not know its own address
            host = str(at(self._info(), "Swarm", "NodeAddr") or "127.0.0.1")
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    # The end

    def down(self, *, purging: bool, on_line: Callable[[str], None]) -> tuple[str, ...]:
        services = [service for service in self._services() if service.ours]
        left = {
            names.full(self._name, service.part): service.constraint
            for service in services
            if service.number is not None
        }
        if services:
            on_line(f"removing {', '.join(service.part for service in services)}")
            self._docker.checked("service", "rm", *(names.full(self._name, service.part) for service in services))
        self._remove_network()
        here = [
            str(row.get("Name"))
            for row in self._docker.rows(
                *("volume", "ls", f"--filter=label={LABEL_NAME}={self._name}"),
                f"--filter=label={names.LABEL_MEMBER}",
            )
        ]
        if not purging:
            return tuple(sorted({*here, *left}))
        if here:
            self._docker.checked("volume", "rm", *here)
        self._objects.remove()
        return tuple(f"{volume} ({left[volume]})" for volume in sorted(left.keys() - set(here)))

    def _remove_network(self) -> None:
        """Docker refuses it, and volumes as well, until the last container has gone."""
        network = names.full(self._name, names.NETWORK)

        def removed() -> bool:
            if not self._docker.inspected("network", (network,)):
                return True
            self._docker.call("network", "rm", network)
            return False

        def ended() -> bool:
            label = f"--filter=label={names.NAMESPACE}={self._name}"
            return not self._docker.rows("container", "ls", "--all", label)

        if not self._until(ended) or not self._until(removed):
            raise EngineError(f"containers of {self._name} do not end", hint=f"docker stack ps {self._name}")
