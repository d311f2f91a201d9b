"""What summary.json says of masks and their classes, and what is refused."""

import numpy as np
import pytest
from pictures_for_tests import picture
from PIL import Image
from what_was_read_for_tests import ids, left_out, read, said, with_masks

from visae.data.index import read_classes
from visae.errors import DataError


def test_ids_of_masks_and_classes_that_never_occur(tmp_path):
    masks = [ids(0, 1, 1, 2), ids(255, 1, 1, 3)]
    classes = "1\tsky\n2\ttree\n3\troad\n4\tpole\n"
    record = read(with_masks(tmp_path / "set", masks, classes, ignore_ids=[255]), tmp_path)
    shares = {0: 1 / 8, 1: 1 / 2, 2: 1 / 8, 3: 1 / 8, 255: 1 / 8}
    assert record["mask_ids"] == [{"id": number, "share": share} for number, share in shares.items()]
    assert record["mask_modes"] == {"L": 2}
    assert record["unlabelled_share"] == 1 / 4
    assert record["never"] == ["pole"]
    assert [entry["pixel_share"] for entry in record["classes"]] == [1 / 2, 1 / 8, 1 / 8, 0]
    assert record["classes"][0]["n_images"] == {"train": 1, "val": 1}
    assert record["splits"]["val"]["n_masked"] == 1
    assert "0 (12.5% of their pixels)" in said(record, "warning")
    assert "zero_based: true" in said(record, "warning")
    assert "classes that are in val and not in train: road" in said(record, "warning")


def test_unknown_ids_name_what_they_may_mean(tmp_path):
    settings = with_masks(tmp_path / "set", [ids(0, 1, 255), ids(0, 1, 255)], "1\tsky\n")
    with pytest.raises(DataError, match=r"class ids 255 are not .*shifted by one: set zero_based: true") as error:
        read(settings, tmp_path)
    assert str(error.value).count("zero_based") == 1
    settings = with_masks(tmp_path / "set", [ids(0, 255), ids(0, 255)], "1\tsky\n")
    with pytest.raises(DataError, match=r"class ids 255 .*black and white"):
        read(settings, tmp_path)


def test_a_list_of_classes_from_0_is_refused_without_its_key_and_read_with_it(tmp_path):
    masks, classes = [ids(0, 3), ids(0, 11)], "0\tsky\n1\tpole\n3\troad\n11\tvoid\n"
    with pytest.raises(DataError, match=r"line 1: id 0.*zero_based: true"):
        read(with_masks(tmp_path / "set", masks, classes), tmp_path)
    settings = with_masks(tmp_path / "set", masks, classes, zero_based=True, ignore_ids=[11])
    record = read(settings, tmp_path)
    assert read_classes(tmp_path / "out" / "index.parquet") == {1: "sky", 2: "pole", 4: "road", 12: "void"}
    assert record["never"] == ["pole"]  # void is left out on purpose
    assert record["unlabelled_share"] == 1 / 4
    with pytest.raises(DataError, match="no line has the id 0"):
        read(with_masks(tmp_path / "set", masks, "1\tsky\n", zero_based=True), tmp_path)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_list_of_classes_in_another_encoding_is_named(tmp_path, encoding):
    settings = with_masks(tmp_path / "set", [ids(1), ids(1)], "")
    (tmp_path / "set" / "classes.txt").write_bytes("1\tgrün\n".encode(encoding))
    with pytest.raises(DataError, match=r"classes\.txt: it is no UTF-8 text \(byte \d+\); save it as UTF-8"):
        read(settings, tmp_path)


def test_masks_without_a_pixel_of_any_class_stop_the_index(tmp_path):
    settings = with_masks(tmp_path / "set", [ids(0, 255), ids(0, 0)], "1\tsky\n", ignore_ids=[255])
    with pytest.raises(DataError, match="no mask has a pixel of any class: they hold 0, 255 alone"):
        read(settings, tmp_path)


def test_pictures_that_share_a_mask_by_their_name_are_named(tmp_path):
    settings = with_masks(tmp_path / "set", [ids(1, 2), ids(1, 2)], "1\tsky\n2\troad\n")
    picture(tmp_path / "set" / "images" / "train" / "a.png", 7, (4, 2))
    assert "1 pictures have the name of another but for its suffix, such as" in said(
        read(settings, tmp_path), "warning"
    )


def test_ade20k_list_counts_from_1_for_reduced_masks_too(tmp_path):
    settings = with_masks(tmp_path / "set", [ids(0, 1), ids(0, 255)], "", zero_based=True, ignore_ids=[255])
    (tmp_path / "set" / "classes.txt").unlink()
    (tmp_path / "set" / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n2\tbuilding\n3\tsky\n")
    record = read(settings, tmp_path)
    assert {entry["name"]: entry["pixel_share"] for entry in record["classes"]} == {
        "wall": 1 / 2,
        "building": 1 / 4,
        "sky": 0,
    }


def quantized(*rows: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.repeat(np.array(rows, dtype=np.uint8)[:, None], 4, axis=1)).quantize(4)


def test_palettes_are_shown_beside_the_classes(tmp_path):
    mask = Image.fromarray(ids(1, 2))
    mask.putpalette([0, 0, 0, 200, 0, 0, 0, 0, 200])
    record = read(with_masks(tmp_path / "set", [mask, mask], "1\tred\n2\tblue\n"), tmp_path)
    assert record["mask_modes"] == {"P": 2}
    assert "1 #c80000 red, 2 #0000c8 blue" in said(record, "note")
    assert said(record, "warning") == ""


def test_palettes_made_by_quantizing_colours_are_warned_of(tmp_path):
    red, blue, green = (200, 0, 0), (0, 0, 200), (0, 200, 0)
    masks = [quantized(red, red, blue), quantized(blue, blue, green)]
    warned = said(read(with_masks(tmp_path / "set", masks, "1\tred\n2\tblue\n"), tmp_path), "warning")
    assert "the unlabelled id 0 has the colour #" in warned
    assert "an id has another colour than before" in warned


def test_what_lies_among_the_masks_and_is_none_is_counted(tmp_path):
    settings = with_masks(tmp_path / "set", [ids(1, 2), ids(1, 2)], "1\tsky\n2\ttree\n")
    masks = tmp_path / "set" / "annotations" / "train"
    Image.fromarray(ids(1)).save(masks / "lone.png")
    Image.fromarray(ids(1)).save(masks / "a.jpg")
    (masks / "a.json").touch()
    assert left_out(read(settings, tmp_path)) == {
        ".json files": 1,
        "masks without a picture": 1,
        "pictures among the masks that are no .png": 1,
    }
