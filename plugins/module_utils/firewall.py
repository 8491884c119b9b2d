# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""A host's firewall as data: what its flows, its administrators' networks and the user's own flows open, and nothing else."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

# How each protocol of a flow is carried: the topology's name -> the name in nftables.
TRANSPORTS = {"http": "tcp", "https": "tcp", "mysql": "tcp", "tcp": "tcp", "udp": "udp", "vrrp": "vrrp"}
SSH = "admin_ssh"  # the role's own rule
FAMILIES = {4: "ip", 6: "ip6"}
MAX_COMMENT = 120  # bytes; nftables takes 128 (libnftnl, NFTNL_UDATA_COMMENT_MAXLEN)

_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")  # the rule's set is named after it: 255 letters at most


def rules(
    flows: Mapping[str, Any],
    extra_flows: Mapping[str, Any] | None = None,
    admin_networks: Iterable[str] = (),
    ssh_port: Any = 22,
    essential_flows: Iterable[Mapping[str, Any]] = (),
) -> dict[str, list[Any]]:
    """Merge flows into the rules of one host.

    flows            {incoming, outgoing}, as topology.host_flows returns it
    extra_flows      the user's own, in the same form. An incoming one without a port opens the service of its name to more clients
    admin_networks   addresses and networks that may connect to ssh_port
    essential_flows  more of outgoing

    An address may be left out of a flow: any address of the host, or a server anywhere. A client's address may be a network.

    incoming, outgoing  [{service, comment, transport, port, internet, families}]
    faults              [text], one for each thing wrong; the rules are complete only when it is empty

    families is [{family: ip or ip6, addresses: [own address], others: [{address, comment}]}], one for each family in which a packet can
    match. internet: the other side is anybody, and others is empty; without families at any address.
    The cost is linear in the number of flows and clients.
    """
    return _Rules().build(flows, extra_flows or {}, list(admin_networks), ssh_port, list(essential_flows))


def lock_out(ruleset: Mapping[str, Any], connection: str, admin_networks: Iterable[str], ssh_port: Any) -> str:
    """Say why the rules would refuse a new connection like the one that sshd has set SSH_CONNECTION for; "" when they would not.

    connection is "client-address client-port server-address server-port" (ssh(1), ENVIRONMENT), or "" where there is none.
    """
    parts = connection.split()
    if len(parts) != 4:
        return ""
    client, own = (_address(parts[index]) for index in (0, 2))
    port = int(parts[3])
    if client is None or any(_admits(rule, client, own, port) for rule in ruleset["incoming"]):
        return ""
    if port != int(ssh_port):
        return (
            f"This run is connected to port {port}, but firewall_ssh_port is {ssh_port}: the firewall would lock it out. "
            f"Set firewall_ssh_port: {port}."
        )
    return (
        f"This run is connected from {client}, which firewall_admin_networks ({list(admin_networks)}) does not hold: the firewall would "
        f"lock it out. Add {client}, or its network, to firewall_admin_networks."
    )


def _admits(rule: Mapping[str, Any], client: Any, own: Any, port: int) -> bool:
    if rule["transport"] != "tcp" or rule["port"] != port:
        return False
    if rule["internet"] and not rule["families"]:
        return True
    return any(
        family["family"] == FAMILIES[client.version]
        and (not family["addresses"] or own is None or str(own) in family["addresses"])
        and (rule["internet"] or any(client in ipaddress.ip_network(other["address"]) for other in family["others"]))
        for family in rule["families"]
    )


class _Rules:
    """The rules in the making, with their faults."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.incoming: dict[str, dict[str, Any]] = {}
        self.outgoing: dict[str, dict[str, Any]] = {}

    def build(
        self,
        flows: Mapping[str, Any],
        extra: Mapping[str, Any],
        networks: list[str],
        ssh_port: Any,
        essential: list[Mapping[str, Any]],
    ) -> dict[str, list[Any]]:
        admins = [{"name": "administrators", "address": network} for network in networks]
        ssh = {"service": SSH, "port": ssh_port, "protocol": "tcp", "clients": admins, "why": "administrators"}
        for where, group in (
            ("firewall_flows.incoming", flows.get("incoming") or []),
            ("firewall_extra_flows.incoming", extra.get("incoming") or []),
        ):
            for flow in group:
                self._incoming(f"{where}[{flow['service']}]", flow, where.startswith("firewall_extra"))
        if self._port("firewall_ssh_port", ssh) is not None and admins:
            self._incoming("firewall_admin_networks", ssh, False)
        for where, group in (
            ("firewall_flows.outgoing", flows.get("outgoing") or []),
            ("firewall_extra_flows.outgoing", extra.get("outgoing") or []),
            ("firewall_essential_flows", essential),
        ):
            for flow in group:
                self._outgoing(f"{where}[{flow['service']}]", flow)
        return {
            "incoming": [_finished(rule) for rule in self.incoming.values()],
            "outgoing": [_finished(rule) for rule in self.outgoing.values()],
            "faults": list(dict.fromkeys(self.faults)),
        }

    def _incoming(self, where: str, flow: Mapping[str, Any], extra: bool) -> None:
        name, clients, internet = flow["service"], flow.get("clients") or [], _true(flow.get("internet"))
        if not clients and not internet and name != SSH:
            self.faults.append(f"{where} has no clients: nobody draws it. List them, or write internet: true.")
        known = self.incoming.get(name)
        if extra and flow.get("port") is None and flow.get("protocol") != "vrrp":
            if known is None:
                names = ", ".join(self.incoming) or "none"
                self.faults.append(
                    f"{where} opens a service to more clients, but no one draws it on this host (drawn: {names}). Name a drawn one, or give a port."
                )
                return
        else:
            made = self._rule(where, flow)
            if made is None:
                return
            if known is not None and (extra or any(known[key] != made[key] for key in ("transport", "port"))):
                self.faults.append(
                    f"{where} is drawn already. Leave its port out to open it to more clients, or give it another name."
                )
                return
            known = self.incoming.setdefault(name, made)
            own = flow.get("address")
            if own is not None and (address := self._network(f"{where}.address", own, host=True)) is not None:
                known["own"].setdefault(address.version, {})[str(address.network_address)] = None
        known["internet"] = known["internet"] or internet
        for client in clients:
            network = self._network(where if name == SSH else f"{where}.clients", client["address"])
            if network is not None:
                known["others"].setdefault(network.version, {}).setdefault(_text(network), client.get("name", name))

    def _outgoing(self, where: str, flow: Mapping[str, Any]) -> None:
        made = self._rule(where, flow)
        if made is None:
            return
        known = self.outgoing.setdefault(flow["service"], made)
        if any(known[key] != made[key] for key in ("transport", "port")):
            self.faults.append(f"{where} is drawn already, with another port or protocol. Give it another name.")
        elif flow.get("address") is None:
            known["internet"] = True
        elif (network := self._network(f"{where}.address", flow["address"])) is not None:
            known["others"].setdefault(network.version, {}).setdefault(_text(network), flow.get("server", ""))

    def _rule(self, where: str, flow: Mapping[str, Any]) -> dict[str, Any] | None:
        """A rule without addresses."""
        name, protocol = flow["service"], flow.get("protocol", "tcp")
        if not _NAME.fullmatch(name) or (name == SSH and where != "firewall_admin_networks"):
            self.faults.append(
                f"{where}.service is {name!r}: use small letters, digits and underscores, begin with a letter, and leave {SSH} to the role."
            )
            return None
        if protocol not in TRANSPORTS:
            self.faults.append(f"{where}.protocol is {protocol!r}: choose one of {', '.join(TRANSPORTS)}.")
            return None
        port = self._port(f"{where}.port", flow)
        if port is None and TRANSPORTS[protocol] != "vrrp":
            return None
        return {
            "service": name,
            "comment": _comment(f"{name}: {flow['why']}" if flow.get("why") else name),
            "transport": TRANSPORTS[protocol],
            "port": port,
            "internet": False,
            "own": {},
            "others": {},
        }

    def _port(self, where: str, flow: Mapping[str, Any]) -> int | None:
        given = flow.get("port")
        if flow.get("protocol") == "vrrp":
            if given is not None:
                self.faults.append(f"{where} is {given}, but VRRP has no ports. Leave it out.")
            return None
        if re.fullmatch("[0-9]{1,5}", str(given)) and 1 <= int(given) <= 65535:
            return int(given)
        self.faults.append(f"{where} is {given!r}: give a port from 1 to 65535.")
        return None

    def _network(self, where: str, given: Any, host: bool = False) -> Any:
        try:
            return ipaddress.ip_network(ipaddress.ip_address(str(given)) if host else str(given))
        except ValueError as error:
            right = (
                "an address, such as 192.0.2.11"
                if host
                else "an address or a network, such as 192.0.2.0/24 or 2001:db8::/32"
            )
            hint = ""
            if "host bits" in str(error):
                hint = f" (the network of that address is {ipaddress.ip_network(str(given), strict=False)})"
            self.faults.append(f"{where} holds {given!r}: give {right}{hint}.")
            return None


def _finished(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule with its addresses by family. A family in which no packet can match is left out."""
    own, others, internet = rule.pop("own"), rule.pop("others"), rule["internet"]
    versions = [
        version
        for version in FAMILIES
        if (version in own or not own) and (version in others or internet) and (own or not internet)
    ]
    rule["families"] = [
        {
            "family": FAMILIES[version],
            "addresses": list(own.get(version, ())),
            "others": []
            if internet
            else [{"address": address, "comment": _comment(name)} for address, name in others[version].items()],
        }
        for version in versions
    ]
    return rule


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _text(network: Any) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _comment(text: Any) -> str:
    """A comment that nftables can take between quotes."""
    printable = "".join(letter if letter.isprintable() else " " for letter in str(text).replace('"', "'"))
    return printable.encode()[:MAX_COMMENT].decode(errors="ignore").strip()


def _true(value: Any) -> bool:
    """ansible-core 2.18 makes text of a boolean in a template."""
    return str(value).lower() in ("true", "yes", "on", "1")
