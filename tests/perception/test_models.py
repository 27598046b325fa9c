"""The models' classes with tiny random weights: what goes in and what comes out, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from grape.core.errors import PolicyError, SettingsError

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from safetensors.torch import load_file, save_file

from grape.perception import open_features, open_finder
from grape.perception.models.dinov2 import DinoV2
from grape.perception.models.grounding_dino import GroundingDino
from grape.perception.models.opening import normalized, shorter_side, split_name
from grape.perception.models.sam2 import Sam2
from tests.perception.tiny_models import save_dinov2, save_grounding_dino, save_sam2

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 90, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {
        "dino": save_grounding_dino(folder / "dino"),
        "sam": save_sam2(folder / "sam"),
        "features": save_dinov2(folder / "features"),
    }
    torch.set_num_threads(threads)


def detector(weights, threshold):
    return GroundingDino(str(weights["dino"]), threshold=threshold, shortest=64, longest=96)


def test_boxes_lie_in_the_image_surest_first(weights):
    detections = detector(weights, 0.0).detect(IMAGE, "Black bowl")
    assert len(detections) > 3
    scores = [detection.score for detection in detections]
    assert scores == sorted(scores, reverse=True)
    for detection in detections:
        left, top, right, bottom = detection.box
        assert 0 <= left <= right <= 90
        assert 0 <= top <= bottom <= 60
    assert detections == detector(weights, 0.0).detect(IMAGE, "  black bowl. ")  # as the model was trained to read it
    assert detector(weights, 1.0).detect(IMAGE, "black bowl") == ()


def test_detection_agrees_with_transformers_own_post_processing(weights):
    """Without a threshold on words its score is the best of all tokens, and ours that of the phrase's."""
    processor = transformers.GroundingDinoProcessor(
        transformers.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}),
        transformers.BertTokenizer.from_pretrained(weights["dino"]),
    )
    model = transformers.GroundingDinoForObjectDetection.from_pretrained(weights["dino"]).eval()
    inputs = processor(images=IMAGE, text="black bowl.", return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    tokens = inputs["input_ids"][0].tolist()
    words = [position for position, token in enumerate(tokens) if token in (6, 7)]  # black, bowl
    expected = outputs.logits[0].sigmoid()[:, words].max(dim=1).values.max()
    theirs = processor.post_process_grounded_object_detection(outputs, threshold=0.0, target_sizes=[(60, 90)])[0]
    ours = detector(weights, 0.0).detect(IMAGE, "black bowl")
    assert ours[0].score == pytest.approx(float(expected), abs=2e-3)
    distance = (theirs["boxes"] - torch.tensor(ours[0].box)).abs().max(dim=1).values.min()
    assert float(distance) < 0.5  # pixels


def test_masks_have_the_images_size_and_follow_the_box(weights):
    segmenter = Sam2(str(weights["sam"]))
    mask = segmenter.segment(IMAGE, (10.0, 10.0, 50.0, 40.0))
    assert mask.shape == (60, 90)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, segmenter.segment(IMAGE, (10.0, 10.0, 50.0, 40.0)))


def test_segmentation_agrees_with_the_models_own_scale(weights):
    """The mask is the model's at its own size, stretched back: a square image of that size needs no stretching."""
    square = np.random.default_rng(1).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    model = transformers.Sam2Model.from_pretrained(weights["sam"]).eval()
    with torch.inference_mode():
        masks = model(
            pixel_values=torch.from_numpy(normalized(square, 128, 128)),
            input_boxes=torch.tensor([[[20.0, 30.0, 90.0, 100.0]]]),
            multimask_output=False,
        ).pred_masks[0, 0, 0]
    mask = Sam2(str(weights["sam"])).segment(square, (20.0, 30.0, 90.0, 100.0))
    coarse = masks.numpy() > 0
    factor = 128 // coarse.shape[0]
    np.testing.assert_array_equal(mask[factor // 2 :: factor, factor // 2 :: factor].shape, coarse.shape)
    agreement = (mask[factor // 2 :: factor, factor // 2 :: factor] == coarse).mean()
    assert agreement > 0.9


def test_features_cover_the_image(weights):
    features = DinoV2(str(weights["features"]), patches=4).features(IMAGE)
    assert features.shape == (4, 6, 16)
    assert features.dtype == np.float32
    changed = IMAGE.copy()
    changed[:15, :15] = 0
    difference = np.abs(DinoV2(str(weights["features"]), patches=4).features(changed) - features).sum(axis=-1)
    assert np.unravel_index(difference.argmax(), difference.shape) == (0, 0)


def test_finder_joins_both(weights):
    finder = open_finder(str(weights["dino"]), str(weights["sam"]), "cpu")
    detection = finder.find(IMAGE, "black bowl")
    assert detection is None or (detection.mask.shape == (60, 90) and 0 < detection.score <= 1)


@pytest.mark.parametrize("name", ["color", "colour"])
def test_colors_need_no_weights(name):
    np.testing.assert_allclose(open_features(name, "cpu").features(IMAGE)[3, 4], IMAGE[3, 4] / 255, atol=1e-6)


def test_normalizing_by_hand():
    gray = np.full((4, 6, 3), 128, np.uint8)
    tensor = normalized(gray, 8, 12)
    assert tensor.shape == (1, 3, 8, 12)
    np.testing.assert_allclose(
        tensor[0, :, 0, 0], (128 / 255 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-5
    )
    assert shorter_side(480, 640, 800, 1333) == (800, 1067)
    assert shorter_side(400, 1600, 800, 1333) == (333, 1333)


def test_models_of_another_kind_and_missing_ones_are_refused(weights, tmp_path):
    with pytest.raises(SettingsError, match="type 'dinov2', not 'sam2'"):
        Sam2(str(weights["features"]))
    with pytest.raises(SettingsError, match="cannot be opened"):
        DinoV2(str(tmp_path / "nothing"))


def test_pickles_are_not_read(weights, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(weights["features"], folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SettingsError, match="cannot be opened"):
        DinoV2(str(folder))


def test_code_of_a_folder_is_not_run(weights, tmp_path):
    folder = tmp_path / "coded"
    shutil.copytree(weights["features"], folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: ...\n")
    DinoV2(str(folder), patches=2).features(IMAGE)
    assert not (tmp_path / "ran").exists()


def test_incomplete_weights_are_refused(weights, tmp_path):
    folder = tmp_path / "incomplete"
    shutil.copytree(weights["features"], folder)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("layernorm.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PolicyError, match=r"lack 1 tensors, e.g. layernorm.weight"):
        DinoV2(str(folder))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("facebook/dinov2-small", ("facebook/dinov2-small", None)),
        ("facebook/dinov2-small@v1", ("facebook/dinov2-small", "v1")),
        ("/data/odd@home/weights", ("/data/odd@home/weights", None)),
    ],
)
def test_names_with_revisions(name, parts):
    assert split_name(name) == parts
