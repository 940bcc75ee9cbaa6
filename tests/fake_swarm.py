"""A swarm in memory that answers docker's words: services with one task each, volumes, secrets and configs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from deployer.host.runner import Completed, Runner

HERE, THERE = "node-here", "node-there"
UUID = "0" * 32


class FakeSwarm(Runner):
    """Stands for the runner. ``argvs``: what was asked, ``stdins`` beside it. ``info``: of the engine's swarm.

    ``held``: parts of a stack whose tasks do not get healthy. ``nodes``: names by ID.
    """

    def __init__(self) -> None:
        super().__init__()
        self.argvs: list[tuple[str, ...]] = []
        self.stdins: list[bytes] = []
        self.swarm: dict[str, Any] = {"LocalNodeState": "active", "ControlAvailable": True, "NodeID": HERE, "Nodes": 2}
        self.nodes = {HERE: "here", THERE: "there"}
        self.contexts: set[str] = set()
        self.objects: dict[str, dict[str, dict[str, Any]]] = {"secret": {}, "config": {}, "network": {}, "volume": {}}
        self.services: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.held: set[str] = set()
        self.lost: set[str] = set()
        """Services whose tasks do not end: their node does not answer."""
        self.replaced: list[str] = []
        """Services, in the order in which they got a task."""
        self._made = 0

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 30,
        env: Any = None,
        cwd: Path | None = None,
    ) -> Completed:
        self.argvs.append(tuple(argv))
        self.stdins.append(stdin)
        assert argv[0] == "docker"
        words = list(argv[1:])
        if words[0] == "--context":
            words = words[2:]
        single = words[0] in ("info", "inspect", "exec")
        verb = getattr(self, f"_{words[0]}" if single else f"_{words[0]}_{words[1]}")
        out, err = verb(words[1:] if single else words[2:], stdin)
        return Completed(argv=tuple(argv), returncode=1 if err else 0, stdout=out, stderr=err)

    def stream(self, argv: Sequence[str]) -> Iterator[str]:
        self.argvs.append(tuple(argv))
        yield "one line"

    # Queries

    def _info(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return json.dumps({"ServerVersion": "20.10.24", "Name": "here", "Swarm": self.swarm}), ""

    def _rows(self, rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
        return "".join(json.dumps(row) + "\n" for row in rows), ""

    def _node_ls(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return self._rows([{"ID": node, "Hostname": name} for node, name in self.nodes.items()])

    def _service_ls(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        (label,) = (word.partition("label=")[2] for word in words if word.startswith("--filter"))
        key, _, value = label.partition("=")
        found = [one for one in self.services.values() if one["Spec"]["Labels"].get(key) == value]
        return self._rows([{"ID": one["ID"]} for one in found])

    def _service_ps(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return self._rows([{"ID": task["ID"]} for task in self.tasks.values() if task["ServiceID"] in words])

    def _listed(self, kind: str, words: list[str]) -> tuple[str, str]:
        filters = [word.removeprefix("--filter=") for word in words if word.startswith("--filter=")]

        def fits(name: str, labels: dict[str, str], one: str) -> bool:
            what, _, value = one.partition("=")
            if what == "name":
                return value in name
            key, equal, wanted = value.partition("=")
            return key in labels and (not equal or labels[key] == wanted)

        found = self.objects[kind].items()
        return self._rows(
            [{"Name": name} for name, one in found if all(fits(name, one["labels"], which) for which in filters)]
        )

    def _secret_ls(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return self._listed("secret", words)

    def _config_ls(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return self._listed("config", words)

    def _volume_ls(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return self._listed("volume", words)

    def _container_ls(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return self._rows([{"ID": task["ID"]} for task in self.tasks.values()])

    def _context_inspect(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        if words[-1] == "{{json .Endpoints.docker.Host}}":
            return '"unix:///var/run/docker.sock"\n', ""
        return ("[{}]", "") if words[-1] in self.contexts else ("", f"context {words[-1]!r}: not found")

    def _inspect(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        kind, names = words[1], words[2:]
        if kind == "service":
            every = {key: one for one in self.services.values() for key in (one["ID"], one["Spec"]["Name"])}
            found = [every[name] for name in names if name in every]
        elif kind == "task":
            found = [self.tasks[name] for name in names if name in self.tasks]
        elif kind == "node":
            found = [{"ID": name, "Status": {"Addr": "192.0.2.7"}} for name in names]
        else:
            found = [self.objects[kind][name]["raw"] for name in names if name in self.objects[kind]]
        return json.dumps(found), "" if len(found) == len(names) else "Error: No such object"

    def _exec(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        container = words[1] if words[0] == "--interactive" else words[0]
        task = next(
            task for task in self.tasks.values() if task["Status"]["ContainerStatus"]["ContainerID"] == container
        )
        if "secret" in words:
            return "a password\n", ""
        assert words[-4:-2] == ["member", "status"], words
        service = next(one for one in self.services.values() if one["ID"] == task["ServiceID"])
        number, primary = (service["Spec"]["Labels"][f"io.devpi.deployer.{key}"] for key in ("member", "primary"))
        return json.dumps(
            {
                "number": int(number),
                "role": "primary" if number == primary else "replica",
                "uuid": UUID,
                "serial": 1,
                "primary_serial": 1,
                "lag_seconds": 0,
                "synced": True,
                "files_in_sync": True,
                "files_missing": 0,
                "errors": [],
                "version": "1",
                "last_contact_seconds": 0,
                "server_version": "6.20.3",
                "primary_answers": True,
            }
        ), ""

    def _config_inspect(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return json.dumps([self.objects["config"][word]["raw"] for word in words]), ""

    # Effects

    def _labels(self, words: list[str]) -> dict[str, str]:
        found = (word.removeprefix("--label=").partition("=") for word in words if word.startswith("--label="))
        return {key: value for key, _, value in found}

    def _secret_create(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        assert words[-1] == "-"
        self.objects["secret"][words[-2]] = {"labels": self._labels(words), "raw": {}}
        return "", ""

    def _config_create(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        raw = {"Spec": {"Data": base64.b64encode(stdin).decode()}}
        self.objects["config"][words[-2]] = {"labels": self._labels(words), "raw": raw}
        return "", ""

    def _network_create(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        raw = {"IPAM": {"Config": [{"Subnet": "10.0.1.0/24"}]}}
        self.objects["network"][words[-1]] = {"labels": self._labels(words), "raw": raw}
        return "", ""

    def _removed(self, kind: str, words: list[str]) -> tuple[str, str]:
        for word in words:
            del self.objects[kind][word]
        return "", ""

    def _secret_rm(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return self._removed("secret", words)

    def _config_rm(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return self._removed("config", words)

    def _network_rm(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return self._removed("network", words)

    def _volume_rm(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        return self._removed("volume", words)

    def _stack_deploy(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        stack, document = words[-1], yaml.safe_load(stdin)
        for part, service in document["services"].items():
            for secret in service.get("secrets", ()):
                if document["secrets"][secret["source"]]["name"] not in self.objects["secret"]:
                    return "", "secret not found"
            if document["networks"]["members"]["name"] not in self.objects["network"]:
                return "", "network not found"
            for volume in service["volumes"]:
                if volume["type"] == "volume":
                    declared = document["volumes"][volume["source"]]
                    self.objects["volume"].setdefault(declared["name"], {"labels": declared["labels"], "raw": {}})
            former, name = self.services.get(f"{stack}_{part}"), f"{stack}_{part}"
            deploy = service["deploy"]
            spec = {
                "Name": name,
                "Labels": {**deploy["labels"], "com.docker.stack.namespace": stack},
                "TaskTemplate": {
                    "ContainerSpec": {
                        "Image": service["image"],
                        "Labels": service["labels"],
                        "Args": service["command"],
                    },
                    "Placement": deploy["placement"] and {"Constraints": deploy["placement"]["constraints"]},
                },
                "Mode": {"Replicated": {"Replicas": deploy["replicas"]}},
                "EndpointSpec": {"Ports": [{"PublishedPort": one["published"]} for one in service.get("ports", ())]},
            }
            self.services[name] = {"ID": former["ID"] if former else self._id(), "Spec": spec}
            if former is None or former["Spec"]["TaskTemplate"] != spec["TaskTemplate"] or not self._running(name):
                self._task(name)
        return "", ""

    def _id(self) -> str:
        self._made += 1
        return f"id{self._made:04}"

    def _running(self, name: str) -> bool:
        service = self.services[name]
        return any(
            task["ServiceID"] == service["ID"] and task["DesiredState"] == "running" for task in self.tasks.values()
        )

    def _task(self, name: str) -> None:
        service = self.services[name]
        for task in self.tasks.values():
            if task["ServiceID"] == service["ID"]:
                task["DesiredState"] = task["Status"]["State"] = "shutdown"
        if not service["Spec"]["Mode"]["Replicated"]["Replicas"]:
            return
        self.replaced.append(name)
        (constraint,) = service["Spec"]["TaskTemplate"]["Placement"]["Constraints"]
        named = constraint.rpartition(" ")[2]
        node = next((node for node, host in self.nodes.items() if host == named), HERE)
        task_id = self._id()
        self.tasks[task_id] = {
            "ID": task_id,
            "ServiceID": service["ID"],
            "NodeID": node,
            "DesiredState": "running",
            "CreatedAt": task_id,
            "Spec": {"ContainerSpec": service["Spec"]["TaskTemplate"]["ContainerSpec"]},
            "Status": {
                "State": "starting" if name in self.held else "running",
                "ContainerStatus": {"ContainerID": f"container-{task_id}"},
            },
        }

    def _service_create(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        (name,) = (word.removeprefix("--name=") for word in words if word.startswith("--name="))
        service_id, task_id = self._id(), self._id()
        self.services[name] = {"ID": service_id, "Spec": {"Name": name, "Labels": {}}}
        self.tasks[task_id] = {
            "ID": task_id,
            "ServiceID": service_id,
            "NodeID": HERE,
            "DesiredState": "shutdown",
            "Status": {"State": "complete", "ContainerStatus": {"ContainerID": "c"}},
        }
        return "", ""

    def _service_update(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        name, service = words[-1], self.services[words[-1]]
        for word in words:
            option, _, value = word.partition("=")
            if option == "--label-add":
                key, _, text = value.partition("=")
                service["Spec"]["Labels"][key] = text
            if option == "--replicas":
                service["Spec"]["Mode"]["Replicated"]["Replicas"] = int(value)
                if (int(value) == 0 and name not in self.lost) or (int(value) and not self._running(name)):
                    self._task(name)
        if "--force" in words:
            self._task(name)
        return "", ""

    def _service_rm(self, words: list[str], stdin: bytes) -> tuple[str, str]:
        missing = [word for word in words if word not in self.services]
        for word in set(words) - set(missing):
            service = self.services.pop(word)
            self.tasks = {key: task for key, task in self.tasks.items() if task["ServiceID"] != service["ID"]}
        return "", f"Error: No such service: {missing[0]}" if missing else ""
