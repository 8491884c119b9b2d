"""Which rules flows make, what is wrong with them, and who would be locked out."""

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils import topology
from ansible_collections.foobar.webstack.plugins.module_utils.firewall import MAX_COMMENT, lock_out, rules
from hypothesis import given
from hypothesis import strategies as st


def flow(**changes):
    return {
        "service": "web",
        "port": 8080,
        "protocol": "http",
        "address": "192.0.2.12",
        "clients": [{"name": "lb1", "address": "192.0.2.11"}],
        "why": "pages",
    } | changes


def incoming(*flows, **options):
    made = rules({"incoming": flows}, **options)
    assert made["faults"] == []
    return made["incoming"]


def faults(*flows, **options):
    return rules({"incoming": flows}, **options)["faults"]


def extra(*flows, **more):
    return {"extra_flows": {"incoming": flows}, **more}


def test_a_flow_becomes_a_rule():
    assert incoming(flow()) == [
        {
            "service": "web",
            "comment": "web: pages",
            "transport": "tcp",
            "port": 8080,
            "internet": False,
            "families": [
                {"family": "ip", "addresses": ["192.0.2.12"], "others": [{"address": "192.0.2.11", "comment": "lb1"}]}
            ],
        }
    ]


def test_no_flow_is_no_rule():
    assert rules({}) == {"incoming": [], "outgoing": [], "faults": []}


def test_a_service_on_two_addresses_is_one_rule():
    (rule,) = incoming(
        *(flow(address=address, clients=[], internet=True) for address in ("192.0.2.9", "192.0.2.10", "2001:db8::9"))
    )
    assert [(family["family"], family["addresses"], family["others"]) for family in rule["families"]] == [
        ("ip", ["192.0.2.9", "192.0.2.10"], []),
        ("ip6", ["2001:db8::9"], []),
    ]


def test_anybody_at_any_address_needs_no_family():
    (rule,) = incoming(flow(address=None, internet="True", port="53", protocol="udp"))
    assert rule["internet"]
    assert (rule["transport"], rule["port"], rule["families"]) == ("udp", 53, [])


def test_a_client_of_the_other_family_opens_nothing():
    (rule,) = incoming(flow(clients=[{"name": "lb1", "address": "2001:db8::11"}]))
    assert not rule["internet"]
    assert rule["families"] == []


def test_clients_of_both_families_reach_every_address():
    clients = [{"address": "192.0.2.0/24"}, {"name": "lb1", "address": "2001:db8::/64"}]
    (rule,) = incoming(flow(address=None, clients=clients))
    assert [family["others"] for family in rule["families"]] == [
        [{"address": "192.0.2.0/24", "comment": "web"}],
        [{"address": "2001:db8::/64", "comment": "lb1"}],
    ]


def test_a_flow_of_the_users_own_without_a_port_opens_a_drawn_service_to_more_clients():
    more = {"service": "web", "clients": [{"name": "office", "address": "198.51.100.0/24"}]}
    (rule,) = incoming(flow(), **extra(more))
    assert [other["comment"] for other in rule["families"][0]["others"]] == ["lb1", "office"]
    assert rule["families"][0]["addresses"] == ["192.0.2.12"]


def test_administrators_reach_ssh_and_nobody_does_without_them():
    assert incoming(ssh_port=2222) == []
    (rule,) = incoming(admin_networks=["198.51.100.7", "2001:db8::/48"], ssh_port=2222)
    assert (rule["port"], rule["transport"]) == (2222, "tcp")
    assert [family["others"][0]["address"] for family in rule["families"]] == ["198.51.100.7", "2001:db8::/48"]


def test_connections_to_several_servers_are_one_rule_and_essentials_lead_anywhere():
    made = rules(
        {
            "outgoing": [
                {"service": "mysql", "port": 3306, "protocol": "mysql", "address": address, "server": name}
                for name, address in (("db1", "192.0.2.41"), ("db2", "192.0.2.42"))
            ]
        },
        {"outgoing": [{"service": "mail", "port": 25, "address": "198.51.100.0/24"}]},
        essential_flows=[{"service": "dns", "port": 53, "protocol": "udp"}],
    )
    assert made["faults"] == []
    database, mail, names = made["outgoing"]
    assert [other["comment"] for other in database["families"][0]["others"]] == ["db1", "db2"]
    assert mail["families"][0]["others"] == [{"address": "198.51.100.0/24", "comment": ""}]
    assert names["internet"]
    assert names["families"] == []


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (faults(flow(port=0)), "firewall_flows.incoming[web].port is 0: give a port from 1 to 65535."),
        (faults(flow(port=65536)), "firewall_flows.incoming[web].port is 65536: give a port from 1 to 65535."),
        (faults(flow(port=None)), "firewall_flows.incoming[web].port is None: give a port from 1 to 65535."),
        (faults(flow(port=True)), "firewall_flows.incoming[web].port is True: give a port from 1 to 65535."),
        (
            faults(flow(protocol="vrrp")),
            "firewall_flows.incoming[web].port is 8080, but VRRP has no ports. Leave it out.",
        ),
        (
            faults(flow(protocol="sctp")),
            "firewall_flows.incoming[web].protocol is 'sctp': choose one of http, https, mysql, tcp, udp, vrrp.",
        ),
        (
            faults(flow(service="my-web")),
            "firewall_flows.incoming[my-web].service is 'my-web': use small letters, digits and underscores, begin with a letter, "
            "and leave admin_ssh to the role.",
        ),
        (
            faults(flow(clients=[])),
            "firewall_flows.incoming[web] has no clients: nobody draws it. List them, or write internet: true.",
        ),
        (
            faults(flow(address="192.0.2.0/24")),
            "firewall_flows.incoming[web].address holds '192.0.2.0/24': give an address, such as 192.0.2.11.",
        ),
        (
            faults(flow(clients=[{"address": "192.0.2.11/24"}])),
            "firewall_flows.incoming[web].clients holds '192.0.2.11/24': give an address or a network, such as 192.0.2.0/24 or "
            "2001:db8::/32 (the network of that address is 192.0.2.0/24).",
        ),
        (
            faults(admin_networks=["office"]),
            "firewall_admin_networks holds 'office': give an address or a network, such as 192.0.2.0/24 or 2001:db8::/32.",
        ),
        (faults(ssh_port=0), "firewall_ssh_port is 0: give a port from 1 to 65535."),
        (
            faults(flow(), **extra({"service": "wbe", "internet": True})),
            "firewall_extra_flows.incoming[wbe] opens a service to more clients, but no one draws it on this host (drawn: web). "
            "Name a drawn one, or give a port.",
        ),
        (
            faults(flow(), **extra(flow(port=81))),
            "firewall_extra_flows.incoming[web] is drawn already. Leave its port out to open it to more clients, or give it another name.",
        ),
        (
            rules({"outgoing": [flow(), flow(port=81)]})["faults"],
            "firewall_flows.outgoing[web] is drawn already, with another port or protocol. Give it another name.",
        ),
    ],
)
def test_what_cannot_be_a_rule_is_named(found, fault):
    assert found == [fault]


def test_all_faults_are_told_at_once():
    assert len(faults(flow(port=0), flow(service="B"), admin_networks=["x", "y"])) == 4


@given(st.text(), st.text())
def test_no_text_can_leave_its_comment(why, name):
    (rule,) = incoming(flow(why=why, clients=[{"name": name, "address": "192.0.2.11"}]))
    for comment in (rule["comment"], rule["families"][0]["others"][0]["comment"]):
        assert '"' not in comment
        assert comment.isprintable()
        assert len(comment.encode()) <= MAX_COMMENT


CONNECTION = "198.51.100.7 50022 192.0.2.12 22"


@pytest.mark.parametrize(
    ("connection", "options"),
    [
        ("", {}),
        (CONNECTION, {"admin_networks": ["198.51.100.0/24"]}),
        ("::ffff:198.51.100.7 50022 ::ffff:192.0.2.12 22", {"admin_networks": ["198.51.100.7"]}),
        ("fe80::1%eth0 50022 fe80::2%eth0 22", {"admin_networks": ["fe80::/10"]}),
        (CONNECTION, extra({"service": "shell", "port": 22, "internet": True})),
        (CONNECTION, extra({"service": "shell", "port": 22, "address": "192.0.2.12", "internet": True})),
        ("198.51.100.7 50022 192.0.2.12 2222", {"admin_networks": ["198.51.100.7"], "ssh_port": "2222"}),
    ],
)
def test_a_connection_that_may_come_again_is_not_locked_out(connection, options):
    made = rules({}, **options)
    assert lock_out(made, connection, options.get("admin_networks", []), options.get("ssh_port", 22)) == ""


@pytest.mark.parametrize(
    ("connection", "options", "remedy"),
    [
        (CONNECTION, {}, "Add 198.51.100.7, or its network, to firewall_admin_networks."),
        (CONNECTION, {"admin_networks": ["198.51.100.8"]}, "Add 198.51.100.7, or its network,"),
        (CONNECTION, {"admin_networks": ["2001:db8::/32"]}, "Add 198.51.100.7, or its network,"),
        (CONNECTION, extra({"service": "shell", "port": 22, "address": "192.0.2.99", "internet": True}), "Add 198.51"),
        (CONNECTION, extra({"service": "shell", "port": 22, "protocol": "udp", "internet": True}), "Add 198.51"),
        (CONNECTION.replace(" 22", " 2222"), {"admin_networks": ["198.51.100.7"]}, "Set firewall_ssh_port: 2222."),
    ],
)
def test_a_connection_that_could_not_come_again_is_named_with_the_remedy(connection, options, remedy):
    made = rules({}, **options)
    assert remedy in lock_out(made, connection, options.get("admin_networks", []), 22)


def test_the_topology_makes_the_rules_of_every_host():
    groups = {
        "loadbalancers": ["s1", "s2"],
        "webservers": ["s2", "s3"],
        "appservers": ["s4"],
        "databases": ["s4", "s3"],
        "mysql_primary": ["s4"],
        "mysql_replicas": ["s3"],
        "monitoring": ["s1", "s3"],
    }
    hosts = {f"s{number}": {"webstack_address": f"192.0.2.1{number}"} for number in range(1, 5)}
    drawing = topology.build(groups, hosts, "www.foobar.com", virtual_ips=["192.0.2.10/24"])
    made = {host: rules(topology.host_flows(drawing, host), admin_networks=["203.0.113.0/24"]) for host in hosts}
    assert [of["faults"] for of in made.values()] == [[]] * 4

    def clients(host, service):
        (rule,) = [rule for rule in made[host]["incoming"] if rule["service"] == service]
        return [other["comment"] for family in rule["families"] for other in family["others"]]

    assert clients("s1", "vrrp") == ["s2"]
    assert clients("s1", "peers") == ["s2"]
    assert clients("s1", "haproxy_status") == ["s3"]
    assert clients("s3", "web") == ["s1", "s2"]
    assert clients("s4", "mysql") == ["s3"]
    assert clients("s3", "mysql") == ["s4"]
    assert "mysql" not in [rule["service"] for host in ("s1", "s2") for rule in made[host]["incoming"]]
