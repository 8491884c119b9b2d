"""The pages: what a visitor asks for, and what they get."""

import time
import unicodedata
from dataclasses import asdict
from urllib.parse import unquote_to_bytes

from flask import Blueprint, Response, current_app, redirect, render_template, request, session, url_for
from flask_wtf import FlaskForm
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response as Answer
from wtforms import StringField, TextAreaField
from wtforms.validators import DataRequired, Length, ValidationError

from guestbook import entries

pages = Blueprint("pages", __name__)

# For longer than a replica that serves may be behind, since every page may come from another one.
REMEMBER_SECONDS = 60


def tidy(text: str | None) -> str:
    """Normalise what was typed: composed characters, plain line ends, no space around it."""
    return unicodedata.normalize("NFC", text or "").replace("\r\n", "\n").replace("\r", "\n").strip()


def printable(_form: FlaskForm, field: StringField) -> None:
    """Refuse control characters, and the sign that stands where bytes were not valid UTF-8."""
    if any(c == "\ufffd" or (unicodedata.category(c) == "Cc" and c != "\n") for c in field.data):
        raise ValidationError("This has characters that cannot be shown.")


def one_line(_form: FlaskForm, field: StringField) -> None:
    """Refuse line ends."""
    if "\n" in field.data:
        raise ValidationError("This has to be one line.")


class EntryForm(FlaskForm):
    """The form to sign with. FlaskForm adds and checks the token that proves that it came from our page."""

    name = StringField(
        "Your name",
        filters=[tidy],
        validators=[
            DataRequired("Please tell us your name."),
            Length(max=entries.NAME_CHARACTERS, message="At most %(max)d characters, please."),
            printable,
            one_line,
        ],
    )
    message = TextAreaField(
        "Your message",
        filters=[tidy],
        validators=[
            DataRequired("Please write a line."),
            Length(max=entries.MESSAGE_CHARACTERS, message="At most %(max)d characters, please."),
            printable,
        ],
    )


def refuse_what_is_no_text() -> None:
    """Refuse a body that is not UTF-8. Werkzeug would put `%FF` as text where such a byte was."""
    try:
        unquote_to_bytes(request.get_data()).decode()
    except UnicodeDecodeError as error:
        raise BadRequest("What you have sent is not UTF-8 text.") from error


def servers(database_node: str) -> dict[str, str]:
    """Name the servers that this request went through."""
    return {
        "web": request.headers.get("X-Served-By", "none")[:64],
        "application": current_app.config["SERVER_LABEL"],
        "database": database_node,
    }


def own_writes() -> str | None:
    """Give the transactions that the visitor's latest entry came with, while there may be replicas without them."""
    transactions, at = session.get("wrote", ("", 0))
    return transactions if time.time() - at < REMEMBER_SECONDS else None


def page(form: EntryForm) -> str:
    """Render the guestbook, with what the visitor has just written in it."""
    before = request.args.get("before", type=int)
    with current_app.config["DATABASE"].reading(own_writes()) as connection:
        return render_template(
            "guestbook.html",
            form=form,
            entries=entries.latest(connection, before),
            older=before is not None,
            page_length=entries.PAGE,
            servers=servers(entries.node(connection)),
        )


@pages.get("/guestbook/")
def show() -> str:
    """Show the newest entries."""
    return page(EntryForm())


@pages.post("/guestbook/")
def sign() -> Answer | tuple[str, int]:
    """Take an entry. The answer is a redirect, so that reloading the page does not sign twice."""
    refuse_what_is_no_text()
    # The form alone: FlaskForm would take JSON and files too, whose values need not be text.
    form = EntryForm(request.form)
    if not form.validate():
        return page(form), 400 if form.csrf_token.errors else 422
    with current_app.config["DATABASE"].write.connection() as connection:
        entry_id, transactions = entries.add(connection, form.name.data, form.message.data)
    session["wrote"] = transactions, int(time.time())
    session.pop("csrf_token")  # A form signs once.
    return redirect(url_for(".show", _anchor=f"entry-{entry_id}"), 303)


@pages.get("/guestbook/api/entries")
def api() -> dict:
    """Give the newest entries and the servers that brought them as JSON. Signing needs the form and its token."""
    with current_app.config["DATABASE"].reading(own_writes()) as connection:
        return {
            "servers": servers(entries.node(connection)),
            "entries": [
                asdict(entry) | {"written_at": entry.written_at.isoformat() + "Z"}
                for entry in entries.latest(connection, request.args.get("before", type=int))
            ],
        }


@pages.get("/healthz")
def healthz() -> Response:
    """Say that the process answers. The database has no part in this: restarting us would not mend it."""
    return Response("alive\n", mimetype="text/plain")


@pages.get("/readyz")
def readyz() -> tuple[dict[str, str], int]:
    """Say whether both ways to the database work."""
    faults = current_app.config["DATABASE"].faults()
    return {"write": "ok", "read": "ok"} | faults, 503 if faults else 200
