"""One step's gradients: what happens on which device."""

import torch

from stages.losses.batch import Moment
from stages.methods import boxseg
from stages.student.segmenter import Logits
from stages.training import micro_batches
from stages.training.optimizer import muon
from stages.training.samples import collate
from stages.training.state import Position, Training
from tests.support.tiny_student import student
from tests.support.train_split import make_split, samples_of
from tests.test_methods import of_project


class Elsewhere(boxseg.Method):
    """BoxSeg with copy-paste, on losses that any device can compute."""

    def losses(self, logits, batch, moment, ema):
        assert batch.boxes.xyxy.device == logits.fine.device
        return {"fine": logits.fine.mean()}, {"boxes": torch.tensor(len(batch.boxes.xyxy))}


def test_batches_are_augmented_on_the_cpu_before_they_go_to_the_device(tmp_path, monkeypatch):
    """The device `meta` computes shapes alone, and fails where a value is asked for, as copy-paste does."""
    monkeypatch.setattr(micro_batches, "logits_of", lambda network, images: Logits(*network(images, True)))
    split, supervision = make_split(tmp_path), of_project("boxseg").supervision
    bank = {**supervision["copy_paste"], "min_quality": 0.0, "min_area_px": 1}
    method = Elsewhere(boxseg.Params.model_validate({**supervision, "copy_paste": bank}), split)
    samples = samples_of(split, defect_share=1.0, with_boxes=True)
    batch, device = collate([samples[number] for number in range(4)]), torch.device("meta")
    network = student().to(device)
    training = Training(network, network, muon(network.parameters(), [], 1.0, 0.0), None, Position(), method)
    shown = micro_batches.backward(training, Moment(0.0, torch.ones(3)), (0, 0), 0, batch, device)
    assert shown["loss"].device == network.fine.logits.weight.grad.device == device
    assert shown["boxes"] > len(batch.boxes.xyxy), "something was pasted"
