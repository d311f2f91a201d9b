import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from visae import cli
from visae.errors import ConfigError


def test_help_lists_every_stage_without_loading_torch() -> None:
    code = "import sys; from visae.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    for stage in cli.STAGES:
        assert f"  {stage} " in done.stdout


@pytest.mark.slow
def test_a_wheel_brings_the_command(tmp_path: Path) -> None:
    """Installed into a fresh environment, whose other packages are those of this one."""
    root = Path(__file__).parents[2]
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path)
    shutil.copytree(root / "src/visae", tmp_path / "src/visae", ignore=shutil.ignore_patterns("__pycache__"))
    offline = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]

    def run(*command: str | Path) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=alone).stdout

    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    pip = [sys.executable, "-m", "pip"]
    run(*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", "wheels", ".")
    (wheel,) = (tmp_path / "wheels").iterdir()
    shutil.rmtree(tmp_path / "src")
    run(sys.executable, "-m", "venv", "--without-pip", "fresh")
    run(*pip, "--python", "fresh", "install", *offline, wheel)
    (packages,) = (tmp_path / "fresh/lib").glob("python3*/site-packages")
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    assert run("fresh/bin/visae", "--version") == run("fresh/bin/python", "-m", "visae", "--version")
    assert run("fresh/bin/visae", "--help").startswith("usage: visae ")
    assert str(packages) in run("fresh/bin/python", "-c", "import visae; print(visae.__file__)")
    (tmp_path / "study.yaml").write_text("datasets: {}\n")
    wrong = subprocess.run(["fresh/bin/visae", "config", "check", "study.yaml"], capture_output=True, cwd=tmp_path)
    assert wrong.returncode == 1
    assert b"ConfigError: " in wrong.stderr


@pytest.mark.parametrize("stage", cli.STAGES)
def test_each_stage_explains_its_arguments(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([stage, "--help"])
    assert stopped.value.code == 0
    assert "options:" in capsys.readouterr().out
    assert stage in cli._SUMMARIES


def test_what_cannot_be_written_on_a_command_line_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["scores", "--help"])
    said = capsys.readouterr().out
    assert "--seed" in said
    assert "--ties" not in said


def test_arguments_that_are_required_may_come_without_their_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments in (
        *(["none", "out"], ["none", "--output", "out"], ["--output", "out", "--source", "none"]),
        *(["--output", "out", "none"], ["--seed", "1", "none", "out"], ["none", "--seed", "1", "out"]),
    ):
        with pytest.raises(SystemExit, match="ModelError: none: no such file or folder"):
            cli.main(["import-sae", *arguments])
    with pytest.raises(SystemExit):
        cli.main(["import-sae", "none", "out", "third"])
    assert "unrecognized arguments: third" in capsys.readouterr().err
    for arguments, message in ((["none"], "required: --output"), ([], "required: --source, --output")):
        with pytest.raises(SystemExit):
            cli.main(["import-sae", *arguments])
        assert message in capsys.readouterr().err
    # Lists that are required are given by their names as before.
    with pytest.raises(SystemExit):
        cli.main(["train", "work", "--manifests", "a", "--sede", "1"])
    assert "unrecognized arguments: --sede 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["import-sae", "none", "out", "--sede", "1"])
    assert "unrecognized arguments: --sede 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["import-sae", "--help"])
    assert "in this order: SOURCE OUTPUT" in " ".join(capsys.readouterr().out.split())


def test_a_stage_runs_from_its_arguments(tmp_path: Path) -> None:
    index = tmp_path / "index.parquet"
    settings = ["kind=scenes", "train=8", "val=8", "test=8", "image_size=64"]
    cli.main(["index", "--settings", *settings, "--index-path", str(index)])
    assert pl.read_parquet(index).height == 24


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--settings: top level: unknown key 'trian'; allowed: "):
        cli.main(["index", "--settings", "kind=scenes", "trian=8", "--index-path", str(tmp_path / "index.parquet")])
    with pytest.raises(ConfigError, match="write KEY=VALUE"):
        cli._settings_of(int, ["kind"])


def test_config_check_names_the_mistake(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("bogus: 1\n")
    with pytest.raises(SystemExit, match=r"ConfigError: .*study.yaml: top level: unknown key 'bogus'"):
        cli.main(["config", "check", str(path)])
