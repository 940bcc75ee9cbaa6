"""What every client file of text has in common: its encoding, and what may stand in a value. Pure."""

from __future__ import annotations

from deployer.clients.client import Values
from deployer.errors import ClientFileError

MAX_BYTES = 1 << 18


def decode(raw: bytes) -> str:
    """The text of a file. Raises ClientFileError with the place of the first byte that is not UTF-8."""
    if len(raw) > MAX_BYTES:
        raise ClientFileError(f"larger than {MAX_BYTES} bytes", hint="move it away")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ClientFileError(f"not UTF-8 at byte {error.start}", hint="convert it to UTF-8") from None


def check_values(values: Values) -> None:
    """Raise ClientFileError for a value that is empty, or that could begin another setting."""
    for option, value in values.items():
        # A line end in a value would begin another setting: an injection.
        if not value or not value.isprintable() or any(character.isspace() for character in value):
            raise ClientFileError(
                f"invalid {option}: empty, or with a blank or control character", hint="correct the profile"
            )
