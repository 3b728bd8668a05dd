"""Delivering password resets by a program of the operator's: it gets one JSON object on standard input and sends a mail, say."""

from __future__ import annotations

import json
import shlex
import subprocess

from jadevectordb.model.errors import ErrorCode, JadeError

_WITHIN_S = 30.0


class ResetCommand:
    """command: split as a shell would, but run without one."""

    def __init__(self, command: str) -> None:
        self._words = shlex.split(command)

    def __call__(self, *, user_id: str, username: str, email: str, token: str, expires_ms: int) -> None:
        """Raises IO_ERROR when the program can't be run, takes too long or fails; its output is not shown, it may hold the token."""
        told = {"user_id": user_id, "username": username, "email": email, "token": token, "expires_ms": expires_ms}
        try:
            done = subprocess.run(
                self._words, input=json.dumps(told).encode(), capture_output=True, timeout=_WITHIN_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise JadeError(
                ErrorCode.IO_ERROR, f"auth.reset_command could not be run ({type(error).__name__})."
            ) from None
        if done.returncode:
            raise JadeError(ErrorCode.IO_ERROR, f"auth.reset_command failed with exit code {done.returncode}.")
