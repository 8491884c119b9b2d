"""Every test asks the running lab; see tests/lab.py."""

import pytest

import lab


@pytest.fixture(scope="session", autouse=True)
def client():
    lab.prepare_client()
