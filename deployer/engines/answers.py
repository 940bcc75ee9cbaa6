"""Parse the answers of ``inspect``. docker, nerdctl and podman use Docker's JSON, with gaps."""

from __future__ import annotations

from typing import Any

from deployer.engines.dialects import Dialect
from deployer.engines.shapes import shaped, texts, words
from deployer.protocol import parsed
from deployer.spec import Container, Image, Mount, NetworkMode, Port, Settings, State


def at(raw: Any, *keys: str) -> Any:
    """Look up ``keys`` in nested objects; ``None`` when one is missing."""
    for key in keys:
        raw = raw.get(key) if isinstance(raw, dict) else None
    return raw


@shaped
def container_from(raw: dict[str, Any], dialect: Dialect) -> Container:
    """Parse one element of ``container inspect``."""
    status = str(at(raw, "State", "Status") or "").lower()
    state = dialect.states.get(status, State.STOPPED)
    code = at(raw, "State", "ExitCode")
    return Container(
        id=str(raw.get("Id", "")),
        name=str(raw.get("Name", "")).lstrip("/"),
        state=state,
        image=str(at(raw, "Config", "Image") or raw.get("ImageName") or raw.get("Image") or ""),
        image_id=_image_id(raw.get("Image")),
        labels=texts(at(raw, "Config", "Labels")),
        exit_code=code if isinstance(code, int) and state is State.STOPPED else None,
        oom_killed=bool(at(raw, "State", "OOMKilled")),
        error=str(at(raw, "State", "Error") or ""),
        pid=int(at(raw, "State", "Pid") or 0) or None,
        started_at=str(at(raw, "State", "StartedAt") or ""),
        ports=_ports(raw),
        mounts=tuple(_mount(mount) for mount in raw.get("Mounts") or () if mount.get("Type") != "tmpfs"),
        network=_network(raw, dialect),
        command=(*words([raw["Path"]] if raw.get("Path") else []), *words(raw.get("Args"))),
        settings=_settings(raw) if dialect.tells_settings else Settings(),
    )


def _settings(raw: dict[str, Any]) -> Settings:
    """Parse how the container is set up now, also after ``update``."""
    host, config = raw.get("HostConfig") or {}, raw.get("Config") or {}
    return Settings(
        restart=_restart(host.get("RestartPolicy")),
        memory=_limit(host.get("Memory")),
        pids=max(0, _limit(host.get("PidsLimit")) or 0) if "PidsLimit" in host else None,
        cpus=_cpus(host),
        user=str(config["User"] or "") if "User" in config else None,
        read_only=host.get("ReadonlyRootfs"),
        confined=_confined(host) if "CapDrop" in host else None,
        env=dict(str(word).partition("=")[::2] for word in config.get("Env") or ()) if "Env" in config else None,
    )


def _restart(policy: Any) -> str | None:
    """A restart policy in the words of :class:`deployer.spec.ContainerSpec`."""
    if not isinstance(policy, dict):
        return None
    name, count = str(policy.get("Name") or "no"), policy.get("MaximumRetryCount")
    return f"{name}:{count}" if name == "on-failure" and count else name


def _limit(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _cpus(host: dict[str, Any]) -> float | None:
    """``update --cpus`` sets one of the two spellings, ``update --cpu-quota`` the other."""
    nano, quota, period = (_limit(host.get(key)) for key in ("NanoCpus", "CpuQuota", "CpuPeriod"))
    if nano is None and quota is None:
        return None
    return nano / 1e9 if nano else max(0, quota or 0) / (period or 100_000)


def _confined(host: dict[str, Any]) -> bool:
    """Whether it has dropped capabilities, as ``--cap-drop=ALL`` does, and can't gain any."""
    options = [str(option) for option in host.get("SecurityOpt") or ()]
    closed = any(option in ("no-new-privileges", "no-new-privileges:true") for option in options)
    return closed and bool(host.get("CapDrop")) and not host.get("CapAdd") and not host.get("Privileged")


def _digest(text: Any) -> str:
    """Prefix an image id with its algorithm, as docker does; podman omits it."""
    value = str(text or "")
    return f"sha256:{value}" if len(value) == 64 and ":" not in value else value


def _image_id(text: Any) -> str:
    """The id of a container's image; empty for nerdctl, which reports the name instead."""
    value = _digest(text)
    return value if value.startswith("sha256:") else ""


def _ports(raw: dict[str, Any]) -> tuple[Port, ...]:
    bound = at(raw, "HostConfig", "PortBindings") or at(raw, "NetworkSettings", "Ports") or {}
    return tuple(
        Port(
            host_ip=str(binding.get("HostIp") or "0.0.0.0"),  # noqa: S104 - an empty address means all
            host_port=_number(binding.get("HostPort")),
            container_port=_number(key),
        )
        for key, bindings in sorted(bound.items())
        for binding in bindings or ()
    )


def _number(text: object) -> int:
    """The first port of ``3141``, ``53/udp`` or ``8000-8010``; 0 when the engine chooses one."""
    first = str(text or "").partition("/")[0].partition("-")[0]
    return int(first) if first.isdecimal() else 0


def _mount(raw: dict[str, Any]) -> Mount:
    kind = str(raw.get("Type") or "bind")
    source = raw.get("Name") if kind == "volume" else raw.get("Source")
    return Mount(
        kind=kind,
        source=str(source or raw.get("Source") or ""),
        target=str(raw.get("Destination") or ""),
        read_only=raw.get("RW") is False,
    )


def _network(raw: dict[str, Any], dialect: Dialect) -> NetworkMode | None:
    mode = at(raw, "HostConfig", "NetworkMode")
    if mode is None and (named := at(raw, *dialect.networks) if dialect.networks else None):
        mode = next(iter(parsed(named)), None)
    if not isinstance(mode, str):
        return None
    if mode == "none" or mode.startswith("container:"):
        return NetworkMode.OTHER
    return NetworkMode.HOST if mode == "host" else NetworkMode.BRIDGE


@shaped
def image_from(raw: dict[str, Any], ref: str) -> Image:
    """Parse one element of ``image inspect``."""
    return Image(
        id=_digest(raw.get("Id")),
        ref=ref,
        names=tuple(name for name in words(raw.get("RepoTags")) if name != "<none>:<none>"),
        labels=texts(at(raw, "Config", "Labels")),
        digests=words(raw.get("RepoDigests")),
        created_at=str(raw.get("Created") or ""),
    )
