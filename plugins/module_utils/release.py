# Copyright: The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""Releases: a directory or an archive, named by its content, so that the same content is deployed once; and the way back to one."""

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


# What one deployment switches in several tiers lies closer together, and what another one did rarely does. Hosts' clocks differ by less.
ONE_DEPLOYMENT = 3600


def way_back(tiers: dict[str, dict[str, dict]], wanted: str = "") -> dict:
    """Say to which release each tier goes back.

    tiers: for each tier, what the module switch_release says of each of its hosts. wanted: a release, in the tiers that have it. Without it,
    a tier goes to the release that was in service before, on the host that was switched last: where a deployment stopped half-way, the hosts
    that it did not reach have that one still. A tier that was switched over an hour before another was not part of what is taken back: it stays.

    Returns targets, a release for each tier, empty where it stays as it is; lines, one for each host and tier; and faults.
    """
    targets, lines, faults = {}, [], []
    newest = max((host["switched"] for hosts in tiers.values() for host in hosts.values()), default=0.0)
    for tier, hosts in tiers.items():
        last = max(hosts.values(), key=lambda host: host["switched"], default={"previous": "", "switched": newest})
        earlier = not wanted and last["switched"] < newest - ONE_DEPLOYMENT
        known = any(wanted in host["releases"] for host in hosts.values())
        asked_for, before = wanted if known else "", "" if earlier else last["previous"]
        targets[tier] = target = asked_for if wanted else before
        for name, host in hosts.items():
            if target and target not in host["releases"]:
                faults.append(
                    f"{tier}: {name} does not have {target}, but {_kept(host)}: deploy it there, or leave {name} out with --limit"
                )
            stays = target in ("", host["current"])
            lines.append(f"{name}: {tier} {host['current'] or 'nothing'} {'stays' if stays else f'→ {target}'}")
            if earlier:
                lines[-1] += ": it was switched over an hour before the other tier, so it is no part of this"
    if not any(targets.values()):
        what = f"release: {wanted} is kept by no server" if wanted else "there is no release to go back to"
        kept = [f"{name} has of {tier}: {_kept(host)}" for tier, hosts in tiers.items() for name, host in hosts.items()]
        faults.append("\n".join([what, *kept]))
    return {"targets": targets, "lines": lines, "faults": faults}


def _kept(host: dict) -> str:
    """The releases of a host, the way back from the one in service first."""
    return ", ".join(f"{name} (in service)" if name == host["current"] else name for name in host["releases"]) or "none"


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
