"""The smallest application that has everything to look at: settings, a secret, and a health that can be bad."""

import hashlib
import json
import os


def application(environ, start_response):
    """Answer every path with what the process knows of itself."""
    body = json.dumps(
        {
            "version": 1,
            "greeting": os.environ["GREETING"],
            "secret": hashlib.sha256(os.environ["PASSWORD"].encode()).hexdigest(),
        }
    )
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body.encode()]
