"""Every test asks the running lab; see tests/lab.py."""

import os
import sys
import venv

import pytest

import lab
from rotation import rotate_under_load

OLDEST_CORE = "ansible-core~=2.18.0"


@pytest.fixture(scope="session", autouse=True)
def client():
    lab.prepare_client()


@pytest.fixture(scope="session")
def rotation(tmp_path_factory):
    """Every secret of the lab rotated once, while visitors sign."""
    return rotate_under_load(tmp_path_factory.mktemp("rotation"))


@pytest.fixture(scope="session")
def artifact(tmp_path_factory):
    """What a user installs."""
    directory = tmp_path_factory.mktemp("artifact")
    lab.run("ansible-galaxy", "collection", "build", "--output-path", directory)
    (path,) = directory.glob("foobar-webstack-*.tar.gz")
    return path


@pytest.fixture(scope="session")
def installed(artifact, tmp_path_factory):
    """Run a playbook of the artifact, installed alone, over the lab: from an empty path, with the oldest ansible-core."""
    directory = tmp_path_factory.mktemp("installed")
    python = directory / "venv" / "bin" / "python"
    venv.create(directory / "venv")
    lab.run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"),
        *(OLDEST_CORE, "cryptography", "requests"),
        timeout=300,
    )
    lab.run(
        *("ansible-galaxy", "collection", "install", "--force", "--no-deps"),
        *("--collections-path", directory / "collections", artifact),
    )
    # The collections it depends on come from the `ansible` package of the tests' own environment.
    packaged = next(path for path in sys.path if path.endswith("site-packages"))
    work = directory / "work"
    work.mkdir()

    def playbook(name):
        return lab.run(
            *(python.with_name("ansible-playbook"), "--inventory", lab.INVENTORY, f"foobar.webstack.{name}"),
            cwd=work,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
                "ANSIBLE_COLLECTIONS_PATH": f"{directory / 'collections'}:{packaged}",
                "ANSIBLE_PIPELINING": "true",
            },
            check=False,
            timeout=600,
        )

    return playbook
