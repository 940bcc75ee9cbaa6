"""The profile, as frozen models that reject unknown keys.

The defaults here are the ones that ``profiles/reference.yaml`` documents; a test holds the two together.
Only single values are checked here; their combinations are decided in ``plan/``.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from deployer.addresses import is_loopback
from deployer.profile.places import DATA_CHOICES
from deployer.profile.types import (
    MAX_SECONDS,
    Address,
    ClaimName,
    ClientName,
    Date,
    Digest,
    EnvName,
    HostName,
    Ids,
    ImageRef,
    IndexName,
    InsidePath,
    Memory,
    NetworkOf,
    OptionName,
    Origin,
    OutsideUrl,
    Pin,
    ProjectPattern,
    PythonVersion,
    Reader,
    RestartPolicy,
    Rule,
    SecretRef,
    SignalName,
    Size,
    Span,
    Text,
    Url,
    UserName,
    Whole,
)
from deployer.protocol import GUARD_KEYS, parse_span
from deployer.spec import EngineName


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


AUTO = "auto"
"""Instead of a path: deployer finds it, or makes it."""


class Tls(Model):
    cert: Text = ""
    key: Text = ""
    port: Whole = Field(3443, ge=0, le=65535)
    names: tuple[HostName, ...] = ()

    @field_validator("cert", "key")
    @classmethod
    def _paths_are_from_everywhere(cls, value: str) -> str:
        if value not in ("", AUTO) and not value.startswith(("/", "~/")):
            raise ValueError("expected auto, nothing, or a path that starts with / or ~/")
        return value

    @model_validator(mode="after")
    def _cert_and_key_go_together(self) -> Self:
        if self.cert not in ("", AUTO) and self.key in ("", AUTO):
            raise ValueError("cert needs the path of its key: key")
        if self.cert in ("", AUTO) and self.key:
            raise ValueError("key needs the path of its certificate: cert")
        if "*" in self.names:
            raise ValueError("names are those of the certificate: none of them is *")
        return self


class Network(Model):
    mode: Literal["auto", "bridge", "host"] = "auto"
    bind: IPv4Address | IPv6Address = IPv4Address("127.0.0.1")
    port: Whole = Field(3141, ge=0, le=65535)
    expose: bool = False
    outside_url: OutsideUrl = ""
    trusted_proxies: tuple[NetworkOf, ...] = ()
    hosts: tuple[HostName, ...] = ()
    tls: Tls = Tls()
    ca_file: Text = AUTO
    proxy: bool = False

    @field_validator("ca_file")
    @classmethod
    def _ca_file_is_one_from_everywhere(cls, value: str) -> str:
        if value not in ("", AUTO) and not value.startswith(("/", "~/")):
            raise ValueError("expected auto, nothing, or a path that starts with / or ~/")
        return value

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.tls.cert and self.port and self.port == self.tls.port:
            raise ValueError(f"port and tls.port are both {self.port}; on tls.port, http is redirected to https")
        return self


class Image(Model):
    ref: ImageRef = ""
    base: ImageRef = ""
    digest: Digest = ""
    data_path: InsidePath = "/data"
    port: Whole = Field(3141, ge=1, le=65535)
    command: tuple[Text, ...] = ()
    env: dict[EnvName, Text] = {}
    user: Ids = ""
    stop_signal: SignalName = "SIGINT"
    read_only: bool = True


class Oidc(Model):
    """A rule for jobs of CI: who shows an ID token with these claims gets a token of ``user`` for ``lifetime``."""

    issuer: Url = Field(description="the address of the CI, as in its tokens' iss")
    audience: Text = Field(min_length=1, description="for whom its tokens must be, as in their aud")
    claims: dict[ClaimName, Text] = Field(description="claims that its tokens must have; * stands for any characters")
    user: UserName = Field(description="the user whose token a job gets")
    permissions: tuple[Literal["read", "upload"], ...] = Field(
        ("read",), min_length=1, description="what the token may do: read, upload"
    )
    indexes: tuple[IndexName, ...] = Field(min_length=1, description="the indexes of the token; read: with their bases")
    lifetime: Span = Field("15m", description="how long the token is valid: from 1m to 24h")

    @field_validator("issuer")
    @classmethod
    def _issuer_is_encrypted(cls, value: str) -> str:
        if not (value.startswith("https://") or is_loopback(value)) or "?" in value or "#" in value or not value:
            raise ValueError("expected an address that starts with https://")
        return value

    @field_validator("claims")
    @classmethod
    def _claims_tell_a_job(cls, value: dict[str, str]) -> dict[str, str]:
        if not any(pattern.strip("*") for pattern in value.values()):
            raise ValueError("expected a claim that only your jobs have, such as repository: acme/*")
        return value

    @field_validator("user")
    @classmethod
    def _user_is_not_root(cls, value: str) -> str:
        if value == "root":
            raise ValueError("expected another user than root, who reads and changes everything")
        return value

    @field_validator("lifetime")
    @classmethod
    def _lifetime_is_short(cls, value: str) -> str:
        if not 60 <= (parse_span(value) or 0) <= 86_400:
            raise ValueError("expected a time from 1m to 24h")
        return value


class OptionFile(Model):
    """A file that a plugin reads, and the secrets that are put into it (YAML or JSON) by the path of their key."""

    file: Text = Field(description="path of the file on this host; the server gets a copy")
    secrets: dict[Text, SecretRef] = Field(
        {}, description="KEY.OF.THE.FILE: env:NAME, file:PATH, command:… or keyring:…"
    )

    @field_validator("file")
    @classmethod
    def _file_is_one_from_everywhere(cls, value: str) -> str:
        if not value.startswith(("/", "~/")):
            raise ValueError("expected a path that starts with / or ~/")
        return value


class Server(Model):
    version: Literal["6", "7"] = "6"
    web: Literal["off", "read", "manage", "devpi-web"] = "manage"
    request_timeout: Whole = Field(30, ge=1, le=3600)
    offline: bool = False
    mirror_cache_expiry: Whole = Field(1800, ge=0, le=MAX_SECONDS)
    not_found_expiry: Whole = Field(60, ge=0, le=MAX_SECONDS)
    keep_deleted: bool = False
    threads: Whole = Field(50, ge=1, le=1000)
    front: Literal["auto", "nginx", "python"] = "auto"
    metrics: Address = ""
    cdn: Whole = Field(0, ge=0, le=3600)
    push_to: tuple[Origin, ...] = ()
    oidc: tuple[Oidc, ...] = ()
    memory: Memory = "auto"
    cpus: float = Field(0.0, ge=0, le=4096, allow_inf_nan=False)
    pids: Whole = Field(512, ge=0, le=4_194_304)  # the kernel's own limit of a pid
    nofile: Whole = Field(4096, ge=0, le=1_048_576)  # fs.nr_open
    restart: RestartPolicy = "unless-stopped"
    lifetime: Literal["unlimited", "job"] = "unlimited"
    stop_timeout: Whole = Field(10, ge=1, le=600)
    ready_timeout: Whole = Field(60, ge=1, le=3600)
    log_max_size: Size = "10m"
    log_max_files: Whole = Field(3, ge=1, le=100)
    min_free: Size = "64m"
    budget: Size = ""
    plugins: tuple[Pin, ...] = ()
    options: dict[OptionName, Text] = {}
    option_files: dict[OptionName, OptionFile] = {}


class User(Model):
    email: Text = ""
    title: Text = ""
    description: Text = ""
    custom_data: Text = ""


MIRROR_KEYS = (
    *("url", "cache_expiry", "project_list", "core_metadata", "external_urls", "web_url", "ignore_serial"),
    "credentials",
    *GUARD_KEYS,
)
MERGING_KEYS = ("mirror_whitelist", "mirror_whitelist_inheritance", "accept_confusion")
"""Keys about bases that are merged."""
STAGE_KEYS = ("bases", "acl_upload", "acl_toxresult_upload", "quota", *MERGING_KEYS)


class Credentials(Model):
    """What a mirror's upstream wants to see: user and password, or a token. Secrets are references, never values."""

    username: Text = Field("", description="the user, when a password goes with it")
    password: SecretRef | None = Field(None, description="its password: env:NAME, file:PATH, command:… or keyring:…")
    token: SecretRef | None = Field(None, description="a token instead: env:NAME, file:PATH, command:… or keyring:…")
    token_as: Literal["bearer", "user"] = Field("bearer", description="sent as bearer token, or as a user's name")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.password is None) == (self.token is None):
            raise ValueError("expected either username and password, or token")
        if (self.password is not None) != bool(self.username):
            raise ValueError(
                "username and password go together; a token has no username (token_as: user sends it as one)"
            )
        if ":" in self.username:
            raise ValueError("a username can't hold a colon")
        return self


class Index(Model):
    """A mirror of an upstream; a stage that takes uploads and inherits from its bases; or an ordered index, which is a
    stage whose bases are a priority: a name is served from the first base that owns it, and from no other.

    A field that is ``None`` is not owned by the profile: the server keeps what it has.
    """

    type: Literal["mirror", "stage", "ordered"]
    title: Text | None = None
    description: Text | None = None
    custom_data: Text | None = None
    volatile: bool | None = None
    read: tuple[Reader, ...] | None = None
    # mirror
    url: Url | None = None
    cache_expiry: Whole | None = Field(None, ge=0, le=MAX_SECONDS)
    project_list: bool | None = None
    core_metadata: bool | None = None
    external_urls: bool | None = None
    web_url: Text | None = None
    ignore_serial: bool | None = None
    credentials: Credentials | None = None
    min_age: Span | None = None
    min_age_exempt: tuple[Rule, ...] | None = None
    before: Date | None = None
    unknown_age: Literal["refuse", "allow"] | None = None
    allow: tuple[Rule, ...] | None = None
    deny: tuple[Rule, ...] | None = None
    changed: Literal["refuse", "allow"] | None = None
    # what an ordered index above makes of this one
    owns: tuple[ProjectPattern, ...] = ()
    only_owned: bool = False
    # stage, ordered
    bases: tuple[IndexName, ...] | None = None
    acl_upload: tuple[Text, ...] | None = None
    acl_toxresult_upload: tuple[Text, ...] | None = None
    quota: Size | None = None
    # stage
    mirror_whitelist: tuple[Text, ...] | None = None
    mirror_whitelist_inheritance: Literal["intersection", "union"] | None = None
    accept_confusion: bool = False

    @model_validator(mode="after")
    def _fields_fit_type(self) -> Self:
        foreign = {
            "mirror": STAGE_KEYS,
            "stage": MIRROR_KEYS,
            "ordered": (*(key for key in MIRROR_KEYS if key != "changed"), *MERGING_KEYS),
        }[self.type]
        given = [name for name in foreign if getattr(self, name) not in (None, False)]
        if given:
            raise ValueError(f"an index of type {self.type} has no {', '.join(given)}")
        if self.type == "ordered" and not self.bases:
            raise ValueError("an index of type ordered needs bases")
        if self.only_owned and not self.owns:
            raise ValueError("only_owned needs the names that are owned: owns")
        return self


class Clients(Model):
    index: IndexName = "root/dev"
    timeout: Whole = Field(60, ge=1, le=3600)
    configure: tuple[ClientName, ...] = ("pip",)
    scope: Literal["user", "global", "site", "venv"] = "user"
    transparent: bool = False
    fallback: bool = False


class Targets(Model):
    python: tuple[PythonVersion, ...] = ()
    platform: tuple[Text, ...] = ()

    @field_validator("platform")
    @classmethod
    def _platforms_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from deployer.selection.targets import KNOWN, is_platform

        if unknown := next((name for name in value if not is_platform(name)), ""):
            raise ValueError(f"unknown platform {unknown}; expected one that uv knows: {KNOWN}")
        return value


class Keep(Model):
    last: Whole = Field(0, ge=0, le=10_000)
    daily: Whole = Field(7, ge=0, le=10_000)
    weekly: Whole = Field(4, ge=0, le=10_000)
    monthly: Whole = Field(12, ge=0, le=10_000)
    yearly: Whole = Field(3, ge=0, le=10_000)


class Remote(Model):
    repository: Text = ""
    password: SecretRef | Literal[""] = ""
    options: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _has_a_password(self) -> Self:
        if self.repository and not self.password:
            raise ValueError("repository needs a password")
        return self


class Backups(Model):
    directory: Text = ""
    schedule: Text = ""
    cache: bool = True
    keep: Keep = Keep()
    recipient: Text = ""
    remote: Remote = Remote()
    after: tuple[Text, ...] = ()

    @field_validator("directory")
    @classmethod
    def _directory_is_one_from_everywhere(cls, value: str) -> str:
        if value and not value.startswith(("/", "~/")):
            raise ValueError("expected a path that starts with / or ~/")
        return value

    @field_validator("schedule")
    @classmethod
    def _schedule_is_plain(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z0-9*,.:/-]+( [A-Za-z0-9*,.:/-]+)*", value):
            raise ValueError("expected hourly, daily, weekly or a calendar event of systemd.time(7)")
        return value

    @field_validator("recipient")
    @classmethod
    def _recipient_is_public(cls, value: str) -> str:
        if value and not re.fullmatch(r"age1[a-z0-9]{10,200}", value):
            raise ValueError("expected the public key of age-keygen: age1…")
        return value


class Cluster(Model):
    replicas: Whole = Field(0, ge=0, le=99)
    write_wait: float = Field(2.0, ge=0, le=60, allow_inf_nan=False)
    replica_upstream: bool = True
    image: ImageRef = ""
    files_on_demand: tuple[IndexName, ...] = ()


class Kubernetes(Model):
    context: Text = ""
    namespace: Text = ""
    storage_class: Text = ""
    size: Size = "50g"
    host: HostName | Literal[""] = ""
    tls_secret: Text = ""
    ingress_class: Text = ""
    pull_secret: Text = ""
    secret: Text = ""
    service_monitor: bool = False


class Swarm(Model):
    context: Text = ""
    nodes: tuple[HostName, ...] = ()


def _default_indexes() -> dict[str, Index]:
    return {
        "root/pypi": Index(type="mirror"),
        "root/dev": Index(type="stage", bases=("root/pypi",), volatile=False),
    }


if TYPE_CHECKING:
    EngineChoice = str
else:
    EngineChoice = Literal["auto", *(name.value for name in EngineName), "swarm", "kubernetes"]


class Profile(Model):
    """A whole profile, after ``extends:`` and all overrides were merged."""

    engine: EngineChoice = "auto"
    network: Network = Network()
    data: Text = "home"
    image: Image = Image()
    server: Server = Server()
    users: dict[UserName, User] = {}
    groups: dict[UserName, tuple[UserName, ...]] = {}
    indexes: dict[IndexName, Index] = Field(default_factory=_default_indexes)
    clients: Clients = Clients()
    warm: tuple[Text, ...] = ()
    targets: Targets = Targets()
    backup: Backups = Backups()
    cluster: Cluster = Cluster()
    kubernetes: Kubernetes = Kubernetes()
    swarm: Swarm = Swarm()

    @field_validator("data")
    @classmethod
    def _data_is_known(cls, value: str) -> str:
        if value in DATA_CHOICES or value.startswith(("/", "~/")):
            # ".." depends on what exists when it is resolved: a directory that is to be created could turn out to be
            # another one, which must not be touched.
            if ".." in value.split("/") or value.startswith("//"):
                raise ValueError("expected a path without '..' that starts with one /")
            return value
        if value.startswith("volume:"):
            if re.fullmatch(r"volume:[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}", value):
                return value
            raise ValueError("a volume's name is letters, digits and _ . -, starting with a letter or digit")
        raise ValueError(f"expected {', '.join(DATA_CHOICES)}, a path that starts with / or ~/, or volume:NAME")
