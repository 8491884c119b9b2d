"""What the tests share."""

import pytest

from lab import inside

SERVERS = "haproxy-servers"
EU, US, PROXY, OTHER_PROXY = (f"172.30.57.{number}" for number in (31, 32, 34, 35))


@pytest.fixture(params=["haproxy-lb1", "haproxy-lb2"])
def lb(request):
    return request.param


@pytest.fixture(scope="session", autouse=True)
def _clients():
    """Clients of other addresses, beside the servers."""

    def addresses(verb):
        words = " ".join((EU, US, PROXY, OTHER_PROXY))
        inside(SERVERS, f"for address in {words}; do ip address {verb} $address/32 dev eth0; done")

    addresses("replace")
    yield
    addresses("delete")
