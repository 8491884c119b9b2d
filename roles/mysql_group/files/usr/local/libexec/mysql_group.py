"""Take this MySQL node back into its group after mysqld has started.

    mysql_group.py --node http://192.0.2.11:9201/ --peer http://192.0.2.12:9201/ --peer http://192.0.2.13:9201/

The state services say what this node and the other members are. While a majority of them works, the node joins it, again and
again: it is refused while the group still expels what it was before, or while another member joins. A group that no member is in
is not begun here, since nobody knows here who holds most; the role mysql_group does that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

ANSWER_WITHIN = 2.0  # seconds for a state service
INTERVAL = 1.0  # seconds between two looks
JOIN = (
    "mysql",
    "--no-defaults",
    "--socket=/run/mysqld/mysqld.sock",
    "--user=root",
    "--execute=START GROUP_REPLICATION",
)


def judge(mine: dict, peers: dict[str, dict]) -> tuple[str, str]:
    """Return join, wait or stay, and why."""
    group = mine.get("group")
    if mine.get("role", "down") == "down":
        return "wait", "mysqld does not answer yet"
    if mine.get("sources"):
        return "stay", f"this node is a replica of {mine['sources'][0]['source']}"
    if group is None:
        return "stay", "Group Replication is not loaded"
    if group["state"] == "ONLINE":
        return "stay", "this node is in the group"
    if group["state"] == "RECOVERING":
        return "wait", "this node fetches what it lacks"
    if group["state"] == "ERROR":
        return "stay", "the group has refused this node: the error log of mysqld says why"
    working = [url for url, peer in peers.items() if (peer.get("group") or {}).get("quorum")]
    if working:
        return "join", f"{working[0]} is in the group"
    silent = [url for url, peer in peers.items() if peer.get("role", "down") == "down"]
    if silent:
        return "wait", f"{', '.join(silent)} does not say what it is, and nobody else is in the group"
    return "stay", "no member is in the group: apply the role mysql_group to all of them, which begins it again"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def ask(url: str) -> dict:
    """Return what a state service says, nothing where there is no answer."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=ANSWER_WITHIN) as answer:
            return json.load(answer)
    except HTTPError as error:
        try:
            return json.load(error)
        except ValueError:
            return {}
    except (OSError, ValueError):
        return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", required=True, metavar="URL", help="state service of this node")
    parser.add_argument("--peer", action="append", default=[], metavar="URL", help="state service of another member")
    options = parser.parse_args()
    said = None
    while True:
        verdict, why = judge(ask(options.node), {url: ask(url) for url in options.peer})
        if (verdict, why) != said:
            say(f"{verdict}: {why}")
            said = verdict, why
        if verdict == "stay":
            return
        if verdict == "join":
            done = subprocess.run(JOIN, capture_output=True, text=True, check=False)
            if done.returncode:
                say(done.stderr.strip())
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main()
