"""What people get wrong around `import-sae`, `export-sae` and `sae-place`: said in a line, and nothing is harmed."""

import json
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from published_for_tests import D_MODEL, WIDTH, WRITTEN

from visae import cli
from visae.activations.given import write_store
from visae.config.published import PublishedSettings, local_files, published_problems
from visae.config.unsaid import Unsaid
from visae.errors import ConfigError, ModelError
from visae.publish.export import FORMATS, export_sae
from visae.sae import load_sae
from visae.sae.foreign.contents import open_file
from visae.sae.foreign.registry import read_foreign
from visae.sae.foreign.transfer import import_sae

TOPK = "dictionary_learning-topk"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_measurements_of_an_sae_that_lay_there_before_are_gone(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(40, 5, D_MODEL, generator=generator).numpy()
    manifest = write_store(tmp_path / "store", tokens, [-1, 0, 1, 2, 3], {"train": 30, "val": 10})
    written = WRITTEN[TOPK]
    source, ours = written.write(tmp_path / "theirs"), tmp_path / "ours"
    import_sae(source, ours, Unsaid(layer=0), [manifest])
    assert {"summary.json", "metrics.parquet"} <= files(ours).keys()
    import_sae(source, ours, written.unsaid)
    assert files(ours).keys() == {"config.json", "sae.safetensors"}


def test_what_is_taken_in_or_exported_is_not_overwritten(tmp_path):
    written = WRITTEN[TOPK]
    source = written.write(tmp_path / "theirs")
    before = files(source)
    with pytest.raises(ModelError, match="would be overwritten; name another folder"):
        import_sae(source, source, written.unsaid)
    assert files(source) == before
    ours = tmp_path / "ours"
    import_sae(source, ours, written.unsaid)
    before = files(ours)
    for name in FORMATS:
        with pytest.raises(ConfigError, match="would be overwritten; name another folder"):
            export_sae(ours, ours, name)
    assert files(ours) == before


def test_an_output_that_cannot_be_is_said_before_anything_is_done(tmp_path):
    written = WRITTEN[TOPK]
    source = written.write(tmp_path / "theirs")
    (tmp_path / "file").write_text("kept")
    for output in ("file", "file/below"):
        with pytest.raises(SystemExit, match="file is a file; give a folder"):
            cli.main(["import-sae", str(source), str(tmp_path / output)])
        with pytest.raises(SystemExit, match="file is a file; give a folder"):
            cli.main(["export-sae", "not-there", str(tmp_path / output)])
    with pytest.raises(SystemExit, match="a folder; name a JSON file"):
        cli.main(["sae-place", "not-there", "--output", str(tmp_path)])
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights_is_named(tmp_path):
    written = WRITTEN[TOPK]
    source = written.write(tmp_path / "theirs")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="locked cannot be written to"):
        import_sae(source, tmp_path / "locked/ours", written.unsaid)


def test_a_path_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def fails(arguments):
        (tmp_path / "there").mkdir(exist_ok=True)
        (tmp_path / "there").write_text("")

    monkeypatch.setattr(cli, "_run_other", fails)
    with pytest.raises(SystemExit, match="there: Is a directory; name a place that can be written to"):
        cli.main(["anything"])


def test_an_archive_is_told_from_weights(tmp_path):
    source = WRITTEN[TOPK].write(tmp_path / "theirs")
    (tmp_path / "archives").mkdir()
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.pt", "w")):
        with tarfile.open(tmp_path / "archives" / name, mode) as archive:
            archive.add(source, "theirs")
    with zipfile.ZipFile(tmp_path / "archives/a.zip", "w") as archive:
        archive.write(source / WRITTEN[TOPK].file)
    for path in (tmp_path / "archives").iterdir():
        with pytest.raises(ModelError, match="an archive, not a file of weights; unpack it"):
            open_file(path)
    with pytest.raises(ModelError, match="unpack the archive, and give the folder"):
        read_foreign(tmp_path / "archives")


def test_the_settings_of_an_sae_stand_for_its_folder(tmp_path):
    written = WRITTEN[TOPK]
    source = written.write(tmp_path / "theirs")
    assert read_foreign(source / written.settings_in).path == source / written.file
    ours = tmp_path / "ours"
    import_sae(source, ours)
    assert read_foreign(ours / "config.json").format == "visae"


def test_a_folder_of_another_project_is_told_how_it_is_taken_in(tmp_path):
    source = WRITTEN[TOPK].write(tmp_path / "theirs") / "below"
    source.mkdir()
    (source / "ae.pt").touch()
    with pytest.raises(ModelError, match=f"visae import-sae {source} FOLDER"):
        load_sae(source)


@pytest.mark.parametrize(
    "said", ["--layer -1", "--k 0", "--threshold nan", "--delta -1", "--delta inf", "--patches 0", "--limit -1"]
)
def test_numbers_out_of_range_are_refused_by_their_option(said, tmp_path):
    with pytest.raises(SystemExit, match=f"{said}.*: allowed: a finite number"):
        cli.main(["import-sae", str(tmp_path), str(tmp_path / "ours"), *said.split()])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (TOPK, {"code": "batchtopk"}),
        (TOPK, {"threshold": 1.0}),
        ("dictionary_learning-jumprelu", {"k": 3}),
        ("dictionary_learning-jumprelu", {"code": "topk"}),
        ("sparsify", {"k": 3}),
    ],
)
def test_what_is_said_against_the_file_is_refused_and_not_left_out(name, said, tmp_path):
    source = WRITTEN[name].write(tmp_path / "theirs")
    with pytest.raises(ModelError, match=r"its files say .*; leave it out"):
        read_foreign(source, replace(WRITTEN[name].unsaid or Unsaid(), **said))


def test_bytes_that_torch_stumbles_over_are_damage(tmp_path):
    path = WRITTEN[TOPK].write(tmp_path) / WRITTEN[TOPK].file
    whole = path.read_bytes()
    disks = whole.rindex(b"PK\x06\x07") + 16  # on how many disks the archive is
    damaged = [b"\x80\x02b.", whole[:disks] + b"\xff" + whole[disks + 1 :]]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ModelError, match="copy it again from where it was made"):
            read_foreign(path)


def test_the_table_of_places_has_straight_columns():
    from visae.sae.proof.report import described

    row = {"layer": 1, "hook": "norm", "tokens": "patches", "clamp": None, "claimed": False}
    row |= {f"{name}{end}": 0.5 for name in ("error", "l0", "dead_share") for end in ("", "_low", "_high")}
    rows = [{**row, "normalization": kind, "statistics": "pictures"} for kind in ("scale", "per_dimension")]
    found = {"model": {"architecture": "a", "weights_origin": "b"}, "n_pictures": 1, "pictures": "p", "rows": rows}
    found |= {"n_first_look": 1, "codes_at_most": 4, "coverage": 0.95, "reason": "r"}
    lines = [line for line in described(found) if "[0.500, 0.500]" in line]
    assert len({line.index("0.500") for line in lines}) == 1


def test_what_is_neither_file_nor_folder_is_named():
    with pytest.raises(ModelError, match="neither a file nor a folder"):
        read_foreign(Path(os.devnull))


def test_what_training_left_beside_weights_is_not_taken_for_settings(tmp_path):
    written = WRITTEN[TOPK]
    for text in ("[0.5, 0.25]", "{damaged"):
        folder = written.write(tmp_path / text[:4])
        (folder / written.settings_in).rename(tmp_path / "aside.json")
        (folder / "losses.json").write_text(text)
        assert read_foreign(folder, Unsaid(code="topk")).format == "dictionary_learning"


def test_settings_with_a_mark_of_their_encoding_are_read(tmp_path):
    written = WRITTEN[TOPK]
    settings = written.write(tmp_path) / written.settings_in
    settings.write_bytes(b"\xef\xbb\xbf" + settings.read_bytes())
    assert read_foreign(tmp_path).format == "dictionary_learning"


def test_more_codes_than_latents_are_refused(tmp_path):
    written = WRITTEN["saev-5"]
    path = written.write(tmp_path / "theirs") / written.file
    header, rest = path.read_bytes().split(b"\n", 1)
    for rule in ("TopK", "BatchTopK"):
        said = json.loads(header)
        said["cfg"]["activation"] = {"cls": rule, "params": {"top_k": WIDTH + 1}}
        path.write_bytes(json.dumps(said).encode() + b"\n" + rest)
        with pytest.raises(ModelError, match=f"top_k: {WIDTH + 1}; allowed: a whole number from 1 to {WIDTH}"):
            read_foreign(path)


@pytest.mark.parametrize(
    ("key", "value"), [("options", {"k": 1000}), ("variant", ["topk"]), ("clamp", 10**30), ("notices", True)]
)
def test_odd_values_in_a_config_of_visae_are_refused(key, value, tmp_path):
    import_sae(WRITTEN[TOPK].write(tmp_path / "theirs"), tmp_path / "ours")
    path = tmp_path / "ours/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ModelError, match=r"config\.json"):
        read_foreign(tmp_path / "ours")


@pytest.mark.parametrize("source", ["hub:owner", "hub:owner/", "hub:/name", "hub:a b/c"])
def test_a_name_on_the_hub_is_looked_at_before_any_job_runs(source):
    settings = PublishedSettings(kind="published", source=source)
    study = SimpleNamespace(saes={"theirs": settings}, models={}, studies={})
    assert any("write hub:owner/name" in line for line in published_problems(study))


def test_a_normalization_that_is_no_file_is_named_before_any_job_runs(tmp_path):
    settings = PublishedSettings(kind="published", source="hub:owner/name", normalization="layer_norm")
    with pytest.raises(ConfigError, match="normalization: layer_norm: there is no such file; allowed: data, none"):
        local_files("theirs", settings)
    file = tmp_path / "mean.json"
    file.touch()
    assert local_files("theirs", replace(settings, normalization=str(file))) == [file]
    assert local_files("theirs", replace(settings, normalization="data")) == []
    with pytest.raises(ConfigError, match="a place on the hub is written hub:owner/name"):
        local_files("theirs", PublishedSettings(kind="published", source="owner/name"))
