import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from visae import cli


def test_help_lists_every_stage_without_loading_torch() -> None:
    code = "import sys; from visae.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    for stage in cli.STAGES:
        assert f"  {stage} " in done.stdout


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


def test_arguments_that_are_required_may_come_first_without_their_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments in (["none", "out"], ["none", "--output", "out"], ["--output", "out", "--source", "none"]):
        with pytest.raises(SystemExit, match="ModelError: none: no such file or folder"):
            cli.main(["import-sae", *arguments])
    with pytest.raises(SystemExit):
        cli.main(["import-sae", "none", "out", "third"])
    assert "unrecognized arguments: third" in capsys.readouterr().err
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
    with pytest.raises(SystemExit, match=r"ConfigError: --settings.*write KEY=VALUE"):
        cli.main(["index", "--settings", "kind", "--index-path", str(tmp_path / "index.parquet")])


def test_config_check_names_the_mistake(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("bogus: 1\n")
    with pytest.raises(SystemExit, match=r"ConfigError: .*study.yaml: top level: unknown key 'bogus'"):
        cli.main(["config", "check", str(path)])
