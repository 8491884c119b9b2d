"""Every port, from every server and from outside: open exactly where the topology draws a flow."""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab import ADDRESSES, CHECKOUT, INVENTORY, SITE, VIRTUAL_IP, holders, on, put, run

sys.path.insert(0, str(CHECKOUT / "plugins" / "module_utils"))
import topology

VISITOR = "client"
SSH = 22  # drawn by no flow, and open to administrators alone


@pytest.fixture(scope="module")
def drawing():
    """The topology of the lab, computed without Ansible."""
    inventory = json.loads(run("ansible-inventory", "--inventory", INVENTORY, "--list").stdout)
    hosts = inventory["_meta"]["hostvars"]

    def members(group):
        content = inventory.get(group, {})
        return [*content.get("hosts", ()), *(host for child in content.get("children", ()) for host in members(child))]

    common = next(iter(hosts.values()))
    drawn = topology.build(
        {group: members(group) for group in inventory if group != "_meta"},
        hosts,
        SITE,
        services=common.get("webstack_services"),
        virtual_ips=common["webstack_virtual_ips"],
    )
    assert drawn["faults"] == []
    return drawn


@pytest.fixture(scope="module")
def listening():
    """(server, port) of everything that waits for connections on more than loopback."""
    return {
        (server, int(port))
        for server in ADDRESSES
        for address, port in re.findall(
            r"^\S+\s+\S+\s+\S+\s+(\S+):(\d+)\s", on(server, "ss -ltnH").stdout, re.MULTILINE
        )
        if not address.startswith(("127.", "[::1]"))
    }


@pytest.fixture(scope="module")
def found(drawing, listening):
    """{(from, address, port): open, refused or silent} for every port that is listened on or drawn anywhere."""
    ports = sorted(
        {port for _, port in listening} | {flow["port"] for flow in drawing["flows"] if flow["port"]} | {SSH}
    )
    own = {server: {address} for server, address in ADDRESSES.items()} | {VISITOR: set()}
    for server in holders():
        own[server].add(VIRTUAL_IP)

    def knock(source):
        doors = [
            (address, port)
            for address in (*ADDRESSES.values(), VIRTUAL_IP)
            if address not in own[source]
            for port in ports
        ]
        put(source, "/root/knock.py", (CHECKOUT / "tests" / "knock.py").read_text())
        command = ("docker", "exec", "--interactive", f"webstack-{source}", "python3", "/root/knock.py")
        results = json.loads(run(*command, input=json.dumps(doors)).stdout)
        return {(source, *door): result for door, result in zip(doors, results, strict=True)}

    with ThreadPoolExecutor() as pool:
        return {pair: result for results in pool.map(knock, own) for pair, result in results.items()}


def drawn_pairs(flows, groups):
    """(from, address, port) of every TCP connection that flows draw."""
    return {
        (client, flow["address"], flow["port"])
        for flow in flows
        if flow["port"] and flow["protocol"] != "udp"
        for group in flow["clients"]
        for client in ([VISITOR, *ADDRESSES] if group == topology.INTERNET else groups[group])
    }


def differences(found, drawn):
    """What is reached though nobody draws it, and what is drawn but silent."""
    return sorted(
        f"{source} -> {address}:{port} is {result}, but {'' if (source, address, port) in drawn else 'not '}drawn"
        for (source, address, port), result in found.items()
        if (result == "silent") == ((source, address, port) in drawn)
    )


def test_every_port_is_open_exactly_where_the_topology_draws_a_flow(found, drawing, listening, capsys):
    drawn = drawn_pairs(drawing["flows"], drawing["groups"])
    hidden = len([1 for pair, result in found.items() if result == "silent" and (pair[1], pair[2]) not in drawn])
    with capsys.disabled():
        results = list(found.values())
        print(
            f"\n{len(found)} pairs of a source and a port tried from {len(ADDRESSES)} servers and a visitor: "
            f"{results.count('open')} open, {results.count('refused')} let through to no listener, {hidden} silent; "
            f"{len(listening)} listeners"
        )
    assert differences(found, drawn) == []


def test_a_drawn_service_that_is_listened_for_answers(found, drawing, listening):
    servers = {address: server for server, address in ADDRESSES.items()}
    drawn = drawn_pairs(drawing["flows"], drawing["groups"])
    answering = {
        pair: result
        for pair, result in found.items()
        if pair in drawn and (pair[1] == VIRTUAL_IP or (servers[pair[1]], pair[2]) in listening)
    }
    assert len(answering) > 20
    assert set(answering.values()) == {"open"}, answering


def test_a_flow_that_is_missing_from_the_drawing_or_too_many_is_noticed(found, drawing):
    """The comparison itself: it must tell of each single flow that the firewall has and the drawing has not, and the reverse."""
    noticed = 0
    for flow in drawing["flows"]:
        others = [other for other in drawing["flows"] if other["service"] != flow["service"]]
        removed = drawn_pairs(drawing["flows"], drawing["groups"]) - drawn_pairs(others, drawing["groups"])
        tried = removed & found.keys()
        if tried:
            lines = differences(found, drawn_pairs(others, drawing["groups"]))
            assert len(lines) == len(tried), flow
            assert all(line.endswith("but not drawn") for line in lines)
            noticed += 1
    assert noticed > 8
    more = [
        *drawing["flows"],
        {"address": ADDRESSES["server4"], "port": SSH, "protocol": "tcp", "clients": ["webservers"]},
    ]
    assert differences(found, drawn_pairs(more, drawing["groups"])) == [
        f"{source} -> {ADDRESSES['server4']}:22 is silent, but drawn" for source in ("server2", "server3")
    ]
