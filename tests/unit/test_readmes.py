"""The examples of a role's README are what the role takes."""

import re
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROLES = Path(__file__).resolve().parents[2] / "roles"
READMES = sorted(ROLES.glob("*/README.md"))
INCLUDE = "ansible.builtin.include_role"


def uses(readme):
    """Yield role, entry point and variables of each use of a role. Variables alone are of the README's own."""
    for text in re.findall(r"```yaml\n(.+?)```", readme.read_text(encoding="utf-8"), re.DOTALL):
        example = yaml.safe_load(text)
        if isinstance(example, dict):
            yield readme.parent.name, "main", example
            continue
        for use in (use for play in example for use in (*play.get("roles", ()), *play.get("tasks", ()))):
            if "vars" in use:
                called = use.get(INCLUDE) or {"name": use["role"]}
                yield called["name"].rpartition(".")[2], called.get("tasks_from", "main"), use["vars"]


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name)
def test_the_examples_have_variables_of_the_role_and_values_of_their_types(readme):
    examples = list(uses(readme))
    assert examples
    for role, entry, variables in examples:
        specs = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
        options = specs["argument_specs"][entry]["options"]
        messages = ArgumentSpecValidator(options).validate(variables).error_messages
        # An example may show a part of the variables, and what a template gives is known on a host alone.
        assert [message for message in messages if "missing required" not in message and "{{" not in message] == []
