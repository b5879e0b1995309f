"""The commands of studies explain themselves."""

import pkgutil
from importlib import import_module

import pytest

import studies
from studies.common import STUDIES

SHARED = {"studies.common", "studies.queue", "studies.networks.ablation", "studies.networks.peers"}
SHARED |= {"studies.networks.short", "studies.networks.controls"}
SHARED |= {"studies.dense.returns", "studies.explaining_rivals"}  # no commands
COMMANDS = [
    module.name
    for module in pkgutil.walk_packages([str(STUDIES)], f"{studies.__name__}.")
    if not module.ispkg and module.name not in SHARED
]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_how_to_call_a_study_and_starts_nothing(name, capsys):
    # --help of studies.benchmarks.attempts began a measurement of minutes, at whose end its rows were replaced
    with pytest.raises(SystemExit) as stop:
        import_module(name).main(["--help"])
    assert stop.value.code == 0 and f"python -m {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_refused_before_anything_is_written(name, capsys):
    with pytest.raises(SystemExit) as stop:
        import_module(name).main(["--nonsense"])
    assert stop.value.code == 2 and capsys.readouterr().err
