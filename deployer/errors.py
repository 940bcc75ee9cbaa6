"""The errors of deployer, with their codes and exit codes.

::

    DeployerError            1   internal              an internal error
    ├── UsageError           2   usage                 the command line is invalid
    ├── ProfileError         3   profile-invalid       the profile is wrong (all problems at once)
    ├── EngineError          4   engine-failed         the engine refused or failed
    │   ├── EngineUnreachable    engine-unreachable    no engine answers
    │   └── ImageUnavailable     image-unavailable     the image can't be built or pulled
    ├── ConflictError        5   conflict              port, name or data directory is in use or unusable
    ├── NotReadyError        6   not-ready             not ready before the deadline, or the server died
    ├── ServerRefused        7   server-refused        credentials, API or index definition refused
    ├── ClientFileError      8   client-file           a client file can't be read or written
    ├── VerificationError    9   verification-failed   persistence, backup or client self-test failed
    ├── DriftError          10   drift                 what runs differs from the profile
    ├── Refused             11   refused               not safe; the message names the key that insists
    ├── OutputError         74   output                stdout can't be written; the work is done
    ├── Locked              75   locked                another run holds the lock of this deployment
    ├── NotExecutable      126   not-executable        the program of `exec` can't be executed
    ├── NotFound           127   not-found             the program of `exec` does not exist
    └── Interrupted        130   interrupted           stopped by the user
"""

from __future__ import annotations

from typing import ClassVar

from deployer.protocol import ExitCode, Refusal


class DeployerError(Exception):
    """A failure, shown to the user as one line of cause and one of cure.

    ``message``: the cause, one line (lists of problems have more). ``hint``: the cure, one command or one imperative
    sentence; may be empty. ``details``: lines for diagnosis, such as log lines, shown below.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = ExitCode.INTERNAL
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class UsageError(DeployerError):
    code = "usage"
    exit_code = ExitCode.USAGE


class ProfileError(DeployerError):
    code = "profile-invalid"
    exit_code = ExitCode.PROFILE


class EngineError(DeployerError):
    code = "engine-failed"
    exit_code = ExitCode.ENGINE


class EngineUnreachable(EngineError):
    code = "engine-unreachable"
    retryable = True


class ImageUnavailable(EngineError):
    code = "image-unavailable"
    retryable = True


class ConflictError(DeployerError):
    code = "conflict"
    exit_code = ExitCode.CONFLICT


class NotReadyError(DeployerError):
    code = "not-ready"
    exit_code = ExitCode.NOT_READY
    retryable = True


class ServerRefused(DeployerError):
    code = "server-refused"
    exit_code = ExitCode.SERVER_REFUSED


class ClientFileError(DeployerError):
    code = "client-file"
    exit_code = ExitCode.CLIENT_FILE


class VerificationError(DeployerError):
    code = "verification-failed"
    exit_code = ExitCode.VERIFICATION


class DriftError(DeployerError):
    code = "drift"
    exit_code = ExitCode.DRIFT


class Refused(DeployerError):
    code = "refused"
    exit_code = ExitCode.REFUSED


class OutputError(DeployerError):
    code = "output"
    exit_code = ExitCode.OUTPUT


class NotExecutable(DeployerError):
    code = "not-executable"
    exit_code = ExitCode.NOT_EXECUTABLE


class NotFound(DeployerError):
    code = "not-found"
    exit_code = ExitCode.NOT_FOUND


class Locked(DeployerError):
    code = "locked"
    exit_code = ExitCode.LOCKED
    retryable = True


class Interrupted(DeployerError):
    code = "interrupted"
    exit_code = ExitCode.INTERRUPTED
    retryable = True


_BY_EXIT_CODE: dict[int, type[DeployerError]] = {
    kind.exit_code: kind for kind in (ConflictError, VerificationError, Refused, Locked)
}


def of_refusal(refusal: Refusal, *, prefix: str = "") -> DeployerError:
    """The error for a server's refusal; NotReadyError for an exit code after which a restart may help."""
    kind = _BY_EXIT_CODE.get(refusal.code, NotReadyError)
    return kind(f"{prefix}{refusal.message}", hint=refusal.hint)
