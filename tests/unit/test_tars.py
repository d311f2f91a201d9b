"""Tars as files: joined, cut, compressed and damaged ones, long names, and where a member is found again."""

import gzip
import io
import tarfile

import pytest
from indexed_for_tests import said
from webdatasets_for_tests import ALL, WHOLE, pairs, png, tar, webdataset

from visae.data.images import read_mask
from visae.data.index import build_index, read_index
from visae.data.locators import content_sha256, locator, opened
from visae.errors import DataError


@pytest.mark.parametrize("between", [b"", bytes(512), bytes(10240)])
def test_tars_that_were_joined_are_refused(tmp_path, index_path, between):
    parts = [tar(tmp_path / f"{n}.tar", [(f"{n}.png", png(n)), (f"{n}.cls", b"1")]).read_bytes() for n in range(3)]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "all.tar").write_bytes(between.join(parts))
    with pytest.raises(DataError, match=r"all\.tar: it goes on after its end, from byte \d+.*--concatenate"):
        build_index(webdataset(tmp_path / "set"), index_path)


@pytest.mark.parametrize(("after", "whole"), [(bytes(1 << 21), True), (bytes(1 << 21) + b"x", False), (b"x", False)])
def test_a_tar_may_end_in_any_number_of_zeros_and_nothing_else(tmp_path, index_path, after, whole):
    path = tar(tmp_path / "set" / "all.tar", WHOLE)
    path.write_bytes(path.read_bytes() + after)
    if whole:
        build_index(webdataset(tmp_path / "set", **ALL), index_path)
        assert len(read_index(index_path)) == 2
    else:
        with pytest.raises(DataError, match=r"all\.tar: it goes on after its end, from byte"):
            build_index(webdataset(tmp_path / "set"), index_path)


def test_a_lone_block_of_zeros_between_members_is_refused(tmp_path, index_path):
    """What GNU tar reads over with a warning would end the tar here."""
    path = tar(tmp_path / "set" / "all.tar", WHOLE)
    content = path.read_bytes()
    path.write_bytes(content[:1024] + bytes(512) + content[1024:])
    with pytest.raises(DataError, match=r"all\.tar: it goes on after its end, from byte 1536"):
        build_index(webdataset(tmp_path / "set"), index_path)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_all_formats_are_read(tmp_path, index_path, form):
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "all.tar", "w", format=form, pax_headers={"comment": "mine"}) as archive:
        for name, content in pairs(("n" * 130 + "/é{}.png", "n" * 130 + "/é{}.cls")):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1.5
            archive.addfile(member, io.BytesIO(content))
    build_index(webdataset(tmp_path / "set", **ALL), index_path)
    assert read_index(index_path)["label"].to_list() == [0, 1] * 3
    assert not said(index_path, "warning")


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])
def test_members_of_other_types_are_refused(tmp_path, index_path, kind):
    with tarfile.open(tar(tmp_path / "set" / "all.tar", WHOLE), "a") as archive:
        member = tarfile.TarInfo("2.png")
        member.type, member.linkname = kind, "0.png"
        archive.addfile(member)
    with pytest.raises(DataError, match=r"all\.tar: 2\.png is a link or has holes; write the tar with real files"):
        build_index(webdataset(tmp_path / "set"), index_path)


@pytest.mark.parametrize("left", [300, 512, 600, 1024, 1400, 1536, 2048])
def test_truncated_tars_are_named_wherever_they_end(tmp_path, index_path, left):
    """Headers and padded pictures are blocks of 512 bytes: within each, and at each border but the true end."""
    path = tar(tmp_path / "set" / "all.tar", WHOLE)
    assert path.read_bytes()[2048:2560] == bytes(512)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DataError, match=r"all\.tar: it is cut off or damaged"):
        build_index(webdataset(tmp_path / "set"), index_path)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path, index_path):
    path = tar(tmp_path / "set" / "all.tar", WHOLE)
    content = bytearray(path.read_bytes())
    content[1024 + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"all\.tar: it is cut off or damaged"):
        build_index(webdataset(tmp_path / "set"), index_path)


@pytest.mark.parametrize("name", ["all.tar.gz", "all.tgz", "all.tar"])
def test_compressed_tars_are_refused_with_what_to_do(tmp_path, index_path, name):
    content = tar(tmp_path / "set" / "x.tar", WHOLE).read_bytes()
    (tmp_path / "set" / name).write_bytes(gzip.compress(content))
    for splits in ({}, {"train": "x.tar", "val": name}):
        with pytest.raises(DataError, match=rf"{name} is compressed.*`gunzip`"):
            build_index(webdataset(tmp_path / "set", splits=splits), index_path)


def test_a_files_own_name_comes_before_a_place_in_a_tar(tmp_path):
    odd = tmp_path / "a.tar!b.png@0:4"
    odd.write_bytes(png(1))
    (tmp_path / "a.tar").write_bytes(b"0123456789")
    assert opened(odd).read() == png(1)
    assert opened(locator(str(tmp_path / "a.tar"), "b.png", 2, 4)).read() == b"2345"
    assert content_sha256(odd) != content_sha256(f"{tmp_path}/a.tar!b.png@0:5")


def test_names_with_the_signs_of_locators(tmp_path, index_path):
    root = tmp_path / "old.tar!set@1:2"
    tar(root / "a!b.tar", [("c.tar!d/e@f.png", png(3)), ("e!.jpg@0:9.png", png(4))])
    build_index(webdataset(root, val_share=0.0, test_share=0.0), index_path)
    paths = read_index(index_path)["path"]
    assert [content_sha256(path) for path in paths] == read_index(index_path)["sha256"].to_list()
    for number, path in zip((3, 4), paths, strict=True):
        assert opened(path).read() == png(number)


@pytest.mark.parametrize(
    "name", ["gone.tar!a.png@0:5", "a.tar!a.png", "a.tar!a.png@5", "a.tar!a.png@-1:5", "b.png@1:5"]
)
def test_what_names_nothing_is_missing(tmp_path, name):
    (tmp_path / "a.tar").write_bytes(b"0123456789")
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / name)
    with pytest.raises(DataError, match=r"the mask is missing"):
        read_mask(tmp_path / name, (1, 1))


def test_a_tar_that_became_shorter_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"0123456789")
    with pytest.raises(OSError, match=r"a\.tar ends before byte 13"):
        opened(tmp_path / "a.tar!b.png@8:5")
