"""Baselines, trained, stopped and resumed, predicted with and exported as a student is."""

import pytest
import torch
from PIL import Image

from stages import export
from stages.common.errors import Stopped
from stages.data.images import probe_image
from stages.data.tables import IMAGES, Dataset, write_dataset, write_table
from stages.export import Format
from stages.runtime.network import open_network
from stages.student import inference
from stages.student.segmenter import save_student
from tests.support.tiny_student import SIZES_HW, image_of
from tests.support.train_split import samples_of
from tests.support.trainings import NEVER, Watched, few_frequency_samples, plan, stopped_at, train  # noqa: F401  a fixture among them
from tests.test_baseline import FINE_ALONE, SMALL, baseline, bytes_of


@pytest.mark.parametrize("design", SMALL)
def test_a_stopped_training_resumes_and_ends_at_the_same_bits(split, tmp_path, design):
    """DeepLabV3 and SegFormer drop features at random, and all have running statistics. Stopped in the third step."""

    def trained(checkpoint, sample=NEVER):
        network, samples = baseline(design), Watched(samples_of(split), stopped_at(sample))
        # a score that any other weights would miss
        score = lambda average: -average.net.segmentation_head[0].weight.double().abs().sum().item()  # noqa: E731
        result, history = train(network, samples, plan(network, supervision=FINE_ALONE), score, checkpoint)
        return bytes_of(result), history.epochs

    torch.use_deterministic_algorithms(True)
    try:
        undisturbed = trained(None)
        with pytest.raises(Stopped):
            trained(tmp_path / "checkpoint", sample=5)
        assert trained(tmp_path / "checkpoint") == undisturbed
    finally:
        torch.use_deterministic_algorithms(False)


def test_it_is_predicted_with_and_exported_as_a_student_is(tmp_path):
    ours = baseline("segformer").eval()
    with torch.no_grad():
        ours.net.segmentation_head[0].weight.mul_(30)
    save_student(ours, tmp_path / "student")
    network = open_network(tmp_path / "student", "cpu")
    for size_hw in SIZES_HW[:3]:
        image = image_of(size_hw)
        wanted = inference.predict(ours, image).labels
        assert (network.predict(image).labels == wanted).mean() > 0.999

    write_dataset(tmp_path / "tables/dataset.json", Dataset(tmp_path / "images", ("dirt", "damage")))
    path = tmp_path / "images/a.png"
    path.parent.mkdir()
    Image.fromarray(image_of((57, 99))).save(path)
    row = {"image_id": "a", "split": "val", "path": "a.png", "sha256": probe_image(path.read_bytes()).sha256}
    row |= {"exif_orientation": 1, "height": 57, "width": 99, "label_status": "missing"}
    write_table(tmp_path / "tables/val/images.parquet", IMAGES, [row])
    export.main(tmp_path / "student", tmp_path / "onnx", Format.onnx, False, None, tmp_path / "tables", False)
    exported = open_network(tmp_path / "onnx", "cpu")
    assert (exported.names, exported.view) == (ours.config.names, ours.config.view)
    assert exported.identity == network.identity
