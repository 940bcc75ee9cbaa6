"""What ``data`` of the JSON envelope holds, verb by verb: a contract that other programs rely on.

The reference of the documentation is made from it, and the tests compare it with every envelope that they see.
"""

from __future__ import annotations

from collections.abc import Mapping

ENVELOPE = {
    "schema": "version of this format, 1; it changes only when a field changes its meaning",
    "command": "the verb, like `index list`",
    "ok": "`true` exactly when the exit code is 0",
    "data": "the result; its keys depend on the verb",
    "warnings": "list of lines",
    "error": "`null`, or an object",
}
ERROR = {
    "code": "a word from the table of exit codes, like `engine-unreachable`",
    "message": "what failed, in one line",
    "hint": "what to do next, in one line; may be empty",
    "retryable": "whether the same command may succeed later without any change",
    "details": "list of lines: the server's last log lines, or further problems; left out when there are none",
}

FIELDS = "…"
"""Stands for keys that are those of a profile."""

_USER = {"user": "name of the user"}
_INDEX = {"index": "`USER/NAME`"}
_ANSWERS = {"url": "address of the server", "timings": "`{stage: seconds}` since the start, cumulative"}
_INDEXES = {"indexes": "list of objects: `name`, `type`, and the fields of the table"}
_OFFLINE = {"name": "name of the deployment", "offline": "whether upstreams are not asked"}
_PIP = {
    "path": "the file",
    "changed": "whether it was written",
    "masks": "list: variables and files that take precedence over it",
}

_FILES = {"files": "list of objects: `client`, `path`, `changed`, `masks`"}
_BACKUP = {
    "directory": "directory of the backups",
    "name": "name of the backup",
    "created": "when it was taken, ISO 8601",
    "deployment": "name of the deployment",
    "server_version": "version of devpi-server",
    "uuid": "identity of the data",
    "serial": "devpi's last commit in it",
    "files": "number of files in it",
    "left_out": "number of files of mirrors that are not in it",
    "bytes": "size of files and database",
    "cache": "whether the files of mirrors are in it",
    "secrets": "whether the secrets are in it, encrypted",
    "lost": "list of objects: `path`, `why`, `mirror`; files that the server had lost already",
}

_MEMBERS = {
    "members": "of a cluster, list of objects: `number`, `role`, `state`, `where`, `ready`, `why`, and what the member "
    "reports: `uuid`, `serial`, `primary_serial`, `lag_seconds`, `synced`, `files_in_sync`, `files_missing`, `errors`, "
    "`version`, `last_contact_seconds`"
}

DATA: Mapping[str, Mapping[str, str]] = {
    "up": {
        "url": "address of the server",
        "simple_url": "address that installers are given",
        "engine": "`nerdctl`, `docker`, `podman` or `process`",
        "network": "`bridge` or `host`",
        "server": "`created`, `recreated`, `changed` (while it served), `started` or `unchanged`",
        "changes": "list: each change that this run made",
        "timings": "`{stage: seconds}` since the start, cumulative",
        "client_files": "list of paths: client files that are as the profile says",
        "warmed": "numbers of files for those under `warm` in the profile: `cached`, `fetched`, `missing`; or `null`",
        **_MEMBERS,
    },
    "plan": {
        "engine": "as of `up`",
        "argv": "list: the command that would be run",
        "spec_sha256": "checksum of the container's description; it is on the container as a label",
        "url": "as of `up`",
        "simple_url": "as of `up`",
        "steps": "`{step: lines[]}`",
        "changes": "list: each change that `up` would make",
    },
    "down": {
        "removed": "list: what was removed",
        "data_kept": "the data directory or volume, empty when it was deleted",
        "purged": "whether data was deleted",
    },
    "start": _ANSWERS,
    "stop": {"stopped": "whether it ran before"},
    "restart": _ANSWERS,
    "status": {
        "name": "name of the deployment",
        "profile": "name of the profile of the last `up`",
        "engine": "as of `up`",
        "network": "`bridge` or `host`; `null` where the engine does not tell",
        "state": "`absent`, `stopped`, `starting`, `running` or `unhealthy`",
        "ready": "whether it answers, on this data, and can write",
        "url": "address of the server",
        "simple_url": "address that installers are given",
        "server_version": "version of devpi-server",
        "server_uuid": "identity of the data",
        "offline": "whether upstreams are not asked; `null` of another image than ours",
        "front": "`nginx VERSION (ORIGIN)`, or `python: ` and why devpi itself answers clients",
        "tls": "`null`, or an object: `url`, whether it `answers`, `names` of the certificate, `days` until it expires",
        "image": "reference of the image",
        "image_digest": "id of the image",
        "data_dir": "data directory or volume",
        "data_bytes": "size of the data directory in bytes; `null` where adding up would take too long",
        "started_at": "time of the start, ISO 8601",
        "indexes": "list of `USER/NAME`",
        "drift": "with `--check`: list of differences from the profile; else `null`",
        "compared_with": "with `--check`: the `profile`, and `overrides{}` of the last `up`",
        "place": "of a cluster: `host`, `swarm` or `kubernetes`",
        "primary": "of a cluster: number of the member that takes writes",
        **_MEMBERS,
    },
    "cluster status": {
        **dict.fromkeys(("name", "profile", "engine", "state", "ready", "url", "simple_url"), "as of `status`"),
        **dict.fromkeys(("server_version", "server_uuid", "drift", "place", "primary"), "as of `status`"),
        **_MEMBERS,
    },
    "cluster scale": {"replicas": "how many members follow the primary", **_MEMBERS},
    "cluster renew": {**_MEMBERS},
    "cluster promote": {
        "primary": "number of the primary now",
        "former": "number of the former primary",
        "renewed": "whether the former primary follows now; else it is stopped and keeps its data",
        "commits_lost": "commits of the former primary that are lost; `null` where that is unknown",
        "uploads_missing": "uploads whose files the primary does not have",
        **_MEMBERS,
    },
    "logs": {
        "lines": "list of log lines, secrets blanked; empty with `-f`, which prints them as they come",
        "changes": "with `--changes` or `--refused`: list of objects `time`, `client`, `user`, `action`, `target`, "
        "`details` (names of fields, or a file), `status`; else empty",
    },
    "open": {"address": "address that was opened, or is to be; it logs in once", "opened": "whether a browser started"},
    "stats": {
        "name": "name of the deployment",
        "since": "when counting began, ISO 8601",
        "front": "who answers clients since the last start: `nginx VERSION (ORIGIN)`, or `python: ` and why; or null",
        "indexes": "`{USER/NAME: {requests, hits, misses, bytes_served, bytes_saved, refused}}`; "
        "`refused`: `{rule: number}`",
        "upstreams": "`{origin: {requests, failures, bytes, slowest}}`; `slowest` in seconds",
        "missed": "what was asked for in vain since the server was switched offline: `since`, `indexes` "
        "(`{USER/NAME: {projects, files}}`, each `{name: requests}`), `left_out`: requests beyond the limit; or `null`",
        "hours": "with --since, instead of all counts: list of objects: `hour` (ISO 8601), `requests`, `hits`, "
        "`misses`, `errors`, `bytes_served`, `bytes_saved`, `upstreams` (`{origin: {requests, failures, bytes, "
        "answered, waited, slowest}}`; `waited`: seconds until answers began, in all)",
        "members": "of a cluster, list of objects: `number`, and the counts of this member",
    },
    "top": {
        "at": "the time at the server, ISO 8601",
        "counted": "as `stats` has it: `since`, `indexes`, `upstreams`",
        "upstreams": "`{origin: {state, asking}}`; `state`: `up`, `quiet` or `down`; `asking`: requests under way",
        "threads": "`total`, `busy`, and `queued`: requests that wait for a thread",
        "quotas": "`{USER/INDEX: {used, limit}}`: bytes of uploads, and those that `indexes.X.quota` allows",
        "recent": "list of the latest requests: `time`, `client`, `method`, `path`, `status`, `bytes`, `seconds`, "
        "`sent_by` (`page`, `file`, `devpi`), `hit` (`true`, `false`; `null` for other requests)",
    },
    "doctor": {"checks": "list of objects: `name`, `level` (`ok`, `warning`, `failure`), `evidence`, `cure`"},
    "verify": {
        "index": "address of the index",
        "wanted": "list: what the installers were given",
        "runs": "list of objects: `client`, `through` (how it got the index), `run` (`first`, `again`, `upstream cut`),"
        " `seconds`, `start` (of the seconds, in which the client only starts), `goal` in seconds,"
        " `asked` (requests to upstreams meanwhile), `files` (list of objects: `name`,"
        " `version`, `origin` (`upstream`, `here`, `past the index`, `unknown`), `bytes`)",
        "notes": "list: what could not be shown, and why",
    },
    "offline on": _OFFLINE,
    "offline off": _OFFLINE,
    "offline status": _OFFLINE,
    "offline check": {
        "index": "the index that was asked",
        "checked": "list of objects: `source`, `python`, `platform` (empty: this host's), number of `files`, "
        "`installed_by` (empty: resolved and read), `ok`",
        "holes": "list of objects: `source`, `python`, `platform`, `by`, `project`, `version`, `file`, `why`",
        "warm": "command that fills the holes; empty without holes",
    },
    "warm": {
        "index": "the index that was asked",
        "targets": "list of objects: `python`, `platform` (empty: this host's)",
        "cached": "number of files that were here",
        "fetched": "list of files that were not",
        "bytes": "their size",
        "missing": "list of objects: `project`, `version`, `file`, `why`",
        "unresolved": "list of lines: what uv or pip could not resolve",
    },
    "move": {
        "from": "where the data was",
        "to": "where it is",
        "files": "number of files that were copied",
        "bytes": "their size",
        "sha256": "checksum over all of them",
        "url": "address of the server",
    },
    "adopt": {
        **_INDEX,
        "source": "the directory or address",
        "dry_run": "whether nothing was to change",
        "uploaded": "list of files",
        "new": "of a dry run, or with conflicts: list of files that would be uploaded",
        "bytes": "size of what was uploaded",
        "same": "list of files that were there already",
        "conflicts": "list of lines: files with the same name and other content",
        "invalid": "list of lines: files that were left out, with the reason",
    },
    "backup create": {
        **_BACKUP,
        "new_bytes": "bytes that were not in the directory before",
        "linked": "number of files that are hard links to those of the data",
        "seconds": "how long it took",
    },
    "backup list": {"directory": "directory of the backups", "backups": "list of objects with the keys of a backup"},
    "backup fetch": {"directory": "directory of the backups", "backups": "list of objects with the keys of a backup"},
    "backup verify": {
        **_BACKUP,
        "installed": "file that pip installed from the restored server; empty if there was none to install",
        "password": "whether root logged in with the password of the backup; otherwise with a new one",
    },
    "backup restore": {
        **_BACKUP,
        "data": "data directory or volume",
        "kept": "where the data is that was there before; empty if there was none",
        "url": "address of the server",
    },
    "backup prune": {
        "directory": "directory of the backups",
        "removed": "list of names",
        "kept": "list of names",
        "freed_bytes": "size of what was removed",
    },
    "check": {
        "files": "number of files that the database knows",
        "bytes": "bytes that were read",
        "database": "object: `bytes`, `free_bytes` (of unused pages), `serial`",
        "findings": "list of objects: `kind` (`damaged`, `missing`, `orphan`, `page`, `served`), `path`, `why`, "
        "`mirror`, `done`",
    },
    "compact": {
        "before_bytes": "size of the database before",
        "after_bytes": "its size after",
        "unused_bytes": "size of its unused pages before",
    },
    "upgrade": {
        "before": "version of devpi-server that ran before",
        "after": "version of devpi-server after it",
        "converts": "whether the data has to be converted",
        "due": "whether there is anything to upgrade",
        "database": "size of the database in bytes",
        "needed": "bytes of the disk that the upgrade needs",
        "free": "bytes of the disk that are free",
        "url": "address of the server",
        "uploads": "number of uploads that were carried over",
        "cached": "number of cached files that were carried over",
        "kept": "name of the data that is kept for a rollback; empty when nothing was done",
        "convert_seconds": "duration of the conversion, beside the running server",
        "switch_seconds": "time without a server",
    },
    "rollback": {
        "url": "address of the server",
        "server_version": "version of devpi-server before the upgrade",
        "aside": "directory of the uploads since the upgrade; empty when there are none",
        "lost": "list: these uploads, `USER/INDEX/FILE`",
        "commands": "list: commands that upload them again",
    },
    "audit": {
        "index": "the index that was looked at",
        "projects": "list of objects: `name`, `served_by`, what each installer `got`, `ok`",
        "left_out": "number of projects that were not looked at",
        "files": "list of objects: `mirror`, `project`, `filename`, `version`, `rule`, `until`, `reason`, `cached`; "
        "what is held back, with `--policy` what of it is cached, with `--changes` what an upstream has replaced",
        "taken": "with `--changes`: list of objects: `index`, `project`, `first`, `now`; projects of ordered indexes "
        "that another base would serve now than at first",
    },
    "why": {
        **_INDEX,
        "project": "normalised name",
        "version": "the version that was asked for, empty for all",
        "served_by": "list of indexes",
        "known_in": "list of indexes that have the project",
        "owner": "the index that owns the name by a pattern, or null",
        "let_in": "list of versions of mirrors with a file that no rule holds back",
        "held": "list of objects as `files` of `audit`",
        "taken": "as of `audit`",
        "cached": "list of stored files",
    },
    "render": {
        "engine": "as of `up`; empty for files of Prometheus and Grafana",
        "argv": "list: the command that would be run",
        "text": "the script, command line, unit or file; empty with `files`",
        "files": "list of the paths of what was written with `--output`",
    },
    "configure-pip": _PIP,
    "clients list": {
        "clients": "list of objects: `name`, `program`, `index`, `source`, `key`, `ours`, `reads`, `note`; "
        "`ours` is `null` where it is not known"
    },
    "clients apply": _FILES,
    "clients diff": {"files": "as of `clients apply`, with `diff`"},
    "clients login": {
        "path": "the file",
        "changed": "whether it was changed",
        "host": "host of the login",
        "user": "its user",
        "index_url": "the index that it was tried at",
    },
    "clients logout": {"path": "the file", "changed": "whether it was changed"},
    "clients undo": _FILES,
    "clients doctor": {"checks": "list of objects: `name`, `level` (`ok`, `warning`, `failure`), `evidence`, `cure`"},
    "locks check": {"files": "list of objects: `path`, `addresses` (`line`, `url`)"},
    "locks repair": {"files": "as of `locks check`: the addresses that are left, and how many were `replaced`"},
    "install-service": {
        "path": "file of the unit",
        "text": "its content",
        "timers": "list of paths: timers for the files under `warm`, and for backups",
        "removed": "with `--undo`: whether there was one",
    },
    "exec": {},
    "build": {
        "builder": "`docker`, `podman`, `buildah` or `nerdctl`",
        "flags": "with `--flags`: list of options",
    },
    "env": {
        "variables": "`{name: value}`: what to set; the address of the tunnel has its password",
        "removed": "list: names of variables to unset",
    },
    "profiles": {
        "profiles": "without a name: list of objects, `name`, `description` and `path`",
        "profile": "with a name: the whole profile",
        "sources": "with a name: `{key: file or default that says so}`",
    },
    "image build": {
        "ref": "reference of the image",
        "id": "id of the image",
        "engine": "as of `up`",
        "build": "checksum of all that went into it",
        "base": "digest of the base, or its id where it has none; empty: the engine fetched it only for the build",
    },
    "image remove": {
        "engine": "as of `up`",
        "removed": "list of images",
        "kept": "list of images that a container was made from",
    },
    "secret show": {**_USER, "password": "in clear text"},
    "secret set": _USER,
    "user list": {"users": "list of objects: `name`, and what is known of the user"},
    "user create": _USER,
    "user modify": {**_USER, "changed": "list of fields"},
    "user delete": _USER,
    "user passwd": _USER,
    "index list": _INDEXES,
    "index show": {
        "name": "`USER/NAME`",
        FIELDS: "each field that the index has, by the key of a profile",
        "base_of": "list of indexes that have it among their bases",
    },
    "index create": {**_INDEX, "type": "`mirror` or `stage`"},
    "index modify": {**_INDEX, "changed": "list of fields"},
    "index delete": _INDEX,
    "index accept": {"index": "the ordered index", "accepted": "list of objects as `taken` of `audit`"},
    "index apply": {"changes": "list: each change that was made", "kept": "list: what was not removed, and why"},
    "index export": {
        "extends": "`default`",
        "server": "as in a profile; absent for the default version",
        "users": "as in a profile",
        "indexes": "as in a profile",
        "clients": "as in a profile",
    },
    "mirror list": _INDEXES,
    "mirror create": {**_INDEX, "type": "`mirror`"},
    "mirror modify": {**_INDEX, "changed": "list of fields"},
    "mirror delete": _INDEX,
    "mirror refresh": {
        "mirrors": "list of mirrors",
        "changed": "list of `USER/INDEX/PROJECT` with a new page",
        "unchanged": "number of projects whose page is as it was",
        "gone": "list of projects that the upstream does not have",
        "unanswered": "list of projects for which the upstream did not answer",
    },
    "mirror malicious": {
        "advisories": "number of advisories in the list",
        "projects": "number of projects that they name",
        "changed": "whether the list is another one than before",
    },
    "mirror rotate": {"mirrors": "list of mirrors", "changed": "whether any credential was new"},
    "package list": {**_INDEX, "projects": "list of names"},
    "package show": {
        **_INDEX,
        "versions": "list, newest first",
        "files": "list of objects: `filename`, `version`, `sha256`, `url`",
    },
    "package upload": {**_INDEX, "uploaded": "list of files", "skipped": "list of files that were there already"},
    "package download": {**_INDEX, "downloaded": "list of paths", "skipped": "list of paths that were there already"},
    "package push": {
        **_INDEX,
        "target": "where it was copied to",
        "version": "version of the release",
        "files": "list of files",
    },
    "package remove": {**_INDEX, "project": "its name", "version": "empty when the whole project was removed"},
    "bundle create": {
        "path": "the bundle",
        "files": "number of files of indexes",
        "bytes": "size of the bundle",
        "kept": "number of files that an interrupted run had written",
        "indexes": "list of indexes with files in it",
        "image": "reference of the server's image; `null` without it",
        "wheels": "number of wheels of deployer and the server",
        "delta": "whether files that the other side has are left out",
        "signed": "whether it is signed",
    },
    "bundle inspect": {
        "path": "the bundle",
        "created": "time, ISO 8601",
        "deployer": "version of deployer that wrote it",
        "delta": "as of `bundle create`",
        "bytes": "size of all members",
        "signed": "whether it has a signature",
        "verified": "whether the signature was verified",
        "image": "as of `bundle create`",
        "wheels": "list of file names",
        "files": "list of objects: `index`, `project`, `filename`, `sha256`, `size`",
    },
    "bundle load": {
        "url": "address of the server",
        "loaded": "list of `USER/NAME/FILENAME`: files that are new here",
        "bytes": "their size",
        "same": "number of files that were here already",
        "invalid": "list of lines: uploads that are no valid distributions, with the reason",
    },
    "bundle manifest": {"path": "the manifest", "files": "number of files in it"},
    "cache list": {
        "projects": "list of objects: `index`, `project`, `versions`, `files`, `uploads`, `bytes` on the disk, "
        "`first`, `last` (ISO 8601), `uses`, `origin` (the upstream; empty of uploads)",
        "left_out": "number of projects beyond --limit",
    },
    "cache show": {
        "files": "list of objects: `index`, `project`, `version`, `kind` (`file`, `upload`, `page`, `companion`), "
        "`path`, `size`, `bytes` on the disk, `first`, `last` (ISO 8601), `uses`, `origin`",
    },
    "cache du": {
        "kinds": "`{file|upload|page|companion: {number, bytes}}`",
        "indexes": "`{USER/NAME: bytes}`",
        "projects": "list of the largest: `index`, `project`, `bytes`, `last`",
        "database_bytes": "size of the database",
        "free_bytes": "bytes of the disk that are free",
    },
    "cache prune": {
        "dry_run": "whether nothing was removed",
        "removed": "`{file|page|companion: {number, bytes}}`",
        "projects": "`{USER/NAME/PROJECT: bytes}`",
        "freed_bytes": "bytes that the disk has more, without those of `linked_bytes`",
        "linked_bytes": "bytes of files that are in backups, too, and so stay on the disk",
        "spared": "`{reason: number}`: `warm` (listed by `warm` of the profile), `unlisted` (their upstream does not "
        "list them now), `rules` (pages that rules need)",
        "cache_bytes": "what cached files, pages and metadata take now",
    },
    "cache save": {
        "directory": "where it was saved",
        "files": "number of files in it",
        "bytes": "their size",
        "changed": "whether the directory was written; false if it had exactly these files",
        "sha256": "checksum of the names and contents, for the key of a CI cache",
        "dropped": "number of cached files that the job does not need",
        "too_large": "number of needed files that exceed --max-size",
        "missing": "list of releases of the lock files that are not cached",
    },
    "cache restore": {
        "directory": "what was restored",
        "restored": "number of files that are new here",
        "bytes": "their size",
        "same": "number of files that were here already",
        "skipped": "list of lines: files or indexes that do not fit this server, with the reason",
    },
    "tls ca": {
        "path": "file of the CA's certificate",
        "text": "the certificate, PEM",
        "url": "address of HTTPS",
        "simple_url": "address that installers on other hosts are given",
    },
    "tls renew": {
        "changed": "whether the server had another certificate",
        "ends": "when the certificate expires, ISO 8601",
        "fingerprint": "SHA-256 of the certificate",
    },
    "plugins lock": {
        "path": "the lock file",
        "changed": "whether it was written",
        "pinned": "list of NAME==VERSION: the plugins, and what they need beside the server",
    },
    "token create": {
        **_USER,
        "token": "the token",
        "expires": "ISO 8601, or empty",
        "allowed": "list of `upload` and `pkg_read`",
        "indexes": "list of indexes that it is valid for, with their bases if it reads",
        "projects": "list of projects that it may upload; empty for all",
        "upload_url": "address for twine",
        "simple_url": "address for installers",
    },
    "token exchange": {
        **_USER,
        "token": "the token",
        "expires": "ISO 8601",
        "indexes": "list of indexes of the rule",
        "allowed": "list of `upload` and `pkg_read`",
    },
    "token list": {**_USER, "tokens": "list of objects: `id`, what it may do, when it expires"},
    "token revoke": {**_USER, "revoked": "list of ids"},
}
"""Verb, key of ``data``, meaning."""
