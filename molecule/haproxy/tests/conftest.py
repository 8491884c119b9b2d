"""What the tests share."""

import pytest


@pytest.fixture(params=["haproxy-lb1", "haproxy-lb2"])
def lb(request):
    return request.param
