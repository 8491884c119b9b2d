"""Kernel parameters: set as far as the kernel allows, and the rest is named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.foobar.webstack.plugins.modules import kernel_parameters

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def system(tmp_path):
    """A tree as /proc/sys; a directory in place of a file can neither be read nor written."""
    for name, value in {
        "net/ipv4/a": "0\n",
        "net/ipv4/range": "1\t2\n",
        "net/ipv6/conf/eth0/ra": "1\n",
        "net/ipv6/conf/lo/ra": "0\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    return tmp_path


def test_what_differs_is_set_and_a_star_stands_for_every_interface(system):
    parameters = {"net.ipv4.a": "1", "net.ipv4.range": "1 2", "net.ipv6.conf.*.ra": "0", "kernel.none": "1"}
    result = kernel_parameters.apply(parameters, str(system))
    assert result == {
        "set": {"net.ipv4.a": "1", "net.ipv6.conf.eth0.ra": "0"},
        "before": {"net.ipv4.a": "0", "net.ipv6.conf.eth0.ra": "1"},
        "refused": {},
        "missing": ["kernel.none"],
    }
    assert (system / "net/ipv4/a").read_text() == "1"
    assert kernel_parameters.apply(parameters, str(system))["set"] == {}


def test_check_mode_writes_nothing(system):
    assert kernel_parameters.apply({"net.ipv4.a": "1"}, str(system), check_mode=True)["set"] == {"net.ipv4.a": "1"}
    assert (system / "net/ipv4/a").read_text() == "0\n"


def test_the_kernel_itself_says_what_it_refuses():
    """In a network namespace of its own, with a parameter that nobody can write: nothing here can reach the machine's."""
    namespace = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no user namespaces")
    program = f"""
import importlib.util, json
spec = importlib.util.spec_from_file_location("m", "{CHECKOUT}/plugins/modules/kernel_parameters.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
redirects = "net.ipv4.conf.all.accept_redirects"
old = open("/proc/sys/" + redirects.replace(".", "/")).read().strip()
wanted = {{redirects: "1" if old == "0" else "0", "kernel.ostype": "Minix", "net.ipv4.tcp_syncookies": "many"}}
print(json.dumps([module.apply(wanted, check_mode=check) for check in (True, False)]))
"""
    done = subprocess.run([*namespace, sys.executable, "-c", program], capture_output=True, text=True, check=True)
    predicted, result = json.loads(done.stdout)
    assert predicted["refused"] == {"kernel.ostype": "Linux"}
    assert list(result["set"]) == ["net.ipv4.conf.all.accept_redirects"]
    assert set(result["refused"]) == {
        "kernel.ostype",
        "net.ipv4.tcp_syncookies",
    }
