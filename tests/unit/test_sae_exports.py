"""SAEs in the files of other projects: what visae computes, the real packages compute of what it has written."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from peers_for_tests import PEERS, run_peer
from random_saes_for_tests import CASES, D_MODEL, RULES, some_sae
from safetensors.torch import load_file, save_file

from visae import cli
from visae.config.saes import Normalization
from visae.errors import ConfigError, ModelError
from visae.publish.export import FORMATS, export_sae
from visae.sae import Place, SparseAutoencoder, load_sae, save_sae
from visae.sae.foreign.transfer import import_sae
from visae.sae.variants.members import GIVEN_RULES
from visae.vision.hook_points import Hook

SCRIPT = Path(__file__).with_name("exports_for_tests.py")
TRAINED = [rule for rule in RULES if rule not in GIVEN_RULES]
PROJECTS = [name for name in FORMATS if name != "hub"]
assert {*PROJECTS} <= {*PEERS}, "a format whose package no test opens"


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 5 + 3 * torch.randn(300, D_MODEL, generator=generator)


def can_say(project: str, rule: str, kind: str) -> bool:
    return rule not in GIVEN_RULES and (kind != "per_token" or project == "saelens")


@pytest.fixture(scope="module")
def found(inputs: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which each package has computed what it makes of what was written for it."""
    root = tmp_path_factory.mktemp("exports")
    save_file({"inputs": inputs}, root / "inputs.safetensors")
    for rule, kind in CASES:
        config = save_sae(some_sae(rule, kind), root / "ours" / f"{rule}-{kind}")
        for project in PROJECTS:
            if can_say(project, rule, kind):
                export_sae(config, root / project / f"{rule}-{kind}", project)
    for rule in TRAINED:
        export_sae(
            root / "ours" / f"{rule}-scale", root / "visaebench" / f"{rule}-normalized", "visaebench", "normalized"
        )
    for rule in ("relu", "jumprelu"):
        for kind in get_args(Normalization):
            for name, skip in (("across", False), ("past", True)):
                sae = some_sae(rule, kind, d_target=9, has_skip=skip)
                config = save_sae(sae, root / "ours" / f"{name}-{rule}-{kind}")
                export_sae(config, root / "saelens" / f"{name}-{rule}-{kind}", "saelens")
    for project in PROJECTS:
        run_peer(project, SCRIPT, project, root)
    return root


def check(root: Path, project: str, name: str, sae: SparseAutoencoder, inputs: torch.Tensor) -> None:
    given = load_file(root / f"found-{project}-{name}.safetensors")
    codes, output = sae.encode(inputs), sae(inputs)
    assert int((codes > 0).sum()) > 300
    assert torch.linalg.norm(given["codes"] - codes) < 1e-5 * torch.linalg.norm(codes)
    assert (given["codes"] > 0).equal(codes > 0)
    assert torch.linalg.norm(given["output"] - output) < 1e-5 * torch.linalg.norm(output)


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "kind"), CASES)
@pytest.mark.parametrize("project", PROJECTS)
def test_the_real_package_computes_the_same_codes(project, rule, kind, found, inputs, tmp_path):
    if can_say(project, rule, kind):
        check(found, project, f"{rule}-{kind}", some_sae(rule, kind), inputs)
        return
    config = save_sae(some_sae(rule, kind), tmp_path / "ours")
    with pytest.raises(ModelError, match=r"(normalization: per_token|variant \w+): .* export as (saelens or )?hub"):
        export_sae(config, tmp_path / "theirs", project)
    assert not (tmp_path / "theirs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rule", TRAINED)
def test_visaebench_takes_normalized_activations_where_it_has_a_mean_and_a_deviation(rule, found, inputs):
    check(found, "visaebench", f"{rule}-normalized", some_sae(rule), inputs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", get_args(Normalization))
@pytest.mark.parametrize("rule", ["relu", "jumprelu"])
def test_transcoders_are_those_of_saelens(rule, kind, found, inputs):
    check(found, "saelens", f"across-{rule}-{kind}", some_sae(rule, kind, d_target=9), inputs)
    check(found, "saelens", f"past-{rule}-{kind}", some_sae(rule, kind, d_target=9, has_skip=True), inputs)


@pytest.mark.parametrize("project", PROJECTS)
def test_what_no_format_can_say_is_refused_by_its_key_and_nothing_is_written(project, tmp_path):
    clamped = save_sae(some_sae(clamp=2.0), tmp_path / "clamped")
    with pytest.raises(ModelError, match=r"clamp: 2: .* has no clamping of what goes in; .*export as hub"):
        export_sae(clamped, tmp_path / "out", project)
    across = save_sae(some_sae("topk", d_target=9), tmp_path / "across")
    with pytest.raises(ModelError, match=r"(d_target: 9|variant topk): .* has (no )?transcoders.*export as"):
        export_sae(across, tmp_path / "out", project)
    past = save_sae(some_sae(has_skip=True), tmp_path / "past")
    with pytest.raises(ModelError, match=r"skip: .* has no connection past the codes of such an SAE; export as hub"):
        export_sae(past, tmp_path / "out", project)
    assert not (tmp_path / "out").exists()


def test_normalized_activations_are_for_visaebench_and_one_scale(tmp_path):
    config = save_sae(some_sae(kind="per_dimension"), tmp_path / "ours")
    with pytest.raises(ModelError, match="normalization: per_dimension: visaebench knows a mean and one scale alone"):
        export_sae(config, tmp_path / "out", "visaebench", "normalized")
    with pytest.raises(ConfigError, match="inputs: normalized: for --as visaebench alone"):
        export_sae(config, tmp_path / "out", "saelens", "normalized")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("project", FORMATS)
def test_a_config_that_is_not_there_and_an_output_that_is_a_file_are_named(project, tmp_path):
    with pytest.raises(ModelError, match=r"none/config.json: no such file or folder"):
        export_sae(tmp_path / "none/config.json", tmp_path / "out", project)
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match=r"output: .*out is a file; give a folder"):
        export_sae(save_sae(some_sae(), tmp_path / "ours"), tmp_path / "out", project)


@pytest.mark.parametrize("project", PROJECTS)
def test_place_and_how_it_opens_are_said(project, tmp_path, capsys):
    save_sae(some_sae(), tmp_path / "ours")
    cli.main(["export-sae", str(tmp_path / "ours"), str(tmp_path / "theirs"), "--as", project])
    said = capsys.readouterr().out
    assert str(tmp_path / "theirs") in said
    assert FORMATS[project].opens.partition("FOLDER")[0] in said
    config = next((tmp_path / "theirs").glob("c*f*g.json"))
    text = json.dumps(json.loads(config.read_text()))
    assert all(word in text for word in ("vit_tiny_patch16_224", "7", "class"))


@pytest.mark.parametrize(
    ("project", "rule", "kind"),
    [(project, *case) for project in PROJECTS for case in CASES if can_say(project, *case)],
)
def test_what_was_written_is_taken_in_again_and_computes_the_same(project, rule, kind, inputs, tmp_path):
    sae = some_sae(rule, kind)
    export_sae(save_sae(sae, tmp_path / "ours"), tmp_path / "theirs", project)
    import_sae(tmp_path / "theirs", tmp_path / "back")
    back = load_sae(tmp_path / "back/config.json")
    # Readers bring decoder rows to unit norm: codes are then in raw units, and the same in all else.
    assert (back.encode(inputs) > 0).equal(sae.encode(inputs) > 0)
    assert torch.linalg.norm(back(inputs) - sae(inputs)) < 1e-5 * torch.linalg.norm(sae(inputs))
    assert (back.place.layer, back.place.hook, back.place.tokens) == (7, "residual", "class")


@pytest.mark.parametrize("hook", get_args(Hook))
@pytest.mark.parametrize("project", PROJECTS)
def test_a_hook_point_goes_there_and_back(project, hook, tmp_path):
    sae = some_sae()
    sae.place = Place("a model", None, 3, hook, "all")
    export_sae(save_sae(sae, tmp_path / "ours"), tmp_path / "theirs", project)
    import_sae(tmp_path / "theirs", tmp_path / "back")
    assert load_sae(tmp_path / "back").place == sae.place
