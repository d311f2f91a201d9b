"""What model-check measures, on class folders made here; what its intervals cover; and when it warns."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.neighbors import KNeighborsClassifier

from visae.cli import main
from visae.config.settings import ModelIdentity
from visae.data.images import pixels
from visae.errors import ConfigError, DataError, ModelError
from visae.heads import neighbours
from visae.heads.class_folders import read_class_folders
from visae.heads.model_check import Network, Reading, check_model
from visae.heads.model_scores import Judgeable, promise_notices, published_notices, scores, wilson
from visae.heads.neighbours import by_neighbours
from visae.heads.pooled_layers import read_layers
from visae.heads.pretraining import promised, published
from visae.vision.model import HookPoint, load_model, prepare_model
from visae.vision.weights import created

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64
SURFACES = ("brick.png", "grass.png", "gravel.png", "page.png")


def textured(root: Path, train: int, val: int, measure: str = "val", seed: int = 0) -> Path:
    """Crops of photographs, each in a colour by chance: the class is the texture, and colour says nothing."""
    generator = np.random.default_rng(seed)
    for name in SURFACES:
        surface = np.asarray(Image.open(Path(skimage.data_dir) / name).convert("L"))
        for part, n in (("train", train), (measure, val)):
            folder = root / part / name.removesuffix(".png")
            folder.mkdir(parents=True)
            for number in range(n):
                top, left = (int(generator.integers(side - SIZE)) for side in surface.shape)
                crop = surface[top : top + SIZE, left : left + SIZE, None] * generator.uniform(0.4, 1, 3)
                Image.fromarray(crop.astype(np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return textured(tmp_path_factory.mktemp("textures"), 20, 20)


NETWORK = {"architecture": "vit_tiny_patch16_224", "weights": "random", "image_size": 32}


def checked(root: Path, output: Path, **options: object) -> dict:
    options = {**NETWORK, "layers": [11], **options}
    network = Network(**{name: options.pop(name) for name in ("card_path", *NETWORK) if name in options})
    reading = Reading(layers=options.pop("layers"), workers=0)
    check_model(network, str(root), reading=reading, output=output, **options)
    return json.loads(output.read_text())


@pytest.mark.slow
def test_a_trained_network_knows_textures_that_random_weights_do_not(
    textures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "check.json"
    network = ["--architecture", "tf_efficientnet_lite0", "--weights", "embedded", "--image-size", "64"]
    main(["model-check", *network, "--root", str(textures), "--workers", "0", "--output", str(output)])
    found = json.loads(output.read_text())
    assert [row["layer"] for row in found["rows"]] == [layer for layer in (0, 1, 2, 3, 4, None) for _ in range(2)]
    for row in found["rows"][-2:]:
        assert row["model"] > 0.9
        assert row["gain_low"] > 0
    assert (found["n_fit"], found["n_measure"], found["notices"]) == (80, 80, [])
    said = capsys.readouterr().out
    assert "supervision on ImageNet-1K" in said
    assert f"final  mean         neighbours  {found['rows'][-1]['model']:.3f}" in said


def test_pooled_layers_are_what_the_model_reads(textures: Path, tmp_path: Path) -> None:
    settings = ModelIdentity(architecture="vit_tiny_patch16_224", weights="random", image_size=32)
    prepare_model(settings, tmp_path / "weights.safetensors", tmp_path / "model.json")
    model = load_model(tmp_path / "model.json")
    paths = read_class_folders(str(textures), 6, 0).fit.paths
    found = read_layers([model], [3, 11], paths, tmp_path, batch_size=4, workers=0, what="some")
    pictures = torch.stack([pixels(path, model.card) for path in paths])
    tokens = model.read(pictures, [HookPoint(3)])[HookPoint(3)]
    # Batches of another size sum in another order.
    np.testing.assert_allclose(found.features[0][3, "class_token"], tokens[:, 0], atol=1e-5)
    np.testing.assert_allclose(found.features[0][3, "mean"], tokens[:, 1:].mean(dim=1), atol=1e-5)
    np.testing.assert_allclose(found.features[0][None, "class_token"], model(pictures)[:, 0], atol=1e-5)


def test_neighbours_vote_as_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    known, unknown = (generator.normal(size=(n, 8)).astype(np.float32) for n in (50, 30))
    classes = generator.integers(3, size=50)
    theirs = KNeighborsClassifier(7, metric="cosine", weights=lambda d: np.exp((1 - d) / neighbours.TEMPERATURE))
    monkeypatch.setattr(neighbours, "_PIECE", 13)
    ours = by_neighbours(known, classes, unknown, 7, torch.device("cpu"))
    assert np.array_equal(ours, theirs.fit(known, classes).predict(unknown))


def test_intervals_cover_what_is_true() -> None:
    generator = np.random.default_rng(0)
    for share, n in ((0.5, 40), (0.95, 100)):
        covered = [low <= share <= high for _, low, high in (wilson(generator.random(n) < share) for _ in range(2000))]
        assert 0.93 < np.mean(covered) < 0.98
    _, low, high = wilson(np.ones(20))
    assert 0.8 < low < high == pytest.approx(1)


def test_a_gain_is_measured_on_the_same_pictures() -> None:
    # Both networks are right on half of the pictures: alone each is uncertain, and together they differ nowhere.
    features = np.repeat(np.eye(2, dtype=np.float32), 40, axis=0)
    classes = np.repeat([0, 1], 40)
    wrong = {(None, "mean"): features[::-1]}
    known, right = {(None, "mean"): features}, {(None, "mean"): features}
    same, better = (
        next(scores(Judgeable([known, known], [right, other], classes, classes), 5, torch.device("cpu"), 0))
        for other in (right, wrong)
    )
    assert (same["gain"], same["gain_low"], same["gain_high"], same["share"]) == (0, 0, 0, 0)
    assert (better["model"], better["random"], better["gain"], better["share"]) == (1, 0, 1, 1)
    assert (better["gain_low"], better["gain_high"]) == (1, 1)


def test_random_weights_under_a_name_of_a_pretraining_are_warned_of(
    textures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, path = "vit_tiny_patch16_224.augreg_in21k", tmp_path / "weights.safetensors"
    torch.manual_seed(3)
    save_file(created(name, 32, pretrained=False).state_dict(), path)
    found = checked(textures, tmp_path / "check.json", architecture=name, weights=str(path))
    assert [notice["level"] for notice in found["notices"]] == ["warning"]
    assert "promises a general pre-training (augreg)" in found["notices"][0]["text"]
    assert "more than those of random weights" in found["notices"][0]["text"]
    assert "promises" in caplog.text
    # Weights that are called random promise nothing.
    assert checked(textures, tmp_path / "check.json", architecture=name)["notices"] == []


def test_one_reading_that_knows_enough_is_no_warning() -> None:
    poor = {"layer": None, "share": 0.2, "share_high": 0.3, "gain_low": 0.1, "model": 0.3, "random": 0.1}
    poor |= {"measure": "neighbours", "tokens": "mean"}
    assert len(promise_notices([poor], "mae", "vit")) == 1
    assert promise_notices([poor, poor | {"share_high": 0.6}], "mae", "vit") == []
    assert promise_notices([poor], None, "vit") == []
    # Of layers before the last nothing is promised.
    assert len(promise_notices([poor, poor | {"layer": 3, "share_high": 0.9}], "mae", "vit")) == 1


@pytest.mark.parametrize(
    ("architecture", "weights", "word"),
    [
        ("vit_base_patch14_dinov2.lvd142m", "hub", "dinov2"),
        ("vit_base_patch16_clip_224.openai", "hub", "clip"),
        ("vit_base_patch16_224.mae", "hub", "mae"),
        ("vit_base_patch16_siglip_224", "hub", "siglip"),
        ("resnet50.a1_in1k", "hub", "in1k"),
        ("vit_base_patch16_224", "hub:imageomics/bioclip/open_clip_pytorch_model.bin", "bioclip"),
        ("vit_base_patch16_224", "/clip/mine.pt", None),
        ("vit_base_patch16_224", "/mine/clip.pt", "clip"),
        ("vit_base_patch14_dinov2", "random", None),
        ("tf_efficientnet_lite0", "embedded", None),
        ("maevit_small", "hub", None),
    ],
)
def test_what_a_name_promises(architecture: str, weights: str, word: str | None) -> None:
    assert promised(architecture, weights) == word


def test_published_numbers_are_of_the_same_classes() -> None:
    name = "vit_small_patch14_dinov2.lvd142m"
    cifar10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    known = published(name, "hub", cifar10)
    assert known is not None
    assert str(known).startswith("DINOv2 ViT-S/14 is published with 0.97 or more")
    assert published(name, "hub", cifar10[:5]) is None
    assert published("tf_efficientnet_lite0", "embedded", cifar10) is None
    assert published("vit_base_patch16_clip_224.openai", "hub:imageomics/bioclip", cifar10) is None
    row = {"layer": None, "measure": "probe", "model": 0.64, "model_low": 0.58, "model_high": 0.69}
    assert "reach 0.64 [0.58, 0.69]" in published_notices([row, row | {"layer": 3, "model_high": 1}], known)[0].text
    assert published_notices([row, row | {"model": 0.9, "model_high": 0.95}], known) == []
    assert published_notices([row], None) == []


def test_parts_are_folders_or_drawn(textures: Path, tmp_path: Path) -> None:
    found = read_class_folders(str(textures), 0, 0)
    assert (found.parts, len(found.fit.paths), len(found.measure.paths)) == ("train and val", 80, 80)
    drawn = read_class_folders(str(textures / "train"), 0, 0)
    assert drawn.parts == "drawn by seed 0"
    assert not {*drawn.fit.paths} & {*drawn.measure.paths}
    assert len(drawn.fit.paths) + len(drawn.measure.paths) == 80
    limited = read_class_folders(str(textures), 10, 0)
    assert np.bincount(limited.fit.classes).tolist() == [3, 3, 2, 2]
    assert read_class_folders(str(textures), 10, 0).fit.paths == limited.fit.paths
    assert read_class_folders(str(textures), 10, 1).fit.paths != limited.fit.paths
    tested = textured(tmp_path, 2, 1, measure="test")
    assert read_class_folders(str(tested), 0, 0).parts == "train and test"


def test_bad_folders_are_named(textures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISAE_DATA", raising=False)
    with pytest.raises(DataError, match="VISAE_DATA"):
        read_class_folders("${VISAE_DATA}/cifar10", 0, 0)
    with pytest.raises(DataError, match="no such folder"):
        read_class_folders(str(tmp_path / "none"), 0, 0)
    shutil.copytree(textures / "train", tmp_path / "lone/train")
    with pytest.raises(DataError, match="train has class folders, but there is no val or test beside it"):
        read_class_folders(str(tmp_path / "lone"), 0, 0)
    shutil.copytree(textures / "train/brick", tmp_path / "single/brick")
    with pytest.raises(DataError, match="class"):
        read_class_folders(str(tmp_path / "single"), 0, 0)
    shutil.copytree(textures, tmp_path / "more")
    shutil.copytree(textures / "val/brick", tmp_path / "more/val/tile")
    with pytest.raises(DataError, match="tile"):
        read_class_folders(str(tmp_path / "more"), 0, 0)


def test_what_cannot_be_judged_is_left_out_and_said(textures: Path, tmp_path: Path) -> None:
    root = tmp_path / "textures"
    shutil.copytree(textures, root)
    shutil.copy(root / "train/grass/0.png", root / "val/grass/copy.png")
    (root / "train/grass/broken.png").write_bytes(b"no picture")
    (root / "train/grass/raw.heic").write_bytes(b"a picture of another kind")
    found = checked(root, tmp_path / "check.json", layers=[0])
    texts = [notice["text"] for notice in found["notices"]]
    assert any("left out: 1 .heic" in text for text in texts)
    assert any("1 pictures were left out" in text and "broken.png" in text for text in texts)
    assert any("1 pictures to measure on are among those to learn from too" in text for text in texts)
    assert (found["n_fit"], found["n_measure"]) == (80, 80)


def test_unreadable_pictures_alone_are_refused(textures: Path, tmp_path: Path) -> None:
    root = tmp_path / "textures"
    shutil.copytree(textures, root)
    for path in (root / "val").rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"and 0 others to measure on are left.*unreadable picture"):
        checked(root, tmp_path / "check.json", layers=[0])


def test_a_model_has_to_be_named_once(textures: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"either --card-path .* or --architecture"):
        check_model(root=str(textures))
    with pytest.raises(ConfigError, match="--neighbours"):
        checked(textures, tmp_path / "check.json", neighbours=0)
    with pytest.raises(ModelError, match="layers go from 0 to 11"):
        checked(textures, tmp_path / "check.json", layers=[12])
