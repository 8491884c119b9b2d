"""Every test asks the running lab; see tests/lab.py."""

import pytest

import lab
from rotation import rotate_under_load


@pytest.fixture(scope="session", autouse=True)
def client():
    lab.prepare_client()


@pytest.fixture(scope="session")
def rotation(tmp_path_factory):
    """Every secret of the lab rotated once, while visitors sign."""
    return rotate_under_load(tmp_path_factory.mktemp("rotation"))
