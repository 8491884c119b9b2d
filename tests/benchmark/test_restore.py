"""How long a restore to just before a mistake takes, from the command to the node that answers.

Needs the scenario's two servers (molecule converge -s mysql_backup). WEBSTACK_RESTORE_MB is the size of the data, 1024 by default; half as much
is written to the binary logs after the backup.
"""

import json
import os
import re
import time

import lab

SIZE = int(os.environ.get("WEBSTACK_RESTORE_MB", "1024"))
PRIMARY, REPLICA = "mysql-backup-primary", "mysql-backup-replica"
# Half of each row can be compressed away. A transaction writes 100 KB.
LOAD = """
import os, pymysql, sys
connection = pymysql.connect(unix_socket="/run/mysqld/mysqld.sock", user="root", autocommit=True)
cursor = connection.cursor()
cursor.execute("CREATE TABLE IF NOT EXISTS big.{0} (id BIGINT AUTO_INCREMENT PRIMARY KEY, word VARCHAR(1024) CHARACTER SET ascii)".format(sys.argv[1]))
for _ in range(int(sys.argv[2]) * 10):
    cursor.executemany("INSERT big.{0} (word) VALUES (%s)".format(sys.argv[1]), [os.urandom(512).hex() for _ in range(100)])
"""


def on(node, *command):
    return lab.run("docker", "exec", node, *command, timeout=1200).stdout.strip()


def sql(node, statement):
    return on(node, "mysql", "-Ns", "-e", statement)


def load(table, megabytes):
    on(PRIMARY, "python3", "-c", LOAD, table, str(megabytes))


def catch_up():
    gtids = sql(PRIMARY, "SELECT @@gtid_executed").replace("\\n", "")
    assert sql(REPLICA, f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{gtids}', 900)") == "0"
    return gtids


def test_restore(capsys):
    sql(PRIMARY, "DROP DATABASE IF EXISTS big; CREATE DATABASE big")
    load("data", SIZE)
    catch_up()
    began = time.monotonic()
    on(REPLICA, "systemctl", "start", "mysql-backup@backup")
    backup = time.monotonic() - began
    load("more", SIZE // 2)
    before = catch_up()
    count = sql(PRIMARY, "SELECT (SELECT COUNT(*) FROM big.data), (SELECT COUNT(*) FROM big.more)")
    sql(PRIMARY, "DROP TABLE big.data")
    dropped = sql(PRIMARY, f"SELECT GTID_SUBTRACT('{catch_up()}', '{before}')")
    time.sleep(10)  # the stream holds it
    began = time.monotonic()
    done = lab.run(
        *(
            "ansible-playbook",
            f"--inventory={lab.CHECKOUT}/molecule/mysql_backup/inventory",
            f"{lab.CHECKOUT}/playbooks/restore.yml",
        ),
        f"--extra-vars={json.dumps({'restore_node': REPLICA, 'restore_over': REPLICA, 'restore_before_gtid': dropped})}",
        timeout=1200,
    )
    whole = time.monotonic() - began
    assert sql(REPLICA, "SELECT (SELECT COUNT(*) FROM big.data), (SELECT COUNT(*) FROM big.more)") == count
    with capsys.disabled():
        print(
            f"\n{SIZE} MB of data, {SIZE // 2} MB of binary logs: backup {backup:.1f} s, restore {whole:.1f} s, of which:"
        )
        print(*re.findall(r"[a-z ]+ after [0-9.]+ s|seconds: [0-9.]+", done.stdout), sep="\n")
    lab.converge("mysql_backup")
    sql(PRIMARY, "DROP DATABASE big")
