"""A role's defaults, its argument specs and its README say the same, in the same shape."""

from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROLES = sorted(path for path in (Path(__file__).resolve().parents[2] / "roles").iterdir() if path.is_dir())
# The topology describes the site, and not a program.
PREFIXES = {"topology": "webstack_"}
WRONG = {"int": "many", "float": "wide", "bool": "perhaps", "dict": "text", "list": {"not": "a list"}}

pytestmark = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def load(path):
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def options(role):
    return load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"].get("options", {})


def every_option(options, path=""):
    for name, option in options.items():
        yield path + name, option
        yield from every_option(option.get("options", {}), f"{path}{name}.")


def wrong_values(options):
    """Yield the variables with one value each that its specification forbids, and the name of the option that forbids it."""
    for name, option in options.items():
        elements = [option.get("elements")] if option["type"] == "list" else []
        wrong = [WRONG[option["type"]]] if option["type"] in WRONG else []
        wrong += [[WRONG[kind]] for kind in elements if kind in WRONG]
        if "choices" in option:
            wrong.append(["no such choice"] if elements else "no such choice")
        for value in wrong:
            yield {name: value}, name
        for inner, culprit in wrong_values(option.get("options", {})):
            yield {name: [inner] if elements else inner}, culprit


def test_defaults_and_specs_name_the_same_variables(role):
    optional = {name for name, option in options(role).items() if not option.get("required")}
    assert set(load(role / "defaults" / "main.yml")) == optional


def test_defaults_and_specs_agree_on_the_values(role):
    specified = {name: option.get("default") for name, option in options(role).items() if not option.get("required")}
    assert specified == load(role / "defaults" / "main.yml")


def test_a_required_variable_has_an_example_beside_the_defaults(role):
    text = (role / "defaults" / "main.yml").read_text(encoding="utf-8")
    for name, option in options(role).items():
        if option.get("required"):
            assert f"# {name}:" in text


def test_every_option_has_a_type_and_a_description(role):
    for path, option in every_option(options(role)):
        assert option.get("type"), path
        assert option.get("description"), path
        if option["type"] == "list":
            assert option.get("elements"), path


def test_a_value_of_a_wrong_type_is_refused_by_the_name_of_its_option(role):
    validator = ArgumentSpecValidator(options(role))
    for variables, culprit in wrong_values(options(role)):
        messages = [
            message for message in validator.validate(variables).error_messages if "missing required" not in message
        ]
        assert [message for message in messages if culprit in message], (variables, messages)


def test_every_variable_begins_with_the_name_of_its_role(role):
    prefix = PREFIXES.get(role.name, f"{role.name}_")
    for name in options(role):
        assert name.startswith(prefix)


def test_the_readme_begins_with_what_the_role_does(role):
    title, first, *_rest = (role / "README.md").read_text(encoding="utf-8").split("\n\n")
    assert title in (f"# {role.name}", f"# foobar.webstack.{role.name}")
    assert first.strip()
    assert first[0] not in "#`|<![", "the first paragraph is a sentence"


def test_the_role_has_a_scenario(role):
    assert (role.parents[1] / "molecule" / role.name / "molecule.yml").exists()
