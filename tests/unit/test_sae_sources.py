"""Where SAEs are taken from: files, folders, and a hub that the tests serve."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hub_for_tests import Repository, commit_of, only_this_hub, serving
from sae_variants import planted

from visae.errors import ModelError
from visae.files import file_sha256
from visae.sae import load_sae
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.foreign.saelens import write_saelens
from visae.sae.sources import local_source
from visae.sae.variants.topk import TopK

D_MODEL, WIDTH = 8, 24


class Run:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def some_sae(seed: int) -> SparseAutoencoder:
    sae = SparseAutoencoder(D_MODEL, WIDTH, TopK(3))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return sae.eval()


# Tries sources one after another, and prints what each is refused with, or None.
TRY = """
import json, sys
from pathlib import Path
from visae.errors import ModelError
from visae.sae.foreign.transfer import import_sae
found = {}
for source in json.loads(sys.argv[1]):
    try:
        found[source] = import_sae(Path(source), Path(sys.argv[2]))
    except ModelError as error:
        found[source] = str(error)
print(json.dumps(found))
"""


class Hub(SimpleNamespace):
    """Folders, address, what was asked for, and the home of a client's cache."""

    def run(self, source: str, output: Path, **environment: str) -> subprocess.CompletedProcess:
        """Import in a process of its own, as a user does."""
        command = [sys.executable, "-m", "visae", "import-sae", "--source", source, "--output", str(output)]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment(**environment))

    def environment(self, **environment: str) -> dict[str, str]:
        return {**only_this_hub(self.address, self.home), **environment}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    saes = root / "saes"
    for layer in (5, 11):
        write_saelens(some_sae(layer), saes / f"clip/layer{layer}")
    write_saelens(some_sae(0), root / "old/clip/layer11")
    write_saelens(some_sae(1), root / "alone/deep/only")
    write_saelens(some_sae(3), root / "alone/deep/only/checkpoints/step_100")
    write_saelens(some_sae(2), root / "flat")
    for name in ("README.md", "modeling_sae.py", "exemplars.png", "optimizer.pt", "__init__.py"):
        (saes / "clip/layer11" / name).write_text("import sys; sys.exit('run')\n")
    (root / "empty").mkdir()
    (root / "empty/README.md").write_text("nothing\n")
    (root / "many").mkdir()
    for number in (1, 2):
        torch.save({"W_dec": torch.zeros(1)}, root / f"many/n_images_{number}.pt")
    (root / "prisma").mkdir()
    for name in ("n_images_9.pt", "n_images_9_log_feature_sparsity.pt", "optimizer_9.pt"):
        torch.save({"W_dec": torch.zeros(1)}, root / "prisma" / name)
    (root / "prisma/config.json").write_text("{}")
    (root / "evil").mkdir()
    torch.save(Run(root / "has-run"), root / "evil/ae.pt")
    asked: list[str] = []
    repositories = {
        "someone/saes": Repository({"main": saes, "v1": root / "old", "refs/pr/1": root / "old"}),
        "someone/alone": Repository({"main": root / "alone"}),
        "someone/flat": Repository({"main": root / "flat"}),
        "someone/empty": Repository({"main": root / "empty"}),
        "someone/many": Repository({"main": root / "many"}),
        "someone/prisma": Repository({"main": root / "prisma"}),
        "someone/evil": Repository({"main": root / "evil"}),
        "someone/gated": Repository({"main": saes}, is_gated=True),
    }
    with serving(repositories, asked) as address:
        yield Hub(root=root, address=address, asked=asked, home=tmp_path_factory.mktemp("hf"))


@pytest.mark.slow
def test_only_what_an_sae_needs_is_fetched_and_where_it_came_from_is_kept(hub: Hub, tmp_path: Path) -> None:
    hub.asked.clear()
    done = hub.run("hub:someone/saes/clip/layer11", tmp_path / "out", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    data = planted(50, seed=1)[:, :D_MODEL]
    assert torch.allclose(load_sae(tmp_path / "out/config.json")(data), some_sae(11)(data), atol=1e-5)
    imported = json.loads((tmp_path / "out/config.json").read_text())["imported"]
    folder = hub.root / "saes/clip/layer11"
    assert imported["path"] == "hub:someone/saes/clip/layer11"
    assert imported["revision"] == commit_of(hub.root / "saes")
    assert imported["sha256"] == file_sha256(folder / "sae_weights.safetensors")
    files = {Path(path).name for path in hub.asked if "/resolve/" in path}
    assert files == {"cfg.json", "sae_weights.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize("revision", ["v1", "refs/pr/1", "commit"])
def test_a_revision_is_a_branch_a_tag_a_proposal_or_a_commit(revision: str, hub: Hub, tmp_path: Path) -> None:
    commit = commit_of(hub.root / "old")
    name = f"hub:someone/saes/clip/layer11@{commit if revision == 'commit' else revision}"
    done = hub.run(name, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    imported = json.loads((tmp_path / "out/config.json").read_text())["imported"]
    assert (imported["path"], imported["revision"]) == (name, commit)
    assert imported["sha256"] == file_sha256(hub.root / "old/clip/layer11/sae_weights.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    "source", ["hub:someone/flat", "hub:someone/flat/", "hub:someone/alone", "hub:someone/alone/deep"]
)
def test_the_only_sae_of_a_repository_is_found(source: str, hub: Hub, tmp_path: Path) -> None:
    done = hub.run(source, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert ("taken from deep/only, the only SAE there" in done.stderr) == ("alone" in source)
    assert "HTTP Request" not in done.stderr


WRONG = {
    "hub:someone/none": r"no model repository someone/none that you may see .*spelling.*hf auth login",
    "hub:someone/saes/clip/layer11@v2": r"no revision v2; it has: main, v1, refs/pr/1.*before the @",
    "hub:someone/saes@main/clip/layer11": r"no revision main/clip/layer11; it has: main.*before the @",
    "hub:someone/saes/clip/layer7": r"no clip/layer7; it has SAEs in: hub:someone/saes/clip/layer11, hub:someone/saes/",
    "hub:someone/saes": r"holds several SAEs; name one; .*hub:someone/saes/clip/layer5$",
    "hub:someone/saes/clip@v1x": r"no revision v1x",
    "hub:someone/empty": r"no file of weights; it has no SAE: no file in it ends in .safetensors",
    "hub:someone/many": r"2 files of weights; name one: hub:someone/many/n_images_1.pt, hub:someone/many/n_images_2.pt",
    "hub:someone/gated/clip/layer5": r"someone/gated is gated: .*accept them on its page.*HF_TOKEN",
    "hub:someone/saes/clip/layer11/README.md": r"clip/layer11/README.md holds no weights; it has SAEs in: hub:",
    "hub:someone": r"write hub:owner/name\[/subfolder\]\[@revision\]",
    "hub:someone/saes/../x": r"write hub:owner/name",
    "hub:someone/saes@": r"write hub:owner/name",
    "hub:some one/saes": r"is no name of a repository",
}


@pytest.fixture(scope="module")
def refusals(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    output = tmp_path_factory.mktemp("refused") / "out"
    command = [sys.executable, "-c", TRY, json.dumps([*WRONG, "hub:someone/evil"]), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, env=hub.environment(), check=True)
    assert not output.exists()
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("source", WRONG)
def test_what_the_hub_has_not_is_named_and_nothing_is_written(source: str, refusals: dict[str, str | None]) -> None:
    message = refusals[source]
    assert message is not None
    assert message.startswith(f"{source}: ")
    assert re.search(WRONG[source], message, re.DOTALL), message


@pytest.mark.slow
def test_what_training_leaves_beside_weights_is_not_taken_for_an_sae(hub: Hub) -> None:
    """And a file of settings stands for the SAE that it is of."""
    names = ["hub:someone/prisma", "hub:someone/prisma/config.json", "hub:someone/flat/cfg.json"]
    code = f"from visae.sae.sources import local_source\nfor name in {names}: print(local_source(name).path)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=hub.environment(), check=True)
    ends = [f"{commit_of(hub.root / 'prisma')}/n_images_9.pt"] * 2 + [commit_of(hub.root / "flat")]
    assert all(path.endswith(end) for path, end in zip(done.stdout.split(), ends, strict=True))
    assert not any("sparsity" in path or "optimizer" in path for path in hub.asked)


@pytest.mark.slow
def test_a_token_that_the_hub_does_not_know_is_named(hub: Hub, tmp_path: Path) -> None:
    done = hub.run("hub:someone/flat", tmp_path / "out", HF_TOKEN="of-nobody")
    assert "the hub does not know the token of this machine; log in again" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_pickle_of_the_hub_is_not_run(hub: Hub, refusals: dict[str, str | None]) -> None:
    assert refusals["hub:someone/evil"] is not None
    assert (hub.root / "evil/ae.pt").is_file()
    assert not (hub.root / "has-run").exists()


@pytest.mark.slow
def test_without_a_network_the_cache_serves_what_was_fetched_and_says_so(hub: Hub, tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path / "hf")}
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", **home}
    done = hub.run("hub:someone/saes/clip/layer11", tmp_path / "before", **nowhere)
    assert done.returncode == 1
    message = r"cannot be reached .*cache .* has no someone/saes; .*hf download someone/saes --include 'clip/layer11\*'"
    assert re.search(message, done.stderr)
    assert not (tmp_path / "before").exists()
    assert hub.run("hub:someone/saes/clip/layer11", tmp_path / "fetched", **home).returncode == 0
    for name, environment in (("down", nowhere), ("offline", {"HF_HUB_OFFLINE": "1", **home})):
        done = hub.run("hub:someone/saes/clip/layer11", tmp_path / name, **environment)
        assert done.returncode == 0, done.stderr
        commit = commit_of(hub.root / "saes")
        assert f"cannot be reached; taken from its cache on this machine, commit {commit}" in done.stderr
        assert json.loads((tmp_path / name / "config.json").read_text())["imported"]["revision"] == commit
    done = hub.run("hub:someone/saes/clip/layer5", tmp_path / "other", **nowhere)
    assert re.search("has no clip/layer5; it has SAEs in: hub:someone/saes/clip/layer11", done.stderr)


@pytest.mark.slow
def test_a_file_that_was_altered_in_the_cache_is_refused(hub: Hub, tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path / "hf")}
    assert hub.run("hub:someone/flat", tmp_path / "out", **home).returncode == 0
    kept = next((tmp_path / "hf").rglob("sae_weights.safetensors"))
    kept.resolve().write_bytes(b"x" + kept.read_bytes()[1:])
    shutil.rmtree(tmp_path / "out")
    done = hub.run("hub:someone/flat", tmp_path / "out", **home)
    assert re.search("not what the hub has .*delete this file", done.stderr)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://huggingface.co/someone/saes/tree/v1/clip/layer11", "write hub:someone/saes/clip/layer11@v1$"),
        ("https://huggingface.co/someone/saes", "write hub:someone/saes$"),
        ("https://hf.co/someone/saes/blob/main/a.pt?download=true", "write hub:someone/saes/a.pt@main$"),
        ("hf://someone/saes@v1/clip", "write hub:someone/saes/clip@v1$"),
        ("someone/saes/clip", "if it is a repository of the hub, write hub:someone/saes/clip$"),
        ("/nowhere/at/all.pt", "give a file, a folder, or hub:owner/name"),
    ],
)
def test_what_is_no_path_is_told_what_to_write(source: str, message: str) -> None:
    for given in (source, Path(source)):
        with pytest.raises(ModelError, match=message):
            local_source(given)


def test_files_and_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "sae.pt"):
        if path.suffix:
            path.write_bytes(b"")
        found = local_source(path)
        assert (found.path, found.name, found.revision) == (path, str(path), None)
