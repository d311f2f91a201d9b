"""SAEs in the files of other projects: what visae computes, the real packages compute of what it has written."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from peers_for_tests import PEERS, run_peer
from safetensors.torch import load_file, save_file

from visae import cli
from visae.config.saes import Normalization
from visae.errors import ModelError
from visae.publish.export import FORMATS, export_sae
from visae.sae import Place, SparseAutoencoder, save_sae
from visae.sae.foreign.registry import read_foreign
from visae.sae.variants.archetypal import Archetypal
from visae.sae.variants.baselines import BASELINES
from visae.sae.variants.batchtopk import BatchTopK
from visae.sae.variants.gated import Gated
from visae.sae.variants.jumprelu import JumpRelu
from visae.sae.variants.matryoshka import Matryoshka
from visae.sae.variants.members import GIVEN_RULES, VARIANTS
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK

SCRIPT = Path(__file__).with_name("exports_for_tests.py")
PROJECTS = [name for name in FORMATS if name != "hub"]
D, WIDTH = 16, 48
RULES = {
    "topk": lambda: TopK(5),
    "batchtopk": lambda: BatchTopK(5),
    "matryoshka": lambda: Matryoshka(TopK(5)),
    "matryoshka-batchtopk": lambda: Matryoshka(BatchTopK(5)),
    "archetypal": lambda: Archetypal(WIDTH, D, 10, 5),
    "relu": Relu,
    "jumprelu": lambda: JumpRelu(WIDTH),
    "gated": lambda: Gated(WIDTH),
    **{name: lambda kind=kind: kind(5) for name, kind in BASELINES.items()},
}
assert {name.partition("-")[0] for name in RULES} == {*VARIANTS} - {*GIVEN_RULES}, (
    "a variant that no export is tested with"
)
assert {*PROJECTS} <= {*PEERS}, "a format whose package no test opens"
CASES = [(rule, kind) for rule in RULES for kind in get_args(Normalization)]


def some_sae(
    rule: str = "topk", kind: Normalization = "scale", d_target: int | None = None, clamp: float | None = None
):
    """An SAE of random weights that fires, far from the origin, with unit decoder rows."""
    sae = SparseAutoencoder(D, WIDTH, RULES[rule](), d_target, clamp, kind)
    generator = torch.Generator().manual_seed(3)
    for name, tensor in sae.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        if "mean" in name:
            drawn = 5 + drawn
        elif "scale" in name or name == "limit" or "threshold" in name:
            drawn = drawn.abs() + 0.5
        elif name == "decoder_weight":
            drawn = torch.nn.functional.normalize(drawn)
        elif name == "eps":
            continue
        tensor.copy_(drawn)
    sae.place = Place("vit_tiny_patch16_224", None, 7, "residual", "class")
    return sae.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 5 + 3 * torch.randn(300, D, generator=generator)


def can_say(project: str, kind: str) -> bool:
    return kind != "per_token" or project == "saelens"


@pytest.fixture(scope="module")
def found(inputs: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which each package has computed what it makes of what was written for it."""
    root = tmp_path_factory.mktemp("exports")
    save_file({"inputs": inputs}, root / "inputs.safetensors")
    for rule, kind in CASES:
        config = save_sae(some_sae(rule, kind), root / "ours" / f"{rule}-{kind}")
        for project in PROJECTS:
            if can_say(project, kind):
                export_sae(config, root / project / f"{rule}-{kind}", project)
    for rule in RULES:
        export_sae(
            root / "ours" / f"{rule}-scale", root / "visaebench" / f"{rule}-normalized", "visaebench", "normalized"
        )
    for rule in ("relu", "jumprelu"):
        for kind in get_args(Normalization):
            config = save_sae(some_sae(rule, kind, d_target=9), root / "ours" / f"across-{rule}-{kind}")
            export_sae(config, root / "saelens" / f"across-{rule}-{kind}", "saelens")
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
    if can_say(project, kind):
        check(found, project, f"{rule}-{kind}", some_sae(rule, kind), inputs)
        return
    config = save_sae(some_sae(rule, kind), tmp_path / "ours")
    with pytest.raises(ModelError, match=r"normalization: per_token: .* export as saelens or hub"):
        export_sae(config, tmp_path / "theirs", project)
    assert not (tmp_path / "theirs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_visaebench_takes_normalized_activations_where_it_has_a_mean_and_a_deviation(rule, found, inputs):
    check(found, "visaebench", f"{rule}-normalized", some_sae(rule), inputs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", get_args(Normalization))
@pytest.mark.parametrize("rule", ["relu", "jumprelu"])
def test_transcoders_are_those_of_saelens(rule, kind, found, inputs):
    check(found, "saelens", f"across-{rule}-{kind}", some_sae(rule, kind, d_target=9), inputs)


@pytest.mark.parametrize("project", PROJECTS)
def test_what_no_format_can_say_is_refused_by_its_key_and_nothing_is_written(project, tmp_path):
    clamped = save_sae(some_sae(clamp=2.0), tmp_path / "clamped")
    with pytest.raises(ModelError, match=r"clamp: 2: .* has no clamping of what goes in; .*export as hub"):
        export_sae(clamped, tmp_path / "out", project)
    across = save_sae(some_sae("topk", d_target=9), tmp_path / "across")
    with pytest.raises(ModelError, match=r"(d_target: 9|variant topk): .* has (no )?transcoders.*export as"):
        export_sae(across, tmp_path / "out", project)
    assert not (tmp_path / "out").exists()


def test_normalized_activations_are_for_visaebench_and_one_scale(tmp_path):
    config = save_sae(some_sae(kind="per_dimension"), tmp_path / "ours")
    with pytest.raises(ModelError, match="normalization: per_dimension: visaebench knows a mean and one scale alone"):
        export_sae(config, tmp_path / "out", "visaebench", "normalized")
    with pytest.raises(ModelError, match="inputs: normalized: for --as visaebench alone"):
        export_sae(config, tmp_path / "out", "saelens", "normalized")
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize("project", PROJECTS)
@pytest.mark.parametrize(("rule", "kind"), CASES)
def test_what_is_written_is_read_again_with_its_place(project, rule, kind, inputs, tmp_path):
    sae = some_sae(rule, kind)
    if not can_say(project, kind):
        return
    config = save_sae(sae, tmp_path / "ours")
    export_sae(config, tmp_path / "theirs", project)
    back = read_foreign(tmp_path / "theirs")
    assert back.format == project
    codes = sae.encode(inputs)
    assert torch.linalg.norm(back.given.sae.encode(inputs) - codes) < 1e-5 * torch.linalg.norm(codes)
    assert torch.linalg.norm(back.given.sae(inputs) - sae(inputs)) < 1e-5 * torch.linalg.norm(sae(inputs))
    assert (back.given.sae.place.model, back.given.sae.place.layer) == ("vit_tiny_patch16_224", 7)
    assert back.given.lost.normalization is None
    own = read_foreign(tmp_path / "ours")
    assert own.format == "visae"
    assert own.given.sae.place == sae.place
    assert torch.equal(own.given.sae.encode(inputs), codes)
