"""What the operator writes: the profile, as frozen models that accept nothing unknown.

The defaults here are the ones that ``profiles/reference.yaml`` documents; a test holds the two together.
Only the shape of single values is checked here. What two values mean together is decided in ``plan.py``.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

# No control characters anywhere: they have no use in these values and are the stuff of injections.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=4096)]
# Docker's own grammar for container names; it also keeps a value from being read as an option.
Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$")]
# distribution/reference's grammar, loosened in its order, never starting with a dash.
ImageRef = Annotated[str, StringConstraints(pattern=r"^$|^[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,254}$")]
# devpi allows more; what is refused here would need quoting in an address.
UserName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", max_length=64)]
IndexName = Annotated[
    str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*/[a-zA-Z0-9][a-zA-Z0-9_.-]*$", max_length=129)
]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Size = Annotated[str, StringConstraints(pattern=r"^$|^[1-9][0-9]*[bkmg]?$")]
Url = Annotated[str, StringConstraints(pattern=r"^$|^https?://[^\x00-\x20\x7f]+$", max_length=2048)]
Digest = Annotated[str, StringConstraints(pattern=r"^$|^sha256:[0-9a-f]{64}$")]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False)


class Network(Model):
    mode: Literal["bridge", "host"] = "bridge"
    bind: IPv4Address | IPv6Address = IPv4Address("127.0.0.1")
    port: int = Field(3141, ge=0, le=65535)
    expose: bool = False
    outside_url: Url = ""
    ca_file: Text = "auto"
    proxy: bool = False


class Image(Model):
    ref: ImageRef = ""
    base: ImageRef = ""
    digest: Digest = ""
    data_path: Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f\x7f,]*$")] = "/data"
    port: int = Field(3141, ge=1, le=65535)
    command: tuple[Text, ...] = ()
    env: dict[EnvName, Text] = {}
    user: Annotated[str, StringConstraints(pattern=r"^$|^[0-9]+:[0-9]+$")] = ""
    stop_signal: Annotated[str, StringConstraints(pattern=r"^SIG[A-Z0-9]+$")] = "SIGINT"
    read_only: bool = True


class Server(Model):
    version: Literal["6"] = "6"
    web: bool = False
    request_timeout: int = Field(30, ge=1, le=3600)
    offline: bool = False
    mirror_cache_expiry: int = Field(1800, ge=0)
    threads: int = Field(50, ge=1, le=1000)
    memory: Size = "256m"
    cpus: float = Field(0.0, ge=0)
    pids: int = Field(256, ge=0)
    nofile: int = Field(4096, ge=0)
    restart: Annotated[str, StringConstraints(pattern=r"^(no|always|unless-stopped|on-failure(:[0-9]+)?)$")] = (
        "unless-stopped"
    )
    stop_timeout: int = Field(10, ge=1, le=600)
    ready_timeout: int = Field(60, ge=1, le=3600)
    log_max_size: Size = "10m"
    log_max_files: int = Field(3, ge=1, le=100)
    min_free: Size = "64m"


class User(Model):
    email: Text = ""
    title: Text = ""


class Index(Model):
    """A mirror of an upstream, or a stage that takes uploads and inherits from its bases.

    A field that is ``None`` is not owned by the profile: the server keeps what it has.
    """

    type: Literal["mirror", "stage"]
    title: Text | None = None
    volatile: bool | None = None
    # mirror
    url: Url | None = None
    cache_expiry: int | None = Field(None, ge=0)
    project_list: bool | None = None
    # stage
    bases: tuple[IndexName, ...] | None = None
    acl_upload: tuple[Text, ...] | None = None
    mirror_whitelist: tuple[Text, ...] | None = None

    @model_validator(mode="after")
    def _fields_fit_type(self) -> Self:
        foreign = {
            "mirror": ("bases", "acl_upload", "mirror_whitelist"),
            "stage": ("url", "cache_expiry", "project_list"),
        }[self.type]
        given = [name for name in foreign if getattr(self, name) is not None]
        if given:
            raise ValueError(f"an index of type {self.type} has no {', '.join(given)}")
        return self


class Clients(Model):
    index: IndexName = "root/dev"
    timeout: int = Field(60, ge=1, le=3600)
    configure: tuple[Literal["pip"], ...] = ("pip",)
    scope: Literal["user", "global", "site", "venv"] = "user"


def _default_indexes() -> dict[str, Index]:
    return {
        "root/pypi": Index(type="mirror"),
        "root/dev": Index(type="stage", bases=("root/pypi",), volatile=False),
    }


class Profile(Model):
    """A whole profile, after ``extends:`` and all overrides were merged."""

    engine: Literal["auto", "nerdctl", "docker", "podman", "process"] = "auto"
    network: Network = Network()
    data: Text = "home"
    image: Image = Image()
    server: Server = Server()
    users: dict[UserName, User] = {}
    indexes: dict[IndexName, Index] = Field(default_factory=_default_indexes)
    clients: Clients = Clients()

    @field_validator("data")
    @classmethod
    def _data_is_known(cls, value: str) -> str:
        if value in DATA_CHOICES or value.startswith(("/", "~/")):
            return value
        if value.startswith("volume:"):
            import re

            if re.fullmatch(r"volume:[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}", value):
                return value
            raise ValueError("a volume's name is letters, digits, '_', '.', '-'")
        raise ValueError(f"expected one of {', '.join(DATA_CHOICES)}, an absolute path, or volume:NAME")


DATA_CHOICES: dict[str, str] = {
    "cache": "/var/cache/devpi",
    "lib": "/var/lib/devpi",
    "opt": "/opt/devpi",
    "home": "~/.cache/devpi",
    "temp": "/tmp/devpi-{uid}",  # noqa: S108 - 0700, and refused when it is another's
}
"""The seats of a data directory that the Filesystem Hierarchy Standard and XDG suggest, by their short names.
``temp`` is for a deployment that is thrown away: ``down`` deletes it."""
