"""The Parquet files of a data set: their splits by name, and files that are not whole or do not belong together."""

import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_for_tests import ALL, PICTURE, hub, pictures, plain_shard, shard

from visae.data.index import build_index, read_index
from visae.errors import DataError
from visae.files import read_json


def names_only(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        shard(root / name, {"image": pictures(2, 10 * number)})


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], {"train": 2, "test": 2}),
        (["default/train/0000.parquet", "default/train/0001.parquet", "default/validation/0000.parquet"],
         {"train": 4, "val": 2}),
        (["birds-train-00000-of-00001.parquet", "birds-validation-00000-of-00001.parquet"], {"train": 2, "val": 2}),
        (["train-00000-of-00001-0a1b2c.parquet", "dev-00000-of-00001-ff.parquet"], {"train": 2, "val": 2}),
        (["train.parquet", "eval.parquet"], {"train": 2, "test": 2}),
        (["x/train2017.parquet", "x/val2017.parquet"], {"train": 2, "val": 2}),
        (["data/train_full-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"],
         {"train": 2, "train_full": 2}),
    ],
)  # fmt: skip
def test_names_tell_splits_as_the_hub_reads_them(root, index_path, names, splits):
    names_only(root, *names)
    build_index(hub(root), index_path)
    assert read_json(index_path.with_name("summary.json"))["n_images"] == splits


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/train-00000-of-00001.parquet", "b/train-00000-of-00001.parquet"], r"several data sets or configurations"),
        (["a-train-00000-of-00001.parquet", "b-train-00000-of-00001.parquet"], r"several data sets or configurations"),
        (["train-00000-of-00001.parquet", "train_full-00000-of-00001.parquet"], r"several data sets or configurations"),
        (["train.parquet", "more.parquet"], r"the name of .*more\.parquet tells no split, that of .*train\.parquet"),
        (["train-val.parquet"], r"its name tells train and val; set splits"),
        (["data/train-00000-of-00003.parquet", "data/train-00002-of-00003.parquet"],
         r"of 3 shards 1 are missing: train-00001-of-00003\.parquet; download them"),
        (["train-00000-of-00002.parquet", "train-00000-of-00003.parquet"], r"are of two versions of one split"),
        (["train-00000-of-00001-ab.parquet", "train-00000-of-00001-cd.parquet"], r"are one shard; leave one"),
        (["train/0000.parquet", "train/0003.parquet"], r"of 4 shards 2 are missing: 0001\.parquet, 0002\.parquet"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_together_are_refused(root, index_path, names, message):
    names_only(root, *names)
    with pytest.raises(DataError, match=message):
        build_index(hub(root), index_path)


def test_patterns_choose_configurations_folders_and_shards(root, index_path):
    names_only(root, "a/train-00000-of-00003.parquet", "a/train-00001-of-00003.parquet", "b/train/x.parquet")
    build_index(hub(root, splits={"train": "a/train-0000[01]-of-*.parquet", "val": "b/train"}), index_path)
    assert read_json(index_path.with_name("summary.json"))["n_images"] == {"train": 4, "val": 2}
    with pytest.raises(DataError, match=r"splits: train: .*: of 3 shards 1 are missing: train-00002-of-00003\.parquet"):
        build_index(hub(root, splits={"train": "a/train-*.parquet"}), index_path)
    with pytest.raises(DataError, match=r"splits: val: .*there is no such Parquet file"):
        build_index(hub(root, splits={"train": "b/train", "val": "c/*.parquet"}), index_path)
    with pytest.raises(DataError, match=r"x\.parquet is in train and in val"):
        build_index(hub(root, splits={"train": "b/train", "val": "b/**/*.parquet"}), index_path)
    with pytest.raises(DataError, match=r"the split 'validation' looks like val"):
        build_index(hub(root, splits={"train": "b/train", "validation": "a"}), index_path)


def test_drawn_splits_stay_when_a_shard_is_added(root, index_path):
    def drawn() -> dict[str, str]:
        build_index(hub(root, val_share=0.4, check="size"), index_path)
        return {
            path.rpartition("/")[2].partition("@")[0]: split
            for path, split in read_index(index_path)["path", "split"].iter_rows()
        }

    shard(root / "birds-00000-of-00001.parquet", {"image": pictures(100)}, {"image": PICTURE})
    before = drawn()
    assert 20 < [*before.values()].count("val") < 60
    (root / "birds-00000-of-00001.parquet").rename(root / "birds-00000-of-00002.parquet")
    shard(root / "birds-00001-of-00002.parquet", {"image": pictures(20, 100)})
    after = drawn()
    assert len(after) == 120
    assert {name: after[name] for name in before} == before


def test_a_cache_of_the_hub_is_read_through_its_links(root, index_path, tmp_path):
    blob = shard(tmp_path / "blobs" / "0123abc", {"image": pictures(2)})
    (root / "data").mkdir(parents=True)
    (root / "data/train-00000-of-00001.parquet").symlink_to(blob)
    (root / ".cache").mkdir()
    build_index(hub(root), index_path)
    assert len(read_index(index_path)) == 2
    (root / "data/train-00000-of-00001.parquet").unlink()
    (root / "data/train-00000-of-00001.parquet").symlink_to(tmp_path / "blobs" / "gone")
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet is no file"):
        build_index(hub(root), index_path)


def cut_off(content: bytes) -> bytes:
    return content[:-10]


def damaged(content: bytes) -> bytes:
    return content[:4] + bytes(len(content) - 4 - 400) + content[-400:]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut_off, r"it is cut off"),
        (lambda content: b"", r"no Parquet file but empty; copy it again"),
        (lambda content: b"PAR1", r"it is cut off"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1\n", r"a pointer of Git LFS; run git lfs pull"),
        (lambda content: b"<!DOCTYPE html><html>", r"a page or message of a web server"),
        (lambda content: content[:-9] + b"\xff" + content[-8:], r"a\.parquet: it is damaged"),
        (lambda content: b"PARE" + content[4:], r"it is encrypted"),
    ],
)
def test_files_that_are_not_whole_are_named(root, index_path, harm, message):
    path = shard(root / "a.parquet", {"image": pictures(3), "label": [0, 1, 0]})
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        build_index(hub(root, **ALL), index_path)
    assert not index_path.exists()


def test_other_files_than_parquet_are_named(root, index_path, tmp_path):
    root.mkdir()
    with pytest.raises(DataError, match=r"root: .*it has no Parquet files"):
        build_index(hub(root), index_path)
    datasets.Dataset.from_dict({"image": pictures(2)}).save_to_disk(root / "train")
    with pytest.raises(DataError, match=r"\.arrow was written by save_to_disk: load it with datasets\.load_from_disk"):
        build_index(hub(root), index_path)
    path = shard(tmp_path / "one" / "a.parquet", {"image": pictures(2)})
    with pytest.raises(DataError, match=r"a\.parquet is a file; set root to its folder, and splits to"):
        build_index(hub(path), index_path)
    (root / "a.PARQUET").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"the name of a Parquet file has to end in \.parquet"):
        build_index(hub(root, splits={"train": "a.PARQUET"}), index_path)


def test_classes_have_to_be_named_alike_in_all_files(root, index_path):
    shard(root / "train.parquet", {"image": pictures(2), "label": [0, 1]})
    other = {"image": PICTURE, "label": datasets.ClassLabel(names=["crow", "wren"])}
    shard(root / "val.parquet", {"image": pictures(2, 5), "label": [0, 1]}, other)
    with pytest.raises(
        DataError, match=r"val\.parquet: the column label: its classes are not those of .*0 is 'wren' there"
    ):
        build_index(hub(root), index_path)
    plain_shard(root / "val.parquet", {"image": pictures(2, 5), "label": ["a", "b"]})
    with pytest.raises(DataError, match=r"val\.parquet: the column label: integers here are texts"):
        build_index(hub(root), index_path)
    plain_shard(root / "val.parquet", {"image": pictures(2, 5)})
    with pytest.raises(DataError, match=r"val\.parquet: it has no column of labels, but .*train\.parquet has"):
        build_index(hub(root), index_path)


def test_features_that_do_not_fit_are_named(root, index_path):
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table({"image": pyarrow.array(pictures(2), kind), "label": pyarrow.array([0, 7])})
    names = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    root.mkdir()
    for metadata, message in (
        (json.dumps({"info": {"features": names}}), r"row 2: label is 7, but the file names 2 classes, 0 to 1"),
        ("{", r"its metadata under the key huggingface is damaged"),
        ('{"info": 3}', r"its metadata under the key huggingface is damaged"),
    ):
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": metadata}), root / "a.parquet")
        with pytest.raises(DataError, match=message):
            build_index(hub(root, **ALL), index_path)
