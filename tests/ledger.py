#!/usr/bin/env python3
"""A ledger of writes: what a database has acknowledged is compared with what it holds after a fault.

    ledger.py write --log FILE --password-file FILE --ca FILE [--clients N] [--rate N] [--seconds N]
    ledger.py compare --log FILE --password-file FILE --ca FILE --host ADDRESS --port 3306

`write` has several clients, each with a connection of its own, write numbered rows, one transaction each, through the write port, and logs
what became of each. It ends by itself, or on a line from standard input. `compare` reads the rows of that run from a node, prints one JSON object
and then a sentence, and ends with 1 if a row is lost or a phantom:

acknowledged  rows whose COMMIT was answered with success
lost          of these, rows that are not there, or not as they were written
phantom       rows that are there although nobody tried them, or although they were refused before COMMIT was sent
uncertain     rows whose COMMIT got no answer, or an error: `there` and `not_there` are both right
refused       attempts that failed before COMMIT
gap           the longest time in seconds without an acknowledgement, with `gap_began` and `gap_ended` in seconds since 1970
turns         [node, rows, first, last] whenever another node than before acknowledged: two nodes that are open at one time take many turns

Runs with Python and PyMySQL (Debian: python3-pymysql), and connects as the guestbook does: over TLS, to a node that proves its name.
"""

import argparse
import hashlib
import itertools
import json
import select
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

# The account of the application may create and fill tables, but not empty them: each run has rows of its own.
SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
    run VARCHAR(32) NOT NULL,
    client SMALLINT UNSIGNED NOT NULL,
    number INT UNSIGNED NOT NULL,
    payload CHAR(64) CHARACTER SET ascii NOT NULL,
    PRIMARY KEY (run, client, number)
)
"""
INSERT = "INSERT INTO ledger (run, client, number, payload) VALUES (%s, %s, %s, %s)"
SELECT = "SELECT client, number, payload FROM ledger WHERE run = %s"
PAUSE = 0.05  # seconds before another attempt where one has failed


def payload(run, client, number):
    return hashlib.sha256(f"{run} {client} {number}".encode()).hexdigest()


def connect(options):
    """Return a connection whose transactions end with commit(); OSError or MySQLError where there is none."""
    import pymysql  # here, so that what judges the log needs nothing

    # PyMySQL verifies the certificate against `host`; the socket says where the node is really reached.
    connection = pymysql.connect(
        host=options.tls_name,
        user=options.user,
        password=Path(options.password_file).read_text().strip(),
        database=options.database,
        ssl=ssl.create_default_context(cafile=options.ca),
        connect_timeout=options.timeout,
        read_timeout=options.timeout,
        write_timeout=options.timeout,
        defer_connect=True,
    )
    raw = socket.create_connection((options.host, options.port), options.timeout)
    try:
        connection.connect(raw)
    except BaseException:
        raw.close()
        raise
    return connection


class Log:
    """One event a line: word, client, number, seconds since 1970, detail. Each is written before the next step is taken."""

    def __init__(self, file, run):
        self.file, self.lock = file, threading.Lock()
        self("run", 0, 0, run)

    def __call__(self, word, client, number, detail=""):
        with self.lock:
            self.file.write(f"{word} {client} {number} {time.time():.6f} {detail}".rstrip() + "\n")


class Client(threading.Thread):
    """Writes one row after the other until it is told to stop."""

    def __init__(self, client, log, options, stop):
        super().__init__()
        self.client, self.log, self.options, self.stop = client, log, options, stop
        self.number, self.connection, self.node = 0, None, ""

    def run(self):
        moment = time.monotonic() + self.client / self.options.clients / self.options.rate
        while not self.stop.wait(max(0.0, moment - time.monotonic())):
            if not self.write():
                self.close()
                self.stop.wait(PAUSE)
            # What an outage has kept it from writing is not made up for.
            moment = max(moment + 1 / self.options.rate, time.monotonic())
        self.close()

    def write(self):
        """Try one row; True if it was acknowledged."""
        from pymysql import MySQLError

        try:
            if self.connection is None:
                self.connection = connect(self.options)
                with self.connection.cursor() as cursor:
                    cursor.execute("SELECT @@hostname")
                    (self.node,) = cursor.fetchone()
        except (OSError, MySQLError):
            return False
        self.number += 1
        self.log("tried", self.client, self.number)
        failure = "refused"
        try:
            with self.connection.cursor() as cursor:
                row = (self.options.run, self.client, self.number)
                cursor.execute(INSERT, (*row, payload(*row)))
            failure = "uncertain"
            self.connection.commit()
        except (OSError, MySQLError) as error:
            self.log(failure, self.client, self.number, f"{self.node} {error}".replace("\n", " "))
            return False
        self.log("acknowledged", self.client, self.number, self.node)
        return True

    def close(self):
        """Leave without a word: a server that is gone would be waited for."""
        if self.connection is not None:
            self.connection._force_close()
            self.connection = None


def write(options):
    deadline = time.monotonic() + options.seconds
    while True:
        try:
            connection = connect(options)
            with connection, connection.cursor() as cursor:
                cursor.execute(SCHEMA)
            break
        except Exception as error:  # PyMySQL's own, or the network's
            if time.monotonic() > deadline:
                sys.exit(f"{options.host}:{options.port}: {error}")
            time.sleep(PAUSE)
    with Path(options.log).open("w", buffering=1) as file:
        log, stop = Log(file, options.run), threading.Event()
        clients = [Client(number, log, options, stop) for number in range(options.clients)]
        for client in clients:
            client.start()
        select.select([sys.stdin], [], [], max(0.0, deadline - time.monotonic()))
        log("end", 0, 0)
        stop.set()
        for client in clients:
            client.join()


def read(lines):
    """Return the events of a log as tuples of word, client, number, time and detail. A line that was cut off is none."""
    events = []
    for line in lines:
        if line.endswith("\n"):
            word, client, number, moment, *detail = line[:-1].split(" ", 4)
            events.append((word, int(client), int(number), float(moment), "".join(detail)))
    return events


def judge(events, rows):
    """Compare the events of a log with the rows (client, number, payload) that a node holds."""
    run = next(detail for word, _, _, _, detail in events if word == "run")
    log = {word: set() for word in ("run", "end", "tried", "acknowledged", "uncertain", "refused")}
    for word, client, number, _, _ in events:
        log[word].add((client, number))
    # Of an attempt that was cut off with the log nobody knows.
    uncertain = log["uncertain"] | (log["tried"] - log["acknowledged"] - log["refused"])
    there = {(client, number) for client, number, text in rows if text == payload(run, client, number)}
    lost = log["acknowledged"] - there
    phantom = {(client, number) for client, number, _ in rows} - log["acknowledged"] - uncertain

    answers = sorted((moment, node) for word, _, _, moment, node in events if word == "acknowledged")
    end = next((moment for word, _, _, moment, _ in events if word == "end"), events[-1][3])
    # Answers that came while the clients were being stopped are no end of a gap.
    edges = [events[0][3], *(moment for moment, _ in answers if moment < end), end]
    began, ended = max(itertools.pairwise(edges), key=lambda pair: pair[1] - pair[0])
    turns = []
    for node, moments in itertools.groupby(answers, key=lambda answer: answer[1]):
        moments = [moment for moment, _ in moments]
        turns.append([node, len(moments), round(moments[0], 3), round(moments[-1], 3)])
    return {
        "run": run,
        "acknowledged": len(log["acknowledged"]),
        "lost": len(lost),
        "phantom": len(phantom),
        "uncertain": {"there": len(uncertain & there), "not_there": len(uncertain - there)},
        "refused": len(log["refused"]),
        "gap": round(ended - began, 3),
        "gap_began": round(began, 3),
        "gap_ended": round(ended, 3),
        "turns": turns,
        "examples": {"lost": sorted(lost)[:5], "phantom": sorted(phantom)[:5]},
    }


def compare(options):
    with Path(options.log).open() as log:
        events = read(log)
    connection = connect(options)
    with connection, connection.cursor() as cursor:
        cursor.execute(SELECT, (events[0][4],))
        result = judge(events, cursor.fetchall())
    print(json.dumps(result))
    print(
        "{acknowledged} acknowledged, {lost} lost, {phantom} phantom, uncertain {there} there and {not_there} not,"
        " no write for {gap} s".format(**result, **result["uncertain"])
    )
    return 1 if result["lost"] or result["phantom"] else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--log", required=True, help="where write notes what became of each row")
    shared.add_argument("--host", default="127.0.0.1", help="%(default)s, the application server's own HAProxy")
    shared.add_argument("--port", type=int, default=6446, help="%(default)s, the write port")
    shared.add_argument("--tls-name", default="mysql.www.foobar.com", help="the name every node proves: %(default)s")
    shared.add_argument("--ca", required=True, help="the authority's certificate")
    shared.add_argument("--user", default="writer")
    shared.add_argument("--password-file", required=True)
    shared.add_argument("--database", default="guestbook")
    shared.add_argument("--timeout", type=float, default=2, help="seconds for each step of a client: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    writer = commands.add_parser("write", parents=[shared], help="write rows and note what is acknowledged")
    writer.add_argument("--run", default=f"{time.time():.0f}", help="a name of its own for this run")
    writer.add_argument("--clients", type=int, default=4, help="%(default)s")
    writer.add_argument("--rate", type=float, default=50, help="rows a second and client, at most: %(default)s")
    writer.add_argument("--seconds", type=float, default=120, help="end after these: %(default)s")
    commands.add_parser("compare", parents=[shared], help="say what is lost")
    options = parser.parse_args()
    return write(options) if options.command == "write" else compare(options)


if __name__ == "__main__":
    sys.exit(main())
