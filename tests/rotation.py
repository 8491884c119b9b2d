"""A rotation of every secret while visitors read and sign, interrupted where it hurts most, and what could be seen of it meanwhile."""

import contextlib
import http.client
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

from lab import CHECKOUT, INVENTORY, SECRETS, SITE, VIRTUAL_IP, on

# The new secrets are in the application's file, and its processes still have the old ones.
WORST_MOMENT = "TASK [foobar.webstack.gunicorn : Switch to the release]"
# They have no secret at all; without them a run is shorter.
OTHERS = "firewall,hardening,nginx,keepalived,mysql_backup,intrusion_detection"


def generated():
    """The secrets in the files beside the lab's inventory, by name."""
    return {file.name: file.read_text().strip() for file in SECRETS.iterdir() if file.is_file()}


class Loop:
    """Does something again and again in threads of its own, from the begin of a with block to its end."""

    threads, pause = 1, 0.0

    def __enter__(self):
        self.stop = threading.Event()
        self.running = [threading.Thread(target=self.loop) for _ in range(self.threads)]
        for thread in self.running:
            thread.start()
        return self

    def __exit__(self, *_exception):
        self.stop.set()
        for thread in self.running:
            thread.join()

    def loop(self):
        while not self.stop.is_set():
            self.once()
            self.stop.wait(self.pause)


class Signers(Loop):
    """Visitors who fetch the form, sign it and come back, each request on a connection of its own through the virtual IP."""

    threads, pause = 2, 0.3

    def __init__(self, address=VIRTUAL_IP, ca=SECRETS / "tls" / "ca.crt"):
        self.address, self.tls = address, ssl.create_default_context(cafile=ca)
        self.requests, self.signed, self.failures = 0, [], []

    def ask(self, method, body=None, cookie="", path="/guestbook/"):
        self.requests += 1
        connection = http.client.HTTPSConnection(SITE, timeout=10, context=self.tls)
        raw = socket.create_connection((self.address, 443), timeout=10)
        connection.sock = self.tls.wrap_socket(raw, server_hostname=SITE)
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        try:
            connection.request(method, path, body, {"Cookie": cookie, "Connection": "close"} | kind)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Set-Cookie", "").split(";")[0], answer.read().decode()
        finally:
            connection.close()

    def once(self):
        message = secrets.token_hex(8)
        try:
            status, cookie, page = self.ask("GET")
            assert status == 200, f"{status} to a reader"
            token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page).group(1)
            form = urlencode({"csrf_token": token, "name": "Ada", "message": message})
            status, _, page = self.ask("POST", form, cookie)
            assert status == 303, f"{status} to a signer"
            self.signed.append(message)
        except (AssertionError, OSError, http.client.HTTPException) as error:
            self.failures.append(f"{time.strftime('%X')} {error!r}")


class Processes(Loop):
    """The command line of every process of this machine, and so of the servers, that was seen to run."""

    pause = 0.05

    def __init__(self):
        self.seen, self.looked_at = set(), Counter()

    def once(self):
        running = [name for name in os.listdir("/proc") if name.isdigit()]
        # What has begun is looked at in each turn, since it may become another program; what goes on for longer, now and then.
        self.looked_at = Counter({name: self.looked_at[name] + 1 for name in running})
        for name, times in self.looked_at.items():
            if times < 10 or times % 10 == 0:
                with contextlib.suppress(OSError):  # It may have ended.
                    self.seen.add(Path("/proc", name, "cmdline").read_bytes())


def rotate_until(text, output):
    """Rotate every secret, kill the run as soon as it says the given text, and append what it said to a file. True if it was killed."""
    command = (
        *("ansible-playbook", "--inventory", INVENTORY, "playbooks/rotate_secrets.yml"),
        *("--diff", "-vvv", f"--skip-tags={OTHERS}"),
    )
    with (
        subprocess.Popen(
            command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process,
        output.open("a") as record,
    ):
        for line in process.stdout:
            record.write(line)
            if text and text in line:
                os.killpg(process.pid, signal.SIGKILL)
                return True
    return process.returncode != 0


def replica():
    """What changes when the replica is seeded again or its applier starts again: both processes."""
    applier = "SELECT THREAD_ID FROM performance_schema.replication_applier_status_by_coordinator"
    return on(
        "server3", f"systemctl show --property=MainPID mysql; mysql --skip-column-names --execute '{applier}'"
    ).stdout


def rotate_under_load(directory):
    """Rotate everything while visitors sign: killed at the worst moment, and run again to its end. Returns all that was seen."""
    output = directory / "output"
    before, replica_before = generated(), replica()
    with Signers() as signers, Processes() as processes:
        time.sleep(1)
        killed = rotate_until(WORST_MOMENT, output)
        between = generated()
        interrupted_at = len(signers.signed)
        time.sleep(2)
        failed = rotate_until(None, output)
        time.sleep(1)
    return SimpleNamespace(
        before=before,
        between=between,
        after=generated(),
        killed=killed,
        failed=failed,
        signed_in_between=len(signers.signed) - interrupted_at,
        signers=signers,
        processes=processes.seen,
        output=output,
        replica=(replica_before, replica()),
    )
