"""How timm, open_clip and transformers write down how pictures are prepared, and what of it cannot be followed."""

import pytest
from transforms_for_tests import (
    BEIT,
    CLIP_MEAN,
    CLIP_PROCESSOR,
    CONVNEXT,
    DINOV2,
    HALF,
    OLD,
    OLD_VIT,
    OPEN_CLIP,
    SIGLIP,
    VIT,
)

from visae.errors import ModelError
from visae.vision.timm_import import import_timm
from visae.vision.transforms import Transform, of_hugging_face, of_open_clip, of_timm


def test_every_configuration_of_timm_is_read_as_timm_reads_it() -> None:
    import_timm()
    from timm.data import resolve_data_config
    from timm.models import list_pretrained
    from timm.models._registry import get_pretrained_cfg

    refused: dict[str, int] = {}
    names = list_pretrained()
    assert len(names) > 1000
    for name in names:
        config = get_pretrained_cfg(name).to_dict()
        wanted, found = resolve_data_config(pretrained_cfg=config), of_timm(config, name)
        if found.refused:
            refused.update({key: refused.get(key, 0) + 1 for key in found.refused})
            with pytest.raises(ModelError, match=rf"{name}.*set models: (fit|crop_share)"):
                Transform().over(found)
            continue
        assert found.image_size == wanted["input_size"][1:]
        assert found.fit == {"center": "crop", "squash": "squash"}[wanted["crop_mode"]]
        for key, theirs in (("crop_share", "crop_pct"), ("mean", "mean"), ("std", "std")):
            assert getattr(found, key) == wanted[theirs]
        assert found.interpolation == wanted["interpolation"]
    # Borders (DeepSeek-ViT) and a crop that is larger than the picture (VOLO at 448 and 512): few.
    assert set(refused) <= {"fit", "crop_share"}
    assert sum(refused.values()) < 20


@pytest.mark.parametrize(
    ("read", "config", "expected"),
    [
        (of_open_clip, OPEN_CLIP, ((224, 224), "crop", 1.0, "bicubic", CLIP_MEAN)),
        (of_open_clip, OPEN_CLIP | {"preprocess_cfg": SIGLIP}, ((224, 224), "squash", 1.0, "bicubic", HALF)),
        (of_open_clip, OPEN_CLIP | {"preprocess_cfg": {"size": 448}}, ((448, 448), "crop", 1.0, "bicubic", CLIP_MEAN)),
        (of_hugging_face, CLIP_PROCESSOR, ((224, 224), "crop", 1.0, "bicubic", CLIP_MEAN)),
        (of_hugging_face, DINOV2, ((224, 224), "crop", 0.875, "bicubic", CLIP_MEAN)),
        (of_hugging_face, VIT, ((224, 224), "squash", 1.0, "bilinear", HALF)),
        (of_hugging_face, VIT | {"do_normalize": False}, ((224, 224), "squash", 1.0, "bilinear", (0.0, 0.0, 0.0))),
        (of_hugging_face, OLD, ((224, 224), "crop", 1.0, None, None)),
        (of_hugging_face, OLD_VIT, ((224, 224), "squash", 1.0, "bilinear", None)),
        (of_hugging_face, BEIT, ((224, 224), "squash", 0.875, None, None)),
        (of_hugging_face, CONVNEXT, ((224, 224), "crop", 0.875, None, None)),
        (of_hugging_face, CONVNEXT | {"size": {"shortest_edge": 384}}, ((384, 384), "squash", 1.0, None, None)),
    ],
)  # fmt: skip
def test_configurations_of_other_libraries_are_read(read, config: dict, expected: tuple) -> None:
    found = read(config, "x.json")
    assert not found.refused
    assert (found.image_size, found.fit, found.crop_share, found.interpolation, found.mean) == expected


@pytest.mark.parametrize(
    ("read", "config", "key"),
    [
        (of_open_clip, {"preprocess_cfg": {"resize_mode": "longest"}}, "fit"),
        (of_timm, {"crop_mode": "border"}, "fit"),
        (of_timm, {"crop_pct": 1.15}, "crop_share"),
        (of_timm, {"interpolation": "random"}, "interpolation"),
        (of_hugging_face, VIT | {"do_rescale": False}, "mean"),
        (of_hugging_face, VIT | {"rescale_factor": 1 / 127.5}, "mean"),
        (of_hugging_face, VIT | {"do_resize": False}, "fit"),
        (of_hugging_face, {"size": 224}, "fit"),
        (of_hugging_face, VIT | {"size": {"shortest_edge": 224, "longest_edge": 1333}}, "fit"),
        (of_hugging_face, VIT | {"size": {"shortest_edge": 224}, "do_center_crop": False}, "fit"),
    ],
)
def test_what_cannot_be_followed_is_refused_until_it_is_set(read, config: dict, key: str) -> None:
    found = read(config, "x.json")
    with pytest.raises(ModelError, match=rf"x\.json: .*set models: {key}"):
        Transform().over(found)
    mine = {"fit": "crop", "crop_share": 1.0, "interpolation": "bicubic", "mean": HALF}[key]
    assert getattr(Transform(**{key: mine}).over(found), key) == mine
