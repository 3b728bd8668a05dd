"""What an OSError means to a user: the disk is full, the folder may not be written, or the disk fails."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from jadevectordb.model.errors import ErrorCode, JadeError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def disk_error(error: OSError, what: str, path: Path) -> JadeError:
    """The OSError as an error a user can act on. what: the attempt, as in "append to the log"."""
    cause = error.strerror or str(error)
    details: dict[str, Any] = {"path": str(path), "errno": error.errno}
    if error.errno in _FULL:
        return JadeError(
            ErrorCode.DISK_FULL,
            f"could not {what} at {path}: {cause}. Free some space and retry; nothing was written",
            details=details,
        )
    if error.errno in _REFUSED:
        return JadeError(
            ErrorCode.READ_ONLY,
            f"could not {what} at {path}: {cause}. Make the folder writable for this user and retry",
            details=details,
        )
    return JadeError(
        ErrorCode.IO_ERROR, f"could not {what} at {path}: {cause}. Check the disk before going on", details=details
    )
