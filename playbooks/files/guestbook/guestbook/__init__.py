"""A guestbook: the small web application that the demonstration of foobar.webstack serves.

It reads its settings from the environment and nothing else:

GUESTBOOK_SECRET_KEY      signs cookies and form tokens; the same on every application server. Of several, separated by commas,
                          the first one signs and all are accepted
GUESTBOOK_WRITE_URL       mysql://USER@HOST:PORT/DATABASE, a port behind which the writable node is found
GUESTBOOK_READ_URL        the same for a node that may be read
GUESTBOOK_WRITE_PASSWORD  the password of the user in GUESTBOOK_WRITE_URL
GUESTBOOK_READ_PASSWORD   the password of the user in GUESTBOOK_READ_URL
GUESTBOOK_DB_TLS_NAME     the name that every node's certificate carries, whatever address it was reached at
GUESTBOOK_DB_CA           the certificate authority of the nodes: PEM text, or the path of a PEM file
GUESTBOOK_SERVER_NAME     what this application server calls itself on the page; without it, the host's name
"""

import os
import socket
from collections.abc import Mapping

from flask import Flask, Response, render_template, request
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from guestbook import views
from guestbook.database import Database, UnavailableError

# No script, no frame, nothing from elsewhere: a message that slips past the escaping still cannot run.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


def create_app(environment: Mapping[str, str] | None = None) -> Flask:
    """Build the application, from os.environ by default. A setting that is missing stops it here, with its name."""
    environment = os.environ if environment is None else environment
    key, *older_keys = filter(None, environment["GUESTBOOK_SECRET_KEY"].split(","))
    app = Flask(__name__, static_url_path="/guestbook/static")
    app.config.update(
        SECRET_KEY=key,
        SECRET_KEY_FALLBACKS=older_keys,
        WTF_CSRF_SECRET_KEY=[*older_keys, key],  # the last one signs
        SESSION_COOKIE_NAME="__Secure-guestbook",
        SESSION_COOKIE_PATH="/guestbook/",
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=True,
        MAX_CONTENT_LENGTH=16 * 1024,
        SEND_FILE_MAX_AGE_DEFAULT=300,
        SERVER_LABEL=environment.get("GUESTBOOK_SERVER_NAME") or socket.gethostname(),
        DATABASE=Database.from_environment(environment),
    )
    app.register_blueprint(views.pages)
    app.register_error_handler(HTTPException, show_error)
    app.register_error_handler(UnavailableError, show_unavailable)
    app.after_request(protect)
    return app


def protect(response: Response) -> Response:
    """Add the headers that every answer carries, and keep redirects on this site whatever host the request has named."""
    if response.location:
        response.location = response.location.removeprefix(request.host_url.rstrip("/"))
        response.data = b""
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "private, no-store")
    return response


def show_error(error: HTTPException) -> Response:
    """Show a page instead of a bare error; redirects and other answers made by Werkzeug keep their headers."""
    response = error.get_response()
    if response.status_code >= 400:
        response.data = render_template("error.html", error=error)
        response.content_type = "text/html; charset=utf-8"
    return response


def show_unavailable(_error: UnavailableError) -> Response:
    """Ask the visitor to come back: the cause is in the log, and is nobody else's business."""
    return show_error(ServiceUnavailable("The guestbook cannot reach its pages just now.", retry_after=5))
