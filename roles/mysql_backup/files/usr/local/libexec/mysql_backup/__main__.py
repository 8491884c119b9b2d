"""Back up this MySQL node, keep its binary logs, prove the backups by restoring them, and restore.

    mysql_backup backup                   a full backup by CLONE, then what retention no longer keeps is removed
    mysql_backup list                     what there is, how far the binary logs reach, what was verified
    mysql_backup verify                   restore the newest backup into an instance of its own and check every table
    mysql_backup restore --dry-run --until "2026-03-01 09:59"
    mysql_backup restore --side --before-gtid 3e11fa47-71ca-11e1-9e33-c80aa9429562:23

Its directory holds full/NAME (archive, checksum, manifest) and binlogs/SERVER_UUID.N, one "line" of binary logs: files that follow each
other without a gap. A server begins another line when it begins its binary logs anew, or has purged what was not copied in time.

Full backups are found consistent by MySQL's own recovery. A restore is made in an instance of its own, which listens on a socket alone,
applies the binary logs there as a replica applies its relay log, and replaces the node's data only when it has succeeded.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from pathlib import Path

from backups import backup, check, copy, listing, prune, verify
from common import Refused, read_json, say
from restore import restore
from store import Store, locked
from stream import stream

CONFIG = "/etc/mysql/webstack-backup.json"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--config", default=CONFIG, help="settings (default: %(default)s)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    make = command(
        "backup",
        backup,
        "make a full backup, unless this node is the primary, and remove what retention no longer keeps",
    )
    make.add_argument("--on-primary", action="store_true", help="also on the primary")
    command("prune", prune, "remove what retention no longer keeps")
    proof = command("verify", verify, "restore a backup into an instance of its own and check every table")
    proof.add_argument(
        "name", nargs="?", default="", help="the backup (default: the newest, unless this node is the primary)"
    )
    proof.add_argument("--identity", default="", metavar="FILE", help="age identity of encrypted backups")
    shown = command("list", listing, "show what there is")
    shown.add_argument("--json", action="store_true", help="for programs")
    command("check", check, "say whether backups could be made as the settings want them")
    command("stream", stream, "copy the binary logs as they are written (a service runs this)")
    command("copy", copy, "copy everything to the other places of the settings")
    back = command("restore", restore, "restore this node, or an instance beside it; read-only either way")
    back.add_argument("name", nargs="?", default="", help="the backup (default: the newest that can lead there)")
    where = back.add_mutually_exclusive_group()
    where.add_argument(
        "--until",
        metavar="TIME",
        help="to the last transaction before this time: 2026-03-01 09:59:30 (UTC), or with an offset",
    )
    where.add_argument("--before-gtid", metavar="UUID:N", help="to the last transaction before this one")
    where.add_argument("--no-binlogs", action="store_true", help="what the backup holds, and nothing after it")
    back.add_argument("--side", action="store_true", help="into an instance beside the node's own, on a socket alone")
    back.add_argument("--over", action="store_true", help="even if this node holds data, which is lost then")
    back.add_argument(
        "--from", dest="source", metavar="DIRECTORY", help="backups that lie elsewhere, a copy for example"
    )
    back.add_argument("--identity", default="", metavar="FILE", help="age identity of encrypted backups")
    back.add_argument("--dry-run", action="store_true", help="say what would be restored")
    return top


UNLOCKED = (stream, listing, check)


def main() -> int:
    options = parser().parse_args()
    try:
        config = read_json(Path(options.config))
        store = Store(getattr(options, "source", None) or config["directory"])
        with contextlib.nullcontext() if options.run in UNLOCKED else locked(Store(config["directory"])):
            return options.run(config, store, options)
    except Refused as refusal:
        say(f"mysql_backup {options.command}: {refusal}")
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"mysql_backup {options.command}: {error}")
    except Exception as error:
        if not type(error).__module__.startswith("pymysql"):
            raise
        say(f"mysql_backup {options.command}: MySQL: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
