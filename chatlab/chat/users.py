"""Users from a file: who may connect, and with which passcode (`chatlab serve chat --users FILE`).

    # a comment
    kim:a passcode, which may contain a colon
    민지:다른 암호

For tests, a class, a handful of programs. A deployment with accounts provides its own `authenticate` (access.py).

Left out: hashed passcodes, and reading the file again. Protect the file: this module warns if others on this machine
may read it. A user in it connects under its name; nobody else is admitted, guests included.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import stat
from pathlib import Path

from chatlab.chat.access import Authenticate, Credentials
from chatlab.chat.app import User
from chatlab.errors import SetupError
from chatlab.naming import MAX_PERSON, one_spelling, shown_name, skeletons

__all__ = ["among", "passcodes_in", "read_handle_key", "read_passcodes"]

MIN_SECRET = 16  # octets of a handle key; a shorter one can be guessed

logger = logging.getLogger("chatlab.chat")


def read_passcodes(path: Path) -> dict[str, str]:
    """Return the passcode of each name in a file. Raise SetupError if it cannot be read or a line is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SetupError(f"no users in {path}: {reason}", "name a file with a NAME:PASSCODE on each line") from error
    if os.name == "posix" and mode & stat.S_IROTH:
        logger.warning("everybody on this machine may read the passcodes in %s; chmod 600 forbids it", path)
    return passcodes_in(text, str(path))


def read_handle_key(path: Path) -> bytes:
    """Return the key in a file; all octets count. Raise SetupError if it cannot be read or is too short."""
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise SetupError(f"no handle key in {path}: {error.strerror}", "name a file with a secret in it") from error
    if len(secret.strip()) < MIN_SECRET:
        raise SetupError(f"the handle key in {path} has fewer than {MIN_SECRET} octets", "draw it at random")
    return hashlib.blake2b(secret.strip()).digest()


def passcodes_in(text: str, where: str = "the users") -> dict[str, str]:
    """Return the passcode of each name. Raise SetupError that gives the line's number, and never its content."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip() or line.startswith("#"):
            continue
        name, _, passcode = line.partition(":")
        name = one_spelling(name.strip())
        if not passcode or not name or name != shown_name(name):
            raise SetupError(
                f"line {number} of {where} names no user",
                f"write NAME:PASSCODE, the name of at most {MAX_PERSON} characters",
            )
        if (other := next((each for each in found if skeletons(each) & skeletons(name)), name)) != name:
            raise SetupError(
                f"line {number} of {where} names {name!r}, which looks like {other!r}", "rename one of them"
            )
        if name in found:
            raise SetupError(f"line {number} of {where} names {name!r} for the second time", "leave one of them out")
        found[name] = passcode
    if not found:
        raise SetupError(f"nobody is named in {where}", "write NAME:PASSCODE on a line")
    return found


def among(passcodes: dict[str, str]) -> Authenticate:
    """Return an `authenticate` that admits these users. The name is also the principal: nobody else can have it."""

    def authenticate(credentials: Credentials) -> User | None:
        name = one_spelling(credentials.login or "")
        given, known = (credentials.passcode or "").encode(), passcodes.get(name, "").encode()
        # In constant time, which reveals neither how much of it was right nor whether the user exists.
        right = hmac.compare_digest(given, known)
        return User(name, name) if right and known else None

    return authenticate
