"""Archives as JSON Lines files in a folder for each database: `jade import` and `Database.import_file` read them back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from jadevectordb.adapters.os_disk import disk_error, fsync_directory, make_directory


class FileArchive:
    """The archive port over ROOT/DATABASE/NAME.jsonl."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, database: str, name: str, lines: Iterable[bytes]) -> str:
        folder = self._root / database
        try:
            make_directory(folder)
            path = _free(folder, name)
            draft = path.with_name(path.name + ".unfinished")
            try:
                with draft.open("wb") as file:
                    for line in lines:
                        file.write(line + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                draft.rename(path)
                fsync_directory(folder)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise disk_error(error, "write an archive", folder) from error
        return str(path)


def _free(folder: Path, name: str) -> Path:
    path, number = folder / f"{name}.jsonl", 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}.jsonl"
    return path
