"""The smallest application that has everything to look at: settings, a secret, what its sandbox lets it do, a health that can be bad."""

import json
import os
import pathlib
import time

VERSION = 1


def attempt(action, *arguments):
    """Say whether the operating system lets us."""
    try:
        action(*arguments)
    except OSError:
        return False
    return True


def application(environ, start_response):
    """Answer every path with what the process knows of itself, what ends in /slow after a while."""
    time.sleep(1 if environ["PATH_INFO"].endswith("/slow") else 0)
    here = pathlib.Path(__file__).resolve().parent
    body = {
        "version": VERSION,
        "greeting": os.environ["GREETING"],
        "password": os.environ["PASSWORD"],
        "can": {
            "change its code": attempt((here / "new").write_text, "x"),
            "read the file of its secrets": attempt(pathlib.Path("/etc/gunicorn/hello.env").read_text),
            "see other processes": attempt(os.stat, "/proc/1"),
            "write to /tmp": attempt(pathlib.Path("/tmp/hello").write_text, "x"),  # noqa: S108
        },
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]
