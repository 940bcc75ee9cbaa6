"""Prove that a backup can be restored: on a scratch server, which is checked, logged in to, and installed from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.clients.installers import install
from deployer.deployment.lock import hold
from deployer.deployment.record import read_applied
from deployer.errors import ConflictError, ServerRefused, VerificationError
from deployer.operations.backup import Place, calling, chosen
from deployer.operations.once import TIMEOUT, answer, on_data
from deployer.operations.prepare import Prepared, prepare
from deployer.operations.restore import fill, profile_of
from deployer.operations.up import have_own_image
from deployer.profile.load.overrides import Override
from deployer.protocol import Backup, PrivateFile
from deployer.readiness import wait
from deployer.secrets import Secret
from deployer.spec import EngineName

if TYPE_CHECKING:
    from deployer.ui.output import UI

AGAIN = "deployer backup verify"


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was proved. ``installed``: the file that pip installed; empty where the backup has no wheel.
    ``password``: root logged in with the password of the backup, not with a new one."""

    backup: Backup
    installed: str
    password: bool


def verify(
    profile: str, name: str, *, where: Place, wanted: str, engine: str, identity: Path | None, ui: UI
) -> Verified:
    """Restore a backup to a scratch server on loopback; check it as devpi does, log in, and install from it.

    ``wanted``: name of the backup. ``identity``: key of its secrets. Raises VerificationError, and as ``restore``.
    """
    backup, scratch = chosen(where, wanted), f"{name[:50]}-verify"
    secrets = _secrets(backup, identity)
    with hold(name, purpose="verification"), ExitStack() as stack:
        prepared = _scratch(profile, name, backup, where, scratch, engine)
        data = Path(prepared.plan.data.source)
        _check_free(prepared)
        have_own_image(prepared, ui)
        spec = calling(prepared, "verify", where.directory, words=("--backup", backup.name))
        with ui.working("hashes", f"{backup.name} in {where.directory}"):
            wheel = str(answer(prepared.engine, spec, doing="the verification", again=AGAIN)["wheel"])
        ui.step("hashes", f"{backup.name}: {backup.files} files and the database, all compared")
        shutil.rmtree(data, ignore_errors=True)  # of a run that was killed
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        fill(prepared, where, backup, secrets=secrets, rollback=stack, ui=ui)
        _fsck(prepared, ui)
        stack.callback(prepared.engine.remove, scratch)
        prepared.engine.run(replace(prepared.plan.spec, restart="no"))
        _log_in(prepared, ui)
        installed = _install(prepared, wheel, ui)
    return Verified(backup=backup, installed=installed, password=PrivateFile.ROOT_PASSWORD in secrets)


def _secrets(backup: Backup, identity: Path | None) -> Mapping[str, str]:
    from deployer.operations.secrets import decrypted

    return decrypted(backup.secrets, identity) if identity is not None and backup.secrets else {}


def _scratch(profile: str, name: str, backup: Backup, where: Place, scratch: str, engine: str) -> Prepared:
    applied = read_applied(name)
    chosen_engine = engine or (applied.engine if applied else "auto")
    directory = where.directory.with_name(f".{where.directory.name}.verify")
    values: dict[str, object] = {
        "engine": chosen_engine,
        "data": str(directory),
        "network.port": 0,
        "network.bind": "127.0.0.1",
        "network.outside_url": "",
        "network.tls.cert": "",
        "network.tls.key": "",
        "server.offline": True,
        "server.metrics": "",
        "server.min_free": "",
    }
    if chosen_engine not in ("auto", EngineName.PROCESS):
        values["network.mode"] = "bridge"
    own = tuple(Override(key, value, "backup verify") for key, value in values.items())
    ref, overrides = profile_of(profile, name, where, backup, own)
    return prepare(ref, scratch, overrides=overrides, moving=True, new_data=True)


def _check_free(prepared: Prepared) -> None:
    """Remove a scratch server that a killed run has left. Raises ConflictError for one that is not ours."""
    name = prepared.plan.name
    if prepared.current is not None and not prepared.current.ours:
        raise ConflictError(f"a container named {name!r} is not deployer's", hint=f"rename or remove {name}")
    prepared.engine.remove(name)


def _fsck(prepared: Prepared, ui: UI) -> None:
    """Run devpi's own check on the restored data. Raises VerificationError."""
    spec = on_data(
        prepared.plan.spec,
        purpose="fsck",
        engine=prepared.plan.engine.name,
        image=prepared.facts.image_ref,
        mounts=prepared.plan.spec.mounts[:1],
        command=lambda paths: ("fsck", "--serverdir", paths[0]),
    )
    with ui.working("fsck", "devpi-fsck"):
        done = prepared.engine.once(spec, timeout=TIMEOUT)
    if done.returncode:
        raise VerificationError(
            "devpi-fsck found errors in the restored data",
            hint="verify an earlier backup: deployer backup list",
            details=tuple((done.stdout + done.stderr).splitlines()[-8:]),
        )
    ui.step("fsck", "devpi's own check found no error")


def _log_in(prepared: Prepared, ui: UI) -> None:
    """Wait for the scratch server and log root in: with the backup's password, or with the new one that it made."""
    place = prepared.server_dir
    with ui.working("server", prepared.plan.url):
        try:
            ready = wait(
                url=prepared.plan.url,
                engine=prepared.engine,
                name=prepared.plan.name,
                expected_uuid=place.uuid,
                proof_key=place.proof_key,
                credentials=lambda: place.root_password() or Secret(""),
                index=None,
                deadline=prepared.plan.ready_timeout,
                on_stage=lambda _stage, _seconds: None,
            )
        except ServerRefused:
            raise VerificationError(
                "the restored server refuses the password of root", hint="deployer backup list"
            ) from None
        ready.api.close()
    ui.step("server", "answers, and root can log in")


def _install(prepared: Prepared, wheel: str, ui: UI) -> str:
    """Install ``wheel``, a path of the backup, with pip, without its dependencies; its path, empty if there is none."""
    if not wheel:
        ui.step("pip", "the backup has no wheel to install")
        return ""
    user, index = wheel.split("/")[:2]
    with ui.working("pip", wheel):
        failed = install(f"{prepared.plan.url}/{user}/{index}/+simple/", wheel.rpartition("/")[2])
    if failed is None:
        ui.warn("there is no pip beside deployer, so nothing was installed from the backup")
        return ""
    if failed:
        raise VerificationError(
            f"pip can't install {wheel} from the restored server",
            hint="verify an earlier backup: deployer backup list",
            details=tuple(failed.splitlines()[-5:]),
        )
    ui.step("pip", f"installed {wheel}")
    return wheel
