# Copyright: The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""Releases: a directory or an archive, named by its content, so that the same content is deployed once."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path


def release_files(source: Path, exclude: Iterable[str] = ()) -> Iterator[Path]:
    """Yield the files below a directory in a fixed order, without those that have an excluded name in their path.

    A link to a file counts as the file. A link to a directory raises ValueError: it might lead in a circle.
    """
    excluded = frozenset(exclude)
    for directory, directories, files in os.walk(source):
        directories[:] = sorted(set(directories) - excluded)
        for name in directories:
            if Path(directory, name).is_symlink():
                raise ValueError(f"{Path(directory, name)} is a link to a directory: put the directory itself there")
        yield from (Path(directory, name) for name in sorted(set(files) - excluded))


def release_name(source: Path, exclude: Iterable[str] = ()) -> str:
    """Name a directory or an archive by its content: 16 hexadecimal digits.

    Of a directory, paths and contents count; owners, modes and times do not, since another checkout has others.
    """
    digest = hashlib.sha256()
    if source.is_dir():
        for file in release_files(source, exclude):
            digest.update(f"{file.relative_to(source).as_posix()}\0{_file_digest(file)}\n".encode())
    else:
        digest.update(_file_digest(source).encode())
    return digest.hexdigest()[:16]


def release_archive(source: Path, target: Path, exclude: Iterable[str] = ()) -> None:
    """Pack a directory into a compressed tar archive that root owns and everybody may read, times kept."""
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    with tarfile.open(partial, "w:gz", dereference=True) as archive:
        for file in release_files(source, exclude):
            archive.add(file, file.relative_to(source).as_posix(), filter=_public)
    # Several hosts may be served at once: whoever reads the archive sees a whole one.
    partial.replace(target)


def _public(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry


def _file_digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
