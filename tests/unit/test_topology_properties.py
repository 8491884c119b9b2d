"""What holds for every inventory, however odd."""

import copy
import datetime
import json
import sys
import time
import timeit

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils import topology
from hypothesis import given, settings
from hypothesis import strategies as st

# Whatever YAML can write.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=4)
    | st.dates()
    | st.datetimes(timezones=st.just(datetime.UTC))
)
KEYS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.dates()
YAML = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)


def or_yaml(*likely):
    """Mostly what is meant, sometimes anything."""
    return st.one_of(*(st.sampled_from(values) for values in likely), YAML)


HOSTS = ["server1", "server2", "server3", "server 4", "söver5", "h"]
NAMES = [*topology.GROUPS, "caches", "all", "internet"]
ADDRESSES = [
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.10",
    "2001:db8::1",
    "::1",
    "0.0.0.0",  # noqa: S104
    "fe80::1%eth0",
    "10.0.0.0",
    "localhost",
]
groups = st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(HOSTS), max_size=4), max_size=len(NAMES))
host = st.fixed_dictionaries(
    {},
    optional={
        "webstack_address": or_yaml(ADDRESSES),
        "ansible_host": or_yaml(ADDRESSES),
        "webstack_weight": or_yaml([0, 1, 256, 257, "100", "-1", 1 << 70]),
        "webstack_zone": or_yaml(["a", "b", 1]),
        "mysql_server_id": or_yaml([0, 1, 2, "3", 1 << 32]),
        "mysql_replication_mode": or_yaml(["pair", "group", "ring"]),
    },
)
hosts = st.dictionaries(st.sampled_from(HOSTS), host | YAML, max_size=len(HOSTS))
service = st.dictionaries(
    st.sampled_from([*topology._TESTS]) | KEYS,
    or_yaml(
        NAMES, topology.PROTOCOLS, topology.ADDRESSES, [80, 443, 0, "80"], [["internet"], ["caches", "appservers"], [1]]
    ),
    max_size=8,
)
services = st.dictionaries(st.sampled_from([*topology.CATALOGUE, "cache"]) | KEYS, service | YAML, max_size=4) | YAML
virtual_ips = (
    st.lists(
        or_yaml(["192.0.2.10/24", "192.0.2.11/24", "192.0.2.0/24", "2001:db8::10/64", "192.0.2.10", "x/24"]), max_size=4
    )
    | YAML
)


@settings(max_examples=200, deadline=None)
@given(groups, hosts, or_yaml(["www.foobar.com", "-"]), services, virtual_ips)
def test_any_inventory_gives_a_printable_topology(groups, hosts, site, services, virtual_ips):
    arguments = (groups, hosts, site, services, virtual_ips)
    before = copy.deepcopy(arguments)
    result = topology.build(*arguments)
    text = json.dumps(result, allow_nan=False)

    assert json.dumps(topology.build(*before)) == text, "the same inventory gives the same topology"
    assert repr(arguments) == repr(before), "the inventory is left as it is"
    assert json.loads(text) == result, "nothing is lost in JSON"
    for flow in result["flows"]:
        assert flow["server"] in result["groups"][result["services"][flow["service"]]["tier"]]
    for fault in result["faults"]:
        assert fault["variable"]
        assert fault["message"]
        assert fault["remedy"]
    assert all("\n" not in line for line in topology.fault_lines(result))
    assert topology.table(result) == topology.table(json.loads(text))
    assert topology.mermaid(result) == topology.mermaid(json.loads(text))
    for name in HOSTS:
        topology.host_flows(result, name)


def stack(webservers=2, balancers=2, appservers=1, replicas=1, vips=1):
    """An inventory of one host for each part, without faults."""
    sizes = {
        "loadbalancers": balancers,
        "appservers": appservers,
        "mysql_primary": 1,
        "mysql_replicas": replicas,
        "webservers": webservers,
    }
    groups = {name: [f"{name}{number}" for number in range(size)] for name, size in sizes.items()}
    names = [name for members in groups.values() for name in members]
    groups["databases"] = groups["mysql_primary"] + groups["mysql_replicas"]
    hosts = {
        name: {"webstack_address": f"10.0.{number // 250}.{number % 250 + 1}"} for number, name in enumerate(names)
    }
    return groups, hosts, "www.foobar.com", None, [f"10.0.255.{number + 1}/16" for number in range(vips)]


sizes = st.builds(
    stack,
    webservers=st.integers(1, 6),
    balancers=st.integers(1, 5),
    appservers=st.integers(1, 4),
    replicas=st.integers(0, 4),
    vips=st.integers(0, 7),
)


@settings(deadline=None)
@given(sizes)
def test_what_one_host_opens_another_accepts(inventory):
    result = topology.build(*inventory)
    assert result["faults"] == []
    opened, accepted = set(), set()
    for name in result["hosts"]:
        flows = topology.host_flows(result, name)
        opened |= {(name, flow["server"], flow["service"], flow["address"]) for flow in flows["outgoing"]}
        accepted |= {
            (client["name"], name, flow["service"], flow["address"])
            for flow in flows["incoming"]
            for client in flow["clients"]
        }
    assert opened == accepted
    assert all(client != server for client, server, _service, _address in opened)


@settings(deadline=None)
@given(sizes)
def test_a_virtual_ip_has_one_router_id_and_different_priorities(inventory):
    result = topology.build(*inventory)
    for number, vip in enumerate(result["virtual_ips"]):
        instances = [instances[number] for instances in result["vrrp"].values()]
        assert {tuple(instance["virtual_ips"]) for instance in instances} == {(vip,)}
        assert {instance["virtual_router_id"] for instance in instances} == {51 + number}
        assert len({instance["priority"] for instance in instances}) == len(instances)
        assert all(1 <= instance["priority"] <= 254 for instance in instances)


@settings(deadline=None)
@given(sizes)
def test_a_further_web_server_changes_only_what_it_must(inventory):
    groups, hosts, *rest = inventory
    before = topology.build(groups, hosts, *rest)
    grown = {**groups, "webservers": [*groups["webservers"], "new"]}
    after = topology.build(grown, {**hosts, "new": {"webstack_address": "10.0.200.1"}}, *rest)

    for key in ("services", "virtual_ips", "vrrp", "peers", "replication", "binds", "certificates", "faults"):
        assert after[key] == before[key]
    for key in ("hosts", "groups", "backends"):
        changed = {name for name in after[key] if after[key][name] != before[key].get(name)}
        assert changed == {"hosts": {"new"}, "groups": {"webservers"}, "backends": {"web"}}[key]
    assert after["backends"]["web"][:-1] == before["backends"]["web"]
    assert [flow for flow in after["flows"] if flow["server"] != "new"] == before["flows"]
    for name in groups["databases"]:
        assert topology.host_flows(after, name) == topology.host_flows(before, name)


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(0, 5))
def test_a_host_that_comes_or_goes_leaves_the_other_server_ids_alone(few, more):
    def ids(replicas):
        groups, hosts, *rest = stack(replicas=replicas, webservers=0)
        hosts = {name: {"webstack_address": f"10.0.{len(name)}.{sum(map(ord, name)) % 250 + 1}"} for name in hosts}
        return topology.build(groups, hosts, *rest)["replication"]["server_ids"]

    small, large = ids(few), ids(few + more)
    assert len(set(large.values())) == len(large) == few + more + 1
    assert small.items() <= large.items()


def operations(function, *arguments):
    """How many functions it calls: a measure of work that a busy machine does not disturb."""
    count = 0

    def called(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "function",
    [topology.build, lambda *inventory: topology.mermaid(topology.build(*inventory))],
    ids=["build", "mermaid"],
)
def test_ten_times_the_hosts_cost_ten_times_the_work(function):
    few, many = (operations(function, *stack(webservers=count)) for count in (300, 3000))
    assert 8 < many / few < 10.5


def test_ten_times_the_hosts_cost_far_from_a_hundred_times_the_time():
    """Sees the work inside of one call too, such as a search through a list."""

    def seconds(count):
        stack_of = stack(webservers=count)
        return min(timeit.repeat(lambda: topology.build(*stack_of), number=1, repeat=5, timer=time.process_time))

    assert seconds(5000) / seconds(500) < 30


def test_the_flows_of_one_host_cost_what_they_are():
    few, many = (topology.build(*stack(webservers=count)) for count in (300, 3000))
    assert operations(topology.host_flows, many, "mysql_primary0") == operations(
        topology.host_flows, few, "mysql_primary0"
    )


@pytest.mark.parametrize("broken", ["webstack_address", "webstack_weight"])
def test_faults_of_all_hosts_cost_no_more_than_the_hosts(broken):
    def build(count):
        groups, hosts, *rest = stack(webservers=count)
        return topology.build(groups, {name: {**own, broken: "10.0.0.1"} for name, own in hosts.items()}, *rest)

    few, many = operations(build, 300), operations(build, 3000)
    assert many / few < 10.5
