"""What the topology costs, from four servers to five thousand.

The play is timed against an empty play on the same inventory, in turns, so that what remains is the topology's own: reading
the host variables, computing, and handing the result to every host. Times are those of the processor, since a busy machine
disturbs them less.
"""

import os
import subprocess
import sys
import time
import timeit
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "plugins" / "module_utils"))

import topology  # noqa: E402

COUNTS = (4, 100, 1_000, 5_000)
ROUNDS = 3
PLAY = """
- hosts: all
  gather_facts: false
"""
TASKS = """
  tasks:
    - include_role: {name: foobar.webstack.topology}
      run_once: true
"""


def inventory(count):
    """The groups of a stack of so many hosts, most of them web servers."""
    names = [f"server{number}" for number in range(count)]
    groups = {
        "loadbalancers": names[:2],
        "appservers": names[3:4],
        "mysql_primary": names[3:4],
        "mysql_replicas": names[2:3],
        "databases": names[2:4],
        "webservers": names[1:3] + names[4:],
    }
    return groups, {
        name: {"webstack_address": f"10.0.{number // 250}.{number % 250 + 1}"} for number, name in enumerate(names)
    }


def write_inventory(path, groups, hosts):
    lines = ["[all:vars]", "webstack_site=www.foobar.com", "webstack_virtual_ips=['10.0.255.10/16']", "[all]"]
    lines += [f"{name} webstack_address={own['webstack_address']}" for name, own in hosts.items()]
    for group, members in groups.items():
        lines += [f"[{group}]", *members]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def seconds(function, *arguments):
    """Processor time of this process and of those that it has waited for."""
    start = os.times()
    function(*arguments)
    end = os.times()
    return sum(end[:4]) - sum(start[:4])


def test_a_thousand_hosts_cost_less_than_two_seconds(tmp_path):
    (tmp_path / "empty.yml").write_text(PLAY, encoding="utf-8")
    (tmp_path / "topology.yml").write_text(PLAY + TASKS, encoding="utf-8")

    def play(name):
        command = ["ansible-playbook", "-i", str(tmp_path / "hosts.ini"), str(tmp_path / name)]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout

    costs = {}
    print("\n hosts       build      x   empty play   topology   difference      x")
    for count in COUNTS:
        stack = (*inventory(count), "www.foobar.com", None, ["10.0.255.10/16"])
        write_inventory(tmp_path / "hosts.ini", *stack[:2])
        assert topology.build(*stack)["faults"] == []
        build = min(timeit.repeat(lambda: topology.build(*stack), number=1, repeat=10, timer=time.process_time))  # noqa: B023
        rounds = [(seconds(play, "empty.yml"), seconds(play, "topology.yml")) for _ in range(ROUNDS)]
        empty, full = (min(times) for times in zip(*rounds, strict=True))
        costs[count] = (build, full - empty)
        build_factor, play_factor = (cost / first for cost, first in zip(costs[count], costs[COUNTS[0]], strict=True))
        print(f"{count:6} {build * 1000:8.1f} ms {build_factor:6.0f} {empty:10.2f} s", end="")
        print(f" {full:8.2f} s {full - empty:10.2f} s {play_factor:6.1f}")
    assert costs[1_000][1] < 2
    assert costs[5_000][0] / costs[1_000][0] < 10, "five times the hosts, far from twenty-five times the time"
