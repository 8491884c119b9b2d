"""What cannot be done, what is said, and the file system."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from pathlib import Path


class Refused(Exception):  # noqa: N818
    """What cannot be done, and the remedy."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def used(directory: Path, without: str = r"(?!)") -> int:
    """Bytes of the files in a directory, but for those whose name matches."""
    total = 0
    for root, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if not re.match(without, name)]
        for name in files:
            if not re.match(without, name):
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(root, name)).st_size
    return total


def free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def read_json(path: Path, default: dict | None = None) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        if default is None:
            raise
        return default


def write(path: Path, text: str, mode: int = 0o600, durable: bool = True) -> None:
    """Write a file at once: whoever reads it sees the old text or the new one."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with open(new, "w", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(text)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    new.chmod(mode)
    new.replace(path)


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        raise Refused(f"{path} cannot be removed.")
