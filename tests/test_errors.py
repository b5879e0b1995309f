"""Every error that a user can cause has one base and an exit code, so that the command needs no list of them."""

import importlib
import pkgutil

import pytest

import supertokenvit
from supertokenvit import cli
from supertokenvit.errors import UserError


def test_every_exception_of_the_package_is_a_users_error_or_says_why_not():
    inner = {"LostProcess"}  # which becomes a TrainingStopped
    for module in pkgutil.walk_packages(supertokenvit.__path__, "supertokenvit."):
        for name, thing in vars(importlib.import_module(module.name)).items():
            if isinstance(thing, type) and issubclass(thing, Exception) and thing.__module__ == module.name:
                assert issubclass(thing, UserError) or name in inner, f"{module.name}.{name}"


@pytest.mark.parametrize("code", [1, 2])
def test_the_command_ends_with_the_code_of_the_error(code, monkeypatch, capsys):
    class Mistake(UserError):
        exit_code = code

    def fails(argv):
        raise Mistake("what, why, what to do")

    monkeypatch.setattr("supertokenvit.verbs.models.run", fails)
    with pytest.raises(SystemExit) as stop:
        cli.main(["models"])
    assert stop.value.code == code
    assert capsys.readouterr().err == "supertokenvit: what, why, what to do\n"
