import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
# Snakemake's head process has these; jobs do not need them.
HEAD_ONLY = {"snakemake", "snakemake-executor-plugin-slurm", "pygments"}


def pins(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        if line.strip() and not line.startswith(("#", "--")):
            name, _, version = line.partition("==")
            assert version, f"{line} is not pinned exactly"
            found[name] = version.strip()
    return found


REQUIREMENTS = pins((ROOT / "requirements.txt").read_text().splitlines())


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_conda_environments_pin_what_the_set_up_pins(name: str) -> None:
    dependencies = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())["dependencies"]
    installed = pins(next(part for part in dependencies if isinstance(part, dict))["pip"])
    assert installed == {name: pin for name, pin in REQUIREMENTS.items() if name not in HEAD_ONLY}


def test_pins_lie_in_the_ranges_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {requirement.name: requirement.specifier for requirement in map(Requirement, project["dependencies"])}
    assert set(ranges) == set(REQUIREMENTS) - {"pygments"}
    outside = {name: REQUIREMENTS[name] for name, range_ in ranges.items() if REQUIREMENTS[name] not in range_}
    assert not outside
