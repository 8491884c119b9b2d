"""An archive: the data files, packed, compressed, encrypted where wanted, with a checksum."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from pathlib import Path

from common import Refused

CHUNK = 1 << 20  # bytes


def start(commands: list[list[str]], **streams) -> list[subprocess.Popen]:
    """A pipeline of programs."""
    processes: list[subprocess.Popen] = []
    for command in commands:
        source = processes[-1].stdout if processes else streams.get("stdin", subprocess.DEVNULL)
        sink = streams.get("stdout", subprocess.PIPE) if command is commands[-1] else subprocess.PIPE
        processes.append(subprocess.Popen(command, stdin=source, stdout=sink))
        if len(processes) > 1:
            processes[-2].stdout.close()
    return processes


def finish(processes: list[subprocess.Popen]) -> str:
    """Names of the programs that failed."""
    return ", ".join(process.args[0] for process in processes if process.wait())


def pack(directory: Path, archive: Path, recipient: str) -> str:
    """Write the archive; returns its checksum."""
    commands = [["tar", "--create", f"--directory={directory}", "."], ["zstd", "--quiet", "-3", "-T0", "--stdout"]]
    commands += [["age", "--encrypt", "--recipient", recipient]] if recipient else []
    digest, processes = hashlib.sha256(), start(commands)
    try:
        with open(archive, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            while chunk := processes[-1].stdout.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        for process in processes:
            process.kill()
        finish(processes)
        raise
    failed = finish(processes)
    if failed:
        raise Refused(f"The archive could not be written: {failed} failed.")
    return digest.hexdigest()


def recorded_checksum(archive: Path, backup: dict) -> str:
    """The checksum from the file beside the archive and from the manifest, which must agree."""
    text = archive.with_name(f"{archive.name}.sha256").read_text().split()
    if text[:1] != [backup["sha256"]]:
        raise Refused(f"{archive}.sha256 and manifest.json differ: the backup is damaged. Choose another one.")
    return text[0]


def unpack(archive: Path, backup: dict, directory: Path, identity: str) -> None:
    """Unpack into a directory, which is worth nothing unless this returns: then the archive was what the checksum says."""
    expected = recorded_checksum(archive, backup)
    commands = [["zstd", "--quiet", "--decompress", "--stdout"], ["tar", "--extract", f"--directory={directory}"]]
    if backup["encrypted"]:
        if not identity:
            raise Refused(f"{archive} is encrypted: name the file of the age identity that opens it (--identity).")
        commands.insert(0, ["age", "--decrypt", "--identity", identity])
    digest, processes = hashlib.sha256(), start(commands, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    with archive.open("rb") as file, contextlib.suppress(BrokenPipeError):
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            with contextlib.suppress(BrokenPipeError):  # the checksum tells more than a program that gave up
                processes[0].stdin.write(chunk)
        processes[0].stdin.close()
    failed = finish(processes)
    if digest.hexdigest() != expected:
        raise Refused(f"{archive} is damaged: its checksum is not the recorded one. Choose another backup.")
    if failed:
        raise Refused(f"{archive} could not be unpacked: {failed} failed.")
