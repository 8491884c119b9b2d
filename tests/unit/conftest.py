"""Lets the tests import the checkout by its collection's name, ansible_collections.foobar.webstack, as Ansible does."""

from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

CHECKOUT = Path(__file__).resolve().parents[2]

init_plugin_loader([str(CHECKOUT / ".ansible" / "collections")])
