"""What the topology makes of an inventory, and how it names what is wrong with one."""

import copy

import pytest
from ansible_collections.foobar.webstack.plugins.filter import topology as filters
from ansible_collections.foobar.webstack.plugins.module_utils import topology
from jinja2.runtime import Undefined

GROUPS = {
    "loadbalancers": ["server1", "server2"],
    "webservers": ["server2", "server3"],
    "appservers": ["server4"],
    "databases": ["server4", "server3"],
    "mysql_primary": ["server4"],
    "mysql_replicas": ["server3"],
    "monitoring": ["server1", "server3"],
}
HOSTS = {f"server{number}": {"webstack_address": f"192.0.2.1{number}"} for number in range(1, 5)}


def build(groups=None, hosts=None, services=None, virtual_ips=("192.0.2.10/24",), site="www.foobar.com"):
    """The four servers' topology, with some groups and some variables of some hosts replaced."""
    merged = copy.deepcopy(HOSTS)
    for host, variables in (hosts or {}).items():
        merged.setdefault(host, {}).update(variables)
    return topology.build({**GROUPS, **(groups or {})}, merged, site, services, virtual_ips)


def edges(result, host, direction):
    other = {
        "incoming": lambda flow: [client["name"] for client in flow["clients"]],
        "outgoing": lambda flow: [flow["server"]],
    }
    return {
        (flow["service"], name)
        for flow in topology.host_flows(result, host)[direction]
        for name in other[direction](flow)
    }


def test_the_four_servers_have_no_fault_and_one_single_point_of_failure():
    result = build()
    assert result["faults"] == []
    assert [(spof["tier"], spof["kind"], spof["name"]) for spof in result["spofs"]] == [
        ("appservers", "host", "server4")
    ]


def test_a_backend_is_ready_for_haproxy():
    backends = build(hosts={"server3": {"webstack_weight": 50}})["backends"]
    assert backends["web"] == [
        {
            "name": "server2",
            "address": "192.0.2.12",
            "port": 8080,
            "weight": 100,
            "cookie": "server2",
            "check_port": 8080,
        },
        {
            "name": "server3",
            "address": "192.0.2.13",
            "port": 8080,
            "weight": 50,
            "cookie": "server3",
            "check_port": 8080,
        },
    ]


def test_the_health_of_a_database_is_asked_on_the_port_that_knows_it():
    assert {server["check_port"] for server in build()["backends"]["mysql"]} == {9201}


def test_a_database_without_its_state_service_answers_for_itself():
    result = build(services={"mysql_state": {"enabled": False}})
    assert result["faults"] == []
    assert {server["check_port"] for server in result["backends"]["mysql"]} == {3306}


def test_services_on_virtual_ips_listen_on_them_or_else_everywhere():
    assert build(virtual_ips=["192.0.2.9/24", "192.0.2.10/24"])["binds"]["https"] == [
        {"address": "192.0.2.9", "port": 443, "transparent": True},
        {"address": "192.0.2.10", "port": 443, "transparent": True},
    ]
    assert build(virtual_ips=[])["binds"]["https"] == [{"address": "*", "port": 443}]
    assert build()["binds"]["mysql_write"] == [{"address": "127.0.0.1", "port": 6446}]


def test_the_site_and_every_server_of_another_encrypted_service_get_a_certificate():
    assert build()["certificates"] == [
        {"name": "www.foobar.com", "subject_alt_names": ["DNS:www.foobar.com"]},
        {"name": "server4", "subject_alt_names": ["DNS:server4", "IP:192.0.2.14", "DNS:mysql.www.foobar.com"]},
        {"name": "server3", "subject_alt_names": ["DNS:server3", "IP:192.0.2.13", "DNS:mysql.www.foobar.com"]},
    ]


def test_without_a_name_of_the_site_nothing_gets_a_certificate():
    assert build(site=None)["certificates"] == []


def test_one_virtual_ip_is_held_in_the_order_of_the_group():
    vrrp = build()["vrrp"]
    assert vrrp["server1"] == [
        {
            "name": "vip1",
            "virtual_router_id": 51,
            "priority": 250,
            "source": "192.0.2.11",
            "peers": ["192.0.2.12"],
            "virtual_ips": ["192.0.2.10/24"],
        }
    ]
    assert [instance["priority"] for instance in vrrp["server2"]] == [240]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_with_as_many_virtual_ips_as_load_balancers_each_is_first_for_one(count):
    names = [f"lb{number}" for number in range(count)]
    result = build(
        groups={"loadbalancers": names},
        hosts={name: {"webstack_address": f"192.0.2.{100 + number}"} for number, name in enumerate(names)},
        virtual_ips=[f"192.0.2.{200 + number}/24" for number in range(count)],
    )
    assert result["faults"] == []
    for number, name in enumerate(names):
        priorities = {other: result["vrrp"][other][number]["priority"] for other in names}
        assert max(priorities, key=priorities.get) == name
        assert len(set(priorities.values())) == count
        assert {result["vrrp"][other][number]["virtual_router_id"] for other in names} == {51 + number}


def test_without_a_virtual_ip_nothing_speaks_vrrp():
    result = build(virtual_ips=[])
    assert result["faults"] == []
    assert result["vrrp"] == {}
    assert "vrrp" not in {flow["service"] for flow in result["flows"]}


def test_every_database_may_come_to_serve_writes_and_reads():
    replication = build()["replication"]
    assert replication["primary"] == "server4"
    assert [server["name"] for server in replication["pool"]] == ["server4", "server3"]


def test_a_primary_needs_no_replica():
    result = build(groups={"databases": ["server4"], "mysql_replicas": []})
    assert result["faults"] == []
    assert [server["name"] for server in result["replication"]["pool"]] == ["server4"]


def test_a_server_id_comes_from_the_address_unless_the_host_has_its_own():
    ids = build(hosts={"server3": {"mysql_server_id": 7}})["replication"]["server_ids"]
    assert ids == {"server3": 7, "server4": (192 << 24) + (2 << 8) + 14}
    ids = build(hosts={"server3": {"webstack_address": "2001:db8::13"}})["replication"]["server_ids"]
    assert ids["server3"] == 0x13


def test_an_address_falls_back_to_ansible_host():
    result = build(hosts={"server3": {"webstack_address": None, "ansible_host": "192.0.2.33"}})
    assert result["faults"] == []
    assert result["hosts"]["server3"]["address"] == "192.0.2.33"


def test_the_load_balancers_reach_no_database():
    result = build(groups={"monitoring": ["server3"]})
    for balancer in GROUPS["loadbalancers"]:
        assert not {service for service, _server in edges(result, balancer, "outgoing")} & {"mysql", "mysql_state"}
    assert edges(result, "server4", "incoming") == {
        ("app", "server2"),
        ("app", "server3"),
        ("mysql", "server3"),
        ("mysql_state", "server3"),
    }


def test_monitoring_may_ask_every_database_what_it_is():
    asked = {("mysql_state", "server3"), ("mysql_state", "server4")}
    assert asked <= edges(build(groups={"monitoring": ["server1"]}), "server1", "outgoing")


def test_only_the_load_balancers_are_open_to_the_internet():
    result = build()
    for host in HOSTS:
        incoming = topology.host_flows(result, host)["incoming"]
        open_ports = {(flow["address"], flow["port"]) for flow in incoming if flow["internet"]}
        assert open_ports == ({("192.0.2.10", 80), ("192.0.2.10", 443)} if host in GROUPS["loadbalancers"] else set())


def test_a_host_outside_the_topology_has_no_flows():
    assert topology.host_flows(build(), "elsewhere") == {"incoming": [], "outgoing": []}


def test_a_service_of_the_user_is_in_flows_backends_and_single_points_of_failure():
    result = build(
        groups={"caches": ["cache1"]},
        hosts={"cache1": {"webstack_address": "192.0.2.51"}},
        services={"cache": {"tier": "caches", "port": 6379, "clients": ["appservers"], "why": "sessions"}},
    )
    assert result["faults"] == []
    assert ("cache", "cache1") in edges(result, "server4", "outgoing")
    assert [server["port"] for server in result["backends"]["cache"]] == [6379]
    assert "caches" in {spof["tier"] for spof in result["spofs"]}


def test_a_shipped_service_changes_key_by_key_and_can_be_taken_out():
    result = build(services={"web": {"port": 8081}, "haproxy_status": {"enabled": False}})
    assert result["faults"] == []
    assert (result["services"]["web"]["port"], result["services"]["web"]["tier"]) == (8081, "webservers")
    assert "haproxy_status" not in result["services"]


def test_a_database_is_asked_for_its_state_at_its_own_address():
    result = build(hosts={"server3": {"webstack_address": "2001:db8::13"}})
    assert result["replication"]["state_urls"] == {
        "server4": "http://192.0.2.14:9201",
        "server3": "http://[2001:db8::13]:9201",
    }


def test_a_tier_whose_services_are_taken_out_may_be_empty():
    services = {
        name: {"enabled": False}
        for name, service in topology.CATALOGUE.items()
        if service["tier"] in ("databases", "appservers")
    }
    result = build(
        groups={"databases": [], "mysql_primary": [], "mysql_replicas": [], "appservers": []}, services=services
    )
    assert result["faults"] == []
    assert result["replication"] == {
        "mode": "pair",
        "primary": None,
        "replicas": [],
        "server_ids": {},
        "state_urls": {},
        "pool": [],
    }


def test_a_tier_in_one_of_several_zones_is_a_single_point_of_failure():
    zones = {f"server{number}": {"webstack_zone": "a" if number < 4 else "b"} for number in range(1, 5)}
    spofs = {(spof["tier"], spof["kind"], spof["name"]) for spof in build(hosts=zones)["spofs"]}
    assert spofs == {("loadbalancers", "zone", "a"), ("webservers", "zone", "a"), ("appservers", "host", "server4")}


@pytest.mark.parametrize("last", ["a", None])
def test_a_stack_that_knows_of_one_zone_has_none_to_spread_over(last):
    zones = {f"server{number}": {"webstack_zone": "a" if number < 4 else last} for number in range(1, 5)}
    assert {spof["kind"] for spof in build(hosts=zones)["spofs"]} == {"host"}


GROUP = {f"server{number}": {"mysql_replication_mode": "group"} for number in range(2, 5)}
THREE = {"databases": ["server4", "server2", "server3"], "mysql_replicas": ["server2", "server3"]}


def test_three_databases_may_be_a_group_that_talks_where_clients_do():
    result = build(groups=THREE, hosts=GROUP)
    assert result["faults"] == []
    assert result["replication"]["mode"] == "group"
    assert {("mysql", "server3"), ("mysql", "server4")} <= edges(result, "server2", "incoming")
    assert {spof["tier"] for spof in result["spofs"]} == {"appservers"}
    assert build(groups=THREE)["replication"]["mode"] == "pair"


@pytest.mark.parametrize(
    ("zones", "lost"),
    [("aab", "a"), ("aba", "a"), ("abc", None), ("abb", "b"), ("ab-", None), ("aa-", "a"), ("---", None)],
)
def test_no_zone_may_hold_the_majority_of_a_group(zones, lost):
    placed = {
        host: {**GROUP[host], "webstack_zone": None if zone == "-" else zone}
        for host, zone in zip(GROUP, zones, strict=True)
    }
    placed["server1"] = {"webstack_zone": "z"}
    spofs = build(groups={**THREE, "appservers": ["server1", "server4"]}, hosts=placed)["spofs"]
    assert [spof["name"] for spof in spofs if spof["tier"] == "databases"] == ([lost] if lost else [])


FAULTS = {
    # what is written: (arguments of build), (host, variable, value) of the fault
    "no primary": (
        {"groups": {"mysql_primary": [], "mysql_replicas": ["server3", "server4"]}},
        (None, "groups.mysql_primary", ""),
    ),
    "two primaries": (
        {"groups": {"mysql_primary": ["server4", "server3"], "mysql_replicas": []}},
        (None, "groups.mysql_primary", "server4, server3"),
    ),
    "replica on its primary's host": (
        {"groups": {"mysql_replicas": ["server3", "server4"]}},
        ("server4", "groups.mysql_replicas", "server4"),
    ),
    "database without a part": (
        {"groups": {"databases": ["server4", "server3", "server2"]}},
        ("server2", "groups.databases", "server2"),
    ),
    "replica outside databases": ({"groups": {"databases": ["server4"]}}, ("server3", "groups.databases", "server3")),
    "a group of two": ({"hosts": GROUP}, (None, "groups.databases", "server4, server3")),
    "an even group": (
        {
            "groups": {
                "databases": ["server4", "server1", "server2", "server3"],
                "mysql_replicas": ["server1", "server2", "server3"],
            },
            "hosts": {**GROUP, "server1": {"mysql_replication_mode": "group"}},
        },
        (None, "groups.databases", "server4, server1, server2, server3"),
    ),
    "a group that is large": (
        {
            "groups": {
                "databases": [f"db{number}" for number in range(11)],
                "mysql_primary": ["db0"],
                "mysql_replicas": [f"db{number}" for number in range(1, 11)],
            },
            "hosts": {
                f"db{number}": {"webstack_address": f"192.0.2.{30 + number}", "mysql_replication_mode": "group"}
                for number in range(11)
            },
        },
        (None, "groups.databases", ", ".join(f"db{number}" for number in range(11))),
    ),
    "no way to replicate": (
        {"hosts": {"server3": {"mysql_replication_mode": "ring"}}},
        ("server3", "mysql_replication_mode", "ring"),
    ),
    "two ways to replicate": (
        {"groups": THREE, "hosts": {"server3": GROUP["server3"]}},
        ("server3", "mysql_replication_mode", "group"),
    ),
    "empty tier": ({"groups": {"webservers": []}}, (None, "groups.webservers", "")),
    "no address": ({"hosts": {"server3": {"webstack_address": None}}}, ("server3", "webstack_address", None)),
    "ansible_host is a name": (
        {"hosts": {"server3": {"webstack_address": None, "ansible_host": "web.example.com"}}},
        ("server3", "webstack_address", None),
    ),
    "malformed address": (
        {"hosts": {"server3": {"webstack_address": "192.0.2.300"}}},
        ("server3", "webstack_address", "192.0.2.300"),
    ),
    "address with prefix": (
        {"hosts": {"server3": {"webstack_address": "192.0.2.13/24"}}},
        ("server3", "webstack_address", "192.0.2.13/24"),
    ),
    "address that is a number": (
        {"hosts": {"server3": {"webstack_address": 3221225997}}},
        ("server3", "webstack_address", 3221225997),
    ),
    "loopback address": (
        {"hosts": {"server3": {"webstack_address": "127.0.0.1"}}},
        ("server3", "webstack_address", "127.0.0.1"),
    ),
    "link-local address with its zone": (
        {"hosts": {"server3": {"webstack_address": "fe80::1%eth0"}}},
        ("server3", "webstack_address", "fe80::1%eth0"),
    ),
    "duplicated address": (
        {"hosts": {"server3": {"webstack_address": "192.0.2.12"}}},
        ("server3", "webstack_address", "192.0.2.12"),
    ),
    "duplicated IPv6 address, written otherwise": (
        {"hosts": {"server3": {"webstack_address": "2001:db8::1"}, "server4": {"webstack_address": "2001:DB8:0::1"}}},
        ("server4", "webstack_address", "2001:DB8:0::1"),
    ),
    "weight 0": ({"hosts": {"server3": {"webstack_weight": 0}}}, ("server3", "webstack_weight", 0)),
    "weight 257": ({"hosts": {"server3": {"webstack_weight": 257}}}, ("server3", "webstack_weight", 257)),
    "weight 1.5": ({"hosts": {"server3": {"webstack_weight": 1.5}}}, ("server3", "webstack_weight", "1.5")),
    "weight true": ({"hosts": {"server3": {"webstack_weight": True}}}, ("server3", "webstack_weight", True)),
    "weight heavy": ({"hosts": {"server3": {"webstack_weight": "heavy"}}}, ("server3", "webstack_weight", "heavy")),
    "zone is a list": ({"hosts": {"server3": {"webstack_zone": ["a"]}}}, ("server3", "webstack_zone", "['a']")),
    "server id 0": ({"hosts": {"server3": {"mysql_server_id": 0}}}, ("server3", "mysql_server_id", 0)),
    "server id used twice": (
        {"hosts": {"server3": {"mysql_server_id": 9}, "server4": {"mysql_server_id": 9}}},
        ("server3", "mysql_server_id", 9),
    ),
    "virtual IP without prefix": ({"virtual_ips": ["192.0.2.10"]}, (None, "webstack_virtual_ips", "192.0.2.10")),
    "malformed virtual IP": ({"virtual_ips": ["192.0.2.x/24"]}, (None, "webstack_virtual_ips", "192.0.2.x/24")),
    "virtual IPs are no list": ({"virtual_ips": "192.0.2.10/24"}, (None, "webstack_virtual_ips", "192.0.2.10/24")),
    "virtual IP elsewhere": (
        {"virtual_ips": ["198.51.100.10/24"]},
        ("server1", "webstack_virtual_ips", "198.51.100.10/24"),
    ),
    "virtual IP in a network too small": (
        {"virtual_ips": ["192.0.2.10/32"]},
        ("server1", "webstack_virtual_ips", "192.0.2.10/32"),
    ),
    "virtual IP outside one load balancer's network": (
        {"hosts": {"server2": {"webstack_address": "198.51.100.12"}}},
        ("server2", "webstack_virtual_ips", "192.0.2.10/24"),
    ),
    "virtual IPv6 among IPv4": (
        {"virtual_ips": ["2001:db8::10/64"]},
        ("server1", "webstack_virtual_ips", "2001:db8::10/64"),
    ),
    "virtual IP is a host's": (
        {"virtual_ips": ["192.0.2.13/24"]},
        ("server3", "webstack_virtual_ips", "192.0.2.13/24"),
    ),
    "virtual IP twice": (
        {"virtual_ips": ["192.0.2.10/24", "192.0.2.10/24"]},
        (None, "webstack_virtual_ips", "192.0.2.10/24"),
    ),
    "virtual IP is the network": ({"virtual_ips": ["192.0.2.0/24"]}, (None, "webstack_virtual_ips", "192.0.2.0/24")),
    "virtual IPs without VRRP": (
        {"services": {"vrrp": {"enabled": False}}},
        (None, "webstack_virtual_ips", "192.0.2.10/24"),
    ),
    "too many virtual IPs": (
        {"virtual_ips": [f"192.0.2.{number}/24" for number in [*range(1, 11), *range(15, 255)]]},
        (None, "webstack_virtual_ips", 250),
    ),
    "site is no DNS name": ({"site": "www foobar com"}, (None, "webstack_site", "www foobar com")),
    "site is missing": ({"site": None}, (None, "webstack_site", None)),
    "services are a list": ({"services": ["cache"]}, (None, "webstack_services", "['cache']")),
    "service is a number": ({"services": {"cache": 6379}}, (None, "webstack_services.cache", 6379)),
    "service has a bad name": ({"services": {"My Cache": {}}}, (None, "webstack_services.My Cache", "My Cache")),
    "service without a tier": ({"services": {"x": {"port": 1}}}, (None, "webstack_services.x.tier", None)),
    "service without a port": ({"services": {"x": {"tier": "webservers"}}}, (None, "webstack_services.x.port", None)),
    "unknown key": ({"services": {"web": {"prot": 1}}}, (None, "webstack_services.web", "prot")),
    "unknown protocol": (
        {"services": {"web": {"protocol": "gopher"}}},
        (None, "webstack_services.web.protocol", "gopher"),
    ),
    "unknown address": (
        {"services": {"web": {"address": "public"}}},
        (None, "webstack_services.web.address", "public"),
    ),
    "port out of range": ({"services": {"web": {"port": 65536}}}, (None, "webstack_services.web.port", 65536)),
    "port of VRRP": ({"services": {"vrrp": {"port": 112}}}, (None, "webstack_services.vrrp.port", 112)),
    "unknown tier": ({"services": {"x": {"tier": "caches", "port": 1}}}, (None, "webstack_services.x.tier", "caches")),
    "unknown client": (
        {"services": {"web": {"clients": ["loadbalancer"]}}},
        (None, "webstack_services.web.clients", "loadbalancer"),
    ),
    "clients are no list": (
        {"services": {"web": {"clients": "loadbalancers"}}},
        (None, "webstack_services.web.clients", "loadbalancers"),
    ),
    "check by nobody": ({"services": {"web": {"check": "nobody"}}}, (None, "webstack_services.web.check", "nobody")),
    "clients of loopback": (
        {"services": {"mysql_read": {"clients": ["webservers"]}}},
        (None, "webstack_services.mysql_read.clients", "['webservers']"),
    ),
    "virtual address elsewhere": (
        {"services": {"web": {"address": "virtual"}}},
        (None, "webstack_services.web.tier", "webservers"),
    ),
    "two services on a port": (
        {"services": {"x": {"tier": "monitoring", "port": 8080}}},
        ("server3", "webstack_services.x.port", 8080),
    ),
    "two services on a virtual port": (
        {"services": {"x": {"tier": "loadbalancers", "port": 443, "address": "virtual"}}},
        ("server1", "webstack_services.x.port", 443),
    ),
    "two services on a port, one on every address": (
        {"services": {"x": {"tier": "loadbalancers", "port": 443}}, "virtual_ips": []},
        ("server1", "webstack_services.x.port", 443),
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_names_host_variable_value_and_remedy(case):
    arguments, expected = FAULTS[case]
    faults = build(**arguments)["faults"]
    assert expected in [(fault["host"], fault["variable"], fault["value"]) for fault in faults]
    for fault in faults:
        assert fault["message"].endswith(".")
        assert fault["remedy"].endswith(".")


@pytest.mark.parametrize("case", FAULTS)
def test_one_mistake_gives_one_fault(case):
    """What follows from a mistake is not reported as well."""
    faults = build(**FAULTS[case][0])["faults"]
    assert len(faults) == 1, topology.fault_lines({"faults": faults})


def test_all_faults_are_reported_together():
    result = build(
        groups={"webservers": [], "mysql_primary": ["server4", "server3"]},
        hosts={"server1": {"webstack_weight": 0}, "server2": {"webstack_address": "nowhere"}},
        services={"cache": {"tier": "caches", "port": 0}},
        virtual_ips=["192.0.2.10"],
        site="-",
    )
    lines = "\n".join(topology.fault_lines(result))
    for part in (
        "groups.webservers",
        "groups.mysql_primary",
        "server1: webstack_weight = 0",
        'server2: webstack_address = "nowhere"',
    ):
        assert part in lines
    for part in ("webstack_services.cache.port = 0", 'webstack_virtual_ips = "192.0.2.10"', 'webstack_site = "-"'):
        assert part in lines


@pytest.mark.parametrize(
    "services",
    [
        {"x": {"tier": "appservers", "port": 6446}},  # another service has it on loopback
        {"x": {"tier": "loadbalancers", "port": 443}},  # another service has it on the virtual IP
        {"x": {"tier": "loadbalancers", "port": 443, "protocol": "udp", "address": "virtual"}},  # HTTP/3 beside HTTP/2
        {"x": {"tier": "appservers", "port": 3307, "address": "loopback"}},
    ],
)
def test_one_port_serves_on_different_addresses_and_transports(services):
    assert build(services=services)["faults"] == []


def test_a_fault_quotes_numbers_that_python_does_not_write_out():
    faults = build(hosts={"server3": {"webstack_weight": 1 << 100_000}})["faults"]
    assert topology.fault_lines({"faults": faults})[0].startswith("server3: webstack_weight = ")


def test_the_drawing_has_a_box_for_each_host_and_an_arrow_for_each_pair_that_speaks():
    drawing = topology.mermaid(build())
    lines = [line.strip() for line in drawing.splitlines()]
    assert lines[0] == "flowchart LR"
    assert 'h3["server4<br/>192.0.2.14<br/>appservers, databases, mysql_primary"]' in lines
    assert 'h2 -->|"app 8000, mysql 3306, mysql_state 9201"| h3' in lines
    assert 'internet -->|"http 80, https 443"| v0' in lines
    assert 'v0 -.->|"250"| h0' in lines
    assert drawing == topology.mermaid(build())


def test_the_table_names_hosts_services_single_points_of_failure_and_faults():
    text = topology.table(build(hosts={"server3": {"webstack_weight": 0}}))
    for part in (
        "server4",
        "192.0.2.14",
        "mysql_write",
        "Add a second host to the group appservers.",
        "server3: webstack_weight = 0",
    ):
        assert part in text


class HostVars(dict):
    """Stands in for Ansible's: a value that is a function is a template, and reading it may fail."""

    class Variables(dict):
        def __getitem__(self, name):
            value = super().__getitem__(name)
            return value() if callable(value) else value

    def __init__(self, hosts):
        super().__init__({host: self.Variables(variables) for host, variables in hosts.items()})

    def raw_get(self, host):
        return {name: "{{ raw }}" if callable(value) else value for name, value in dict.items(self[host])}


def explode():
    raise RuntimeError("This template must not be read.")


def test_the_filter_reads_no_variable_that_it_does_not_need():
    hosts = {host: dict(variables, password=explode, ansible_host=explode) for host, variables in HOSTS.items()}
    assert filters.build(GROUPS, HostVars(hosts), "www.foobar.com", virtual_ips=["192.0.2.10/24"])["faults"] == []


@pytest.mark.parametrize("template", [explode, Undefined])
@pytest.mark.parametrize("variable", ["webstack_address", "webstack_weight", "webstack_zone", "mysql_server_id"])
def test_a_template_that_cannot_be_resolved_is_a_fault_of_its_host(template, variable):
    hosts = {**HOSTS, "server3": {**HOSTS["server3"], variable: template}}
    faults = filters.build(GROUPS, HostVars(hosts), "www.foobar.com", virtual_ips=["192.0.2.10/24"])["faults"]
    assert [(fault["host"], fault["variable"], fault["value"]) for fault in faults] == [
        ("server3", variable, "{{ raw }}")
    ]
