"""``python -m deployer.server``: the entry point of the image, and of the process engine."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deployer import __version__
from deployer.protocol import BALANCER, CLUSTER_UUID, WEB_LEVELS, ExitCode, Refusal


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deployer.server", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    serve = verbs.add_parser("serve", help="prepare the server directory, then serve")
    serve.add_argument("--serverdir", required=True)
    serve.add_argument("--only-marked", action="store_true", help="begin no index in a directory without its mark")
    serve.add_argument(
        "--when-told",
        action="store_true",
        help="load, and wait for the other options on standard input; exit at its end",
    )
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=3141)
    serve.add_argument("--request-timeout", type=int, default=30, help="seconds that an upstream has to answer")
    serve.add_argument("--mirror-cache-expiry", type=int, default=1800, help="seconds")
    serve.add_argument(
        "--not-found-expiry",
        type=int,
        default=60,
        help="seconds for which a project is not asked for again after a 404",
    )
    serve.add_argument("--keep-deleted", action="store_true", help="serve projects that their upstream has deleted")
    serve.add_argument("--threads", type=int, default=50)
    serve.add_argument("--outside-url", default="", help="the address that a proxy in front gives to clients")
    serve.add_argument(
        "--trusted-proxy", action="append", default=[], help="address or network of a proxy that names its clients"
    )
    serve.add_argument(
        "--web",
        choices=WEB_LEVELS,
        default=WEB_LEVELS[2],
        help="pages for browsers: none, deployer's own for reading, those and managing, or devpi-web's",
    )
    serve.add_argument("--offline", action="store_true")
    serve.add_argument(
        "--log-max-size", default="10m", help="size of the access log: bytes, or with a unit b, k, m or g"
    )
    serve.add_argument("--log-max-files", type=int, default=3, help="access logs that are kept")
    serve.add_argument("--cache-budget", default="", help="what the cache may take: bytes, or with a unit; empty: all")
    serve.add_argument("--quota", action="append", default=[], help="bytes of uploads, like USER/INDEX=5g")
    serve.add_argument("--cdn", type=int, default=0, help="seconds for which a shared cache may send a page; 0 = none")
    serve.add_argument("--metrics", default="", help="HOST:PORT of /metrics for Prometheus")
    serve.add_argument("--tls", default="", help="HOST:PORT of HTTPS; the certificate is stored by `store tls`")
    serve.add_argument("--oidc", action="append", default=[], help="a rule for ID tokens of CI jobs, as JSON")
    serve.add_argument("--push-to", action="append", default=[], help="origin that releases may be pushed to")
    serve.add_argument(
        "--allow-host", action="append", default=[], help="a name in the Host header that is answered; * = any"
    )
    serve.add_argument("--plugin", action="append", default=[], help="NAME==VERSION of a plugin that must be installed")
    serve.add_argument("--plugins-in", default="", help="directory with plugins, beside those of this environment")
    serve.add_argument("--option", action="append", default=[], help="NAME=VALUE for devpi-server, of its plugins")
    serve.add_argument(
        "--front",
        choices=("auto", "nginx", "python"),
        default="auto",
        help="reverse proxy before devpi: nginx, or none (python)",
    )
    serve.add_argument(
        "--role",
        choices=("standalone", "primary", "replica"),
        default="standalone",
        help="primary: lets replicas follow it; replica: follows a primary",
    )
    serve.add_argument("--member", type=int, default=None, help="number of this member in its cluster")
    serve.add_argument(
        "--primary", type=int, default=None, help="number of the primary: the member with this number, others follow it"
    )
    serve.add_argument(
        "--cluster-uuid",
        default=os.environ.get(CLUSTER_UUID, ""),
        help="uuid of the data that this member must hold; empty: any",
    )
    serve.add_argument("--root-password-file", default="", help="file with root's password, for the first boot")
    serve.add_argument("--primary-url", default="", help="of a replica: the address of its primary")
    serve.add_argument("--secret-file", default="", help="file with the secret that primary and replicas share")
    serve.add_argument(
        "--files-on-demand",
        action="append",
        default=[],
        metavar="USER/INDEX",
        help="of a replica: fetch a file of this mirror when a client asks for it, and not before",
    )
    serve.add_argument(
        "--write-wait", type=float, default=2.0, help="seconds that a write waits until all replicas have it"
    )
    serve.add_argument(
        "--no-replica-upstream",
        dest="replica_upstream",
        action="store_false",
        help="fetch nothing from upstreams while the primary is down",
    )

    balance = verbs.add_parser("balance", help="be the one address of the members of a cluster")
    balance.add_argument("--serverdir", required=True, help="a directory of the balancer's own")
    balance.add_argument("--when-told", action="store_true", help="wait for the other options on standard input")
    balance.add_argument("--listen", default="127.0.0.1:3141", help="IP:PORT")
    balance.add_argument("--tls", default="", help="IP:PORT of HTTPS")
    balance.add_argument("--certificate", default="", help="file with the certificate of HTTPS and its key")
    balance.add_argument(
        "--member", action="append", default=[], help="IP:PORT or NAME:PORT of a member, by its number"
    )
    balance.add_argument("--primary", type=int, default=0, help="number of the member that takes writes")
    balance.add_argument("--wait", type=int, default=420, help="seconds that a member has for an answer")

    balance.add_argument("--mark", default="", help="hexadecimal digits that GET /+live answers with")

    supervise = verbs.add_parser("supervise", help="run serve as a child process, with a log and restarts")
    supervise.add_argument("--log", required=True)
    supervise.add_argument("--log-max-size", default="10m", help="bytes, or with a unit b, k, m or g")
    supervise.add_argument("--log-max-files", type=int, default=3)
    supervise.add_argument("--restart", default="unless-stopped", help="no, always, unless-stopped, on-failure[:N]")
    supervise.add_argument(
        "--when-told",
        action="store_true",
        help="have the server load, and wait for the other options on standard input; exit at its end",
    )
    supervise.add_argument("command", nargs="+", help="serve and its options, after --")

    take = verbs.add_parser("take", help="have the running server begin anew with the settings from standard input")
    take.add_argument("--serverdir", required=True)

    secret = verbs.add_parser("secret", help="show root's password, or set it from standard input")
    secret.add_argument("action", choices=("show", "set"))
    secret.add_argument("user", choices=("root",))
    secret.add_argument("--serverdir", required=True)

    show = verbs.add_parser("show", help="print what this server has counted, as JSON")
    show.add_argument("file", choices=("statistics",))
    show.add_argument("--serverdir", required=True)

    store = verbs.add_parser("store", help="store a file of deployer's from standard input")
    store.add_argument("file", choices=("credentials", "malicious", "pinned", "declared", "tls"))
    store.add_argument("--serverdir", required=True)

    check = verbs.add_parser("check", help="check a server directory on which no server runs")
    check.add_argument("--serverdir", required=True)

    copy = verbs.add_parser("copy", help="copy a server directory on which no server runs, and verify the copy")
    copy.add_argument("--source", required=True)
    copy.add_argument("--target", required=True)

    backup = verbs.add_parser("backup", help="take, verify, restore or prune backups")
    backup.add_argument("action", choices=("create", "verify", "restore", "prune"))
    backup.add_argument("--directory", required=True, help="the directory of the backups")
    backup.add_argument("--serverdir", default="", help="what is backed up, or the new directory of a restore")
    backup.add_argument("--without-cache", action="store_true", help="leave out the files of mirrors")
    backup.add_argument("--backup", default="latest", help="name of a backup")
    backup.add_argument("--secrets", default="", help="file with the secrets that a restore writes, as JSON")
    for rule in ("last", "daily", "weekly", "monthly", "yearly"):
        backup.add_argument(f"--keep-{rule}", type=int, default=0)

    examine = verbs.add_parser("examine", help="check the data of a server that may run")
    examine.add_argument("--serverdir", required=True)
    examine.add_argument("--repair", action="store_true", help="set aside what is wrong")
    examine.add_argument("--rate", type=int, default=0, help="bytes a second; 0: no limit")
    examine.add_argument("--backups", default="", help="directory of backups that lost uploads are taken from")

    compact = verbs.add_parser("compact", help="write the database of a stopped server anew")
    compact.add_argument("--serverdir", required=True)

    upgrade = verbs.add_parser("upgrade", help="convert data of devpi-server 6 beside its server, and go back")
    upgrade.add_argument("action", choices=("measure", "convert", "finish", "snapshot", "resume", "back"))
    upgrade.add_argument("--serverdir", required=True)
    upgrade.add_argument("--set", default="", help="the kept set of data to go back to")
    upgrade.add_argument("--aside", default="", help="directory for uploads that a way back would lose")

    fsck = verbs.add_parser("fsck", help="devpi's own check of a server directory on which no server runs")
    fsck.add_argument("--serverdir", required=True)

    member = verbs.add_parser("member", help="show what a running member has, or have it become the primary")
    member.add_argument("action", choices=("status", "promote"))
    member.add_argument("--serverdir", required=True)
    member.add_argument("--even-if-behind", action="store_true", help="promote: accept that commits or files are lost")

    health = verbs.add_parser("health", help="exit code 0 when the server answers")
    health.add_argument("--serverdir", default="", help="find the address of the server that runs on it")
    health.add_argument("--host", default="127.0.0.1")
    health.add_argument("--port", type=int, default=3141)

    reach = verbs.add_parser("reach", help="send requests to upstreams as the server would; the report, as JSON")
    reach.add_argument("url", nargs="+", help="URLs of simple indexes; default: the default upstream of devpi-server")
    reach.add_argument("--project", default="pip", help="the project whose page is asked for")
    reach.add_argument("--timeout", type=float, default=10.0, help="seconds for all of them")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    match options.verb:
        case "serve" if options.when_told:
            from deployer.server.boot.standby import stand_by

            words = stand_by()
            if words is None:
                return 0
            sys.argv[1:] = ("serve", "--serverdir", options.serverdir, *words)  # what a restart without nginx repeats
            return main(sys.argv[1:])
        case "serve":
            from deployer.server.listening import early, places

            listening = early(places(options))
            from deployer.server.boot.run import serve

            return serve(_in_force(options), listening)
        case "balance" if options.when_told:
            from deployer.server.boot.standby import wait_for_words

            words = wait_for_words()
            return 0 if words is None else main(("balance", "--serverdir", options.serverdir, *words))
        case "balance":
            from deployer.server.balance.run import balance

            return balance(options)
        case "supervise":
            from deployer.server.boot.supervisor import supervise

            return supervise(options)
        case "secret":
            return _secret(options)
        case "show":
            return _show(options)
        case "store":
            return _stored(options)
        case "take":
            return _take(options)
        case "check":
            return _check(options)
        case "copy":
            return _copy(options)
        case "backup":
            return _backup(options)
        case "examine":
            return _examine(options)
        case "compact":
            return _compact(options)
        case "upgrade":
            return _upgrade(options)
        case "fsck":
            return _fsck(options)
        case "member":
            return _member(options)
        case "reach":
            from deployer.server.upstream.probe import reach

            return reach(options)
        case _:
            return _health(options)


def _in_force(options: argparse.Namespace) -> argparse.Namespace:
    """The options with the settings that the server has taken since; where it serves what is never among them."""
    from deployer.server.boot.settings import words

    if not (taken := words(Path(options.serverdir))):
        return options
    fixed = (
        *("serverdir", "host", "port", "tls", "only_marked"),
        *("role", "primary_url", "secret_file", "member", "primary", "cluster_uuid", "root_password_file"),
    )
    return argparse.Namespace(**vars(_parser().parse_args(taken)) | {name: getattr(options, name) for name in fixed})


def _take(options: argparse.Namespace) -> int:
    from deployer.server.boot.settings import take

    try:
        take(Path(options.serverdir), sys.stdin.read())
    except Refusal as refusal:
        sys.stderr.write(refusal.text)
        return refusal.code
    return 0


def _secret(options: argparse.Namespace) -> int:
    from deployer.server.secret_files import Private, read_text, write_private

    path = Private.of(Path(options.serverdir)).root_password
    try:
        if options.action == "set":
            password = sys.stdin.readline().strip()
            if not password:
                return _refuse("the password is empty", "write it to standard input")
            write_private(path, password + "\n")
            return 0
        known = read_text(path)
    except OSError as error:
        return _refuse(f"can't use {path}: {error.strerror}", "run this as the owner of the server directory")
    if known is None:
        return _refuse("root's password is not stored here", "store it: secret set root")
    sys.stdout.write(known + "\n")
    return 0


def _show(options: argparse.Namespace) -> int:
    from deployer.server.secret_files import Private, read_text

    path: Path = getattr(Private.of(Path(options.serverdir)), options.file)
    try:
        found = read_text(path)
    except OSError as error:
        return _refuse(f"can't read {path}: {error.strerror}", "run this as the owner of the server directory")
    if found is None:
        return _refuse("requests are not counted yet", "counts lag by two seconds and need nginx")
    sys.stdout.write(found + "\n")
    return 0


def _stored(options: argparse.Namespace) -> int:
    from deployer.server.secret_files import Private, write_private

    private = Private.of(Path(options.serverdir))
    path: Path = getattr(private, options.file)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)  # the first boot may only begin
        write_private(path, sys.stdin.read())
    except OSError as error:
        return _refuse(f"can't write {path}: {error.strerror}", "run this as the owner of the server directory")
    return 0


def _check(options: argparse.Namespace) -> int:
    from deployer.server.boot.prepare import check

    return _report(lambda: check(Path(options.serverdir)))


def _copy(options: argparse.Namespace) -> int:
    from deployer.server.boot.copying import copy

    os.umask(0o077)
    return _report(lambda: copy(Path(options.source), Path(options.target)).json)


def _backup(options: argparse.Namespace) -> int:
    from deployer.protocol import parsed
    from deployer.server.backup.create import create
    from deployer.server.backup.prune import Keep, prune
    from deployer.server.backup.repository import Repository
    from deployer.server.backup.restore import restore, verify

    os.umask(0o077)
    repository, serverdir = Repository(Path(options.directory)), Path(options.serverdir)
    rules = ("last", "daily", "weekly", "monthly", "yearly")
    match options.action:
        case "create":
            return _report(lambda: create(serverdir, repository, cache=not options.without_cache))
        case "verify":
            return _report(lambda: verify(repository, options.backup))
        case "restore":
            secrets = parsed(Path(options.secrets).read_bytes()) if options.secrets else {}
            return _report(lambda: restore(repository, options.backup, serverdir, secrets=secrets))
        case _:
            keep = Keep(**{rule: getattr(options, f"keep_{rule}") for rule in rules})
            return _report(lambda: prune(repository, keep))


def _examine(options: argparse.Namespace) -> int:
    from deployer.server.backup.check import check
    from deployer.server.backup.repository import Repository

    os.umask(0o077)
    repository = Repository(Path(options.backups)) if options.backups else None
    serverdir = Path(options.serverdir)
    return _report(lambda: check(serverdir, repair=options.repair, rate=options.rate, repository=repository))


def _compact(options: argparse.Namespace) -> int:
    from deployer.server.backup.compact import compact

    os.umask(0o077)
    return _report(lambda: compact(Path(options.serverdir)))


def _upgrade(options: argparse.Namespace) -> int:
    from deployer.server.upgrade import back, convert

    os.umask(0o077)
    serverdir = Path(options.serverdir)
    match options.action:
        case "measure":
            return _report(lambda: convert.measure(serverdir))
        case "convert":
            return _report(lambda: convert.convert(serverdir))
        case "finish":
            return _report(lambda: convert.finish(serverdir))
        case "snapshot":
            return _report(lambda: back.snapshot(serverdir))
        case "resume":
            return _report(lambda: back.resume(serverdir))
        case _:
            aside = Path(options.aside) if options.aside else None
            return _report(lambda: back.back(serverdir, options.set, aside=aside))


def _fsck(options: argparse.Namespace) -> int:
    from devpi_server.fsck import fsck

    os.umask(0o077)
    sys.argv[:] = ["devpi-fsck", "--configfile", os.devnull, "--serverdir", options.serverdir]
    return int(fsck() or 0)


def _member(options: argparse.Namespace) -> int:
    from deployer.server.members.asking import ask
    from deployer.server.members.promotion import order

    os.umask(0o077)
    serverdir = Path(options.serverdir)
    if options.action == "status":
        return _report(lambda: ask(serverdir).json)
    return _report(lambda: order(serverdir, ask, even_if_behind=options.even_if_behind))


def _report(work: Callable[[], Mapping[str, object]]) -> int:
    try:
        sys.stdout.write(json.dumps({"version": __version__, **work()}) + "\n")
    except Refusal as refusal:
        sys.stderr.write(refusal.text)
        return refusal.code
    return 0


def _refuse(message: str, hint: str) -> int:
    sys.stderr.write(Refusal(message, hint=hint, code=ExitCode.INTERNAL).text)
    return ExitCode.INTERNAL


def _health(options: argparse.Namespace) -> int:
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(*_address(options), timeout=5)
    try:
        connection.request("GET", "/+api", headers={"Accept": "application/json"})
        return 0 if connection.getresponse().status == 200 else 1
    except (OSError, HTTPException):
        return 1
    finally:
        connection.close()


def _address(options: argparse.Namespace) -> tuple[str, int]:
    from deployer.server.secret_files import Private, read_text

    found = (read_text(Private.of(Path(one)).running) for one in (options.serverdir, BALANCER) if options.serverdir)
    running = next(filter(None, found), None)
    host, _, port = (running or f"{options.host} {options.port}").rpartition(" ")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)  # noqa: S104 - a target, not bound


if __name__ == "__main__":
    sys.exit(main())
