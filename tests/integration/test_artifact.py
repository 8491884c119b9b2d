"""What a user installs holds what is needed and nothing else. That it runs alone is seen in test_switchover.py."""

import re
import tarfile


def test_it_holds_what_a_user_needs_and_nothing_else(artifact):
    with tarfile.open(artifact) as archive:
        top = {member.name.split("/")[0] for member in archive.getmembers()}
        names = archive.getnames()
    assert top == {
        *("FILES.json", "MANIFEST.json", "LICENSE", "README.md", "CHANGELOG.md", "changelogs", "meta"),
        *("inventory", "playbooks", "plugins", "roles"),
    }
    assert not [name for name in names if re.search(r"\.secrets/|\.pyc$|inventory/lab", name)]
