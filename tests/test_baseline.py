"""Baselines: segmentation-models-pytorch's own networks behind the student's interface, trained by the same loop."""

import typing

import pytest
import segmentation_models_pytorch as smp
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from stages.common.errors import UserError
from stages.common.params import read_sealed, write_sealed
from stages.networks.baseline import IMAGENET_MEAN, IMAGENET_STD, LITE0, Encoder, Network, untrained
from stages.student.config import NetworkConfig, ViewParams
from stages.student.efficientnet_lite0 import load_weights
from stages.student.segmenter import load_student, save_student
from tests.support.train_split import samples_of
from tests.support.trainings import few_frequency_samples, groups_of, plan, train  # noqa: F401  a fixture among them

FINE_ALONE = {"method": "boxes2pixels", "fine": 1.0, "binary": None, "beta": None, "selfcorr": None}
SMALL = {"unet": "mobilenet_v2", "deeplabv3": "mobilenet_v2", "segformer": "mit_b0"}


def config(design: str, encoder: str | None = None, width: int = 16, size_px: int = 56) -> NetworkConfig:
    return NetworkConfig(
        names=["dirt", "damage"],
        network={
            "architecture": "baseline",
            "design": design,
            "encoder": encoder or SMALL[design],
            "encoder_weights": None,
            "decoder_width": width,
        },
        view=ViewParams(scale="native", size_px=size_px),
        backbone=None,
        plan_sha256="0" * 64,
    )


def baseline(design: str, **changes) -> Network:
    torch.manual_seed(0)
    return Network(config(design, **changes))


def bytes_of(network: Network) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in network.state_dict().items()}


@pytest.mark.parametrize("design", SMALL)
@pytest.mark.parametrize("size_hw", [(56, 56), (57, 90), (33, 100)])
def test_logits_have_the_size_of_the_image_whatever_it_is(design, size_hw):
    with torch.no_grad():
        logits = baseline(design).eval()(torch.rand(2, 3, *size_hw), with_binary=True)
    assert logits.fine.shape == (2, 3, *size_hw)
    assert logits.binary is None


@pytest.mark.parametrize("design", SMALL)
def test_logits_are_those_of_the_package_on_the_normalised_image(design):
    ours = baseline(design).eval()
    images = torch.rand(1, 3, 64, 96)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    with torch.no_grad():
        assert torch.equal(ours(images, with_binary=False).fine, ours.net((images - mean) / std))


@pytest.mark.parametrize("design", ["unet", "deeplabv3"])
def test_efficientnet_lite0_starts_from_the_installed_imagenet_weights(design):
    """Statistics of the input too; without `imagenet`, and where a trained one is loaded, from random weights."""
    asked = config(design, encoder=LITE0)
    asked = asked.model_copy(update={"network": {**asked.network, "encoder_weights": "imagenet"}})
    network, imagenet = untrained(asked, backbone=None), load_weights()
    found = network.net.encoder.state_dict()
    assert imagenet.keys() - found.keys() == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(value, imagenet[name]) for name, value in found.items())
    assert network.mean.flatten().tolist() == pytest.approx([127 / 255] * 3)
    random = Network(asked).net.encoder.state_dict()
    assert not torch.equal(random["conv_stem.weight"], imagenet["conv_stem.weight"])


def test_a_side_that_the_stride_does_not_divide_is_the_image_with_its_rim_repeated():
    ours = baseline("segformer").eval()
    images = torch.rand(1, 3, 50, 70)
    whole = torch.nn.functional.pad(images, (0, 26, 0, 14), mode="replicate")
    with torch.no_grad():
        found, wanted = ours(images, with_binary=False).fine, ours(whole, with_binary=False).fine
    torch.testing.assert_close(found, wanted[..., :50, :70])


@pytest.mark.parametrize(
    ("design", "theirs"),
    [
        ("unet", lambda: smp.Unet("mobilenet_v2", encoder_weights=None, classes=3)),
        ("deeplabv3", lambda: smp.DeepLabV3("mobilenet_v2", encoder_weights=None, classes=3, encoder_output_stride=8)),
        ("segformer", lambda: smp.Segformer("mit_b0", encoder_weights=None, classes=3)),
    ],
)
def test_with_a_decoder_of_256_it_is_the_package_s_own_network(design, theirs):
    wanted = {key: value.shape for key, value in theirs().state_dict().items()}
    assert {key: value.shape for key, value in baseline(design, width=256).net.state_dict().items()} == wanted


@pytest.mark.parametrize("classes", [2, 4, 40])
@pytest.mark.parametrize("design", SMALL)
def test_adamw_gets_the_last_map_however_many_classes_there_are(design, classes):
    """U-Net's last convolutions have a sixteenth of the decoder's width as outputs, here 8; some of Lite0 have 16."""
    asked = config(design, encoder=None if design == "segformer" else LITE0, width=128)
    network = Network(asked.model_copy(update={"names": [f"class {number}" for number in range(classes)]}))
    last = "net.segmentation_head.0.weight"
    assert groups_of(network) == [[name for name in network.trainable() if name != last], [last]]


def test_all_of_it_is_trained():
    for design in SMALL:
        ours = baseline(design)
        ours(torch.rand(2, 3, 56, 56), with_binary=True).fine.square().mean().backward()
        assert set(ours.trainable()) == {name for name, _ in ours.named_parameters()}
        assert all(parameter.requires_grad for parameter in ours.parameters())
        assert [name for name, parameter in ours.trainable().items() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("design", "encoder"),
    [
        (design, encoder)
        for design in SMALL
        for encoder in typing.get_args(Encoder)
        if design != "deeplabv3" or not encoder.startswith("mit_")
    ],
)
def test_every_encoder_that_the_plan_lets_through_can_be_built(design, encoder):
    Network(config(design, encoder))
    if encoder != LITE0:
        assert "imagenet" in smp.encoders.encoders[encoder]["pretrained_settings"]


def test_the_first_prediction_is_the_prior_where_features_say_nothing():
    prior = torch.tensor([0.9, 0.08, 0.02], dtype=torch.float64)
    for design in SMALL:
        ours = baseline(design).eval()
        ours.start_at(prior)
        with torch.no_grad():
            ours.net.segmentation_head[0].weight.zero_()
            probabilities = ours(torch.rand(1, 3, 56, 56), with_binary=False).fine.softmax(1)
        torch.testing.assert_close(probabilities, prior.float().view(1, 3, 1, 1).expand(1, 3, 56, 56))


@pytest.mark.parametrize("design", SMALL)
def test_steps_on_one_batch_lower_its_loss(design):
    """The upper half red, of class 1; the rest is background."""
    network = baseline(design, width=64).train()
    images, labels = 0.3 * torch.rand(4, 3, 64, 64), torch.zeros(4, 64, 64, dtype=torch.long)
    images[:, 0, :32], labels[:, :32] = 0.9, 1
    optimizer, seen = torch.optim.AdamW(network.trainable().values(), lr=2e-3), []
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(network(images, with_binary=True).fine, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.75 * seen[0]


def test_a_step_draws_other_features_to_drop_than_the_step_before(split, monkeypatch):
    seeds = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    network = Network(config("unet"))
    train(network, samples_of(split), plan(network, supervision=FINE_ALONE), lambda _: 0.0)
    assert len(seeds) == len(set(seeds)) > 1


@pytest.mark.parametrize("design", SMALL)
def test_a_saved_baseline_predicts_the_same_and_needs_no_network(tmp_path, design):
    ours = baseline(design).eval()
    pretrained = {**ours.config.network, "encoder_weights": "imagenet"}
    ours.config = ours.config.model_copy(update={"network": pretrained})
    for name in ("a", "b"):
        save_student(ours, tmp_path / name)
    again = load_student(tmp_path / "a")
    images = torch.rand(1, 3, 56, 70)
    with torch.no_grad():
        assert torch.equal(ours(images, with_binary=False).fine, again(images, with_binary=False).fine)
    assert again.config == ours.config
    for file in ("student.safetensors", "student.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_configuration_of_neither_kind_is_refused(tmp_path):
    save_student(baseline("unet"), tmp_path / "model")
    path = tmp_path / "model/student.json"
    values = read_sealed(path, "")
    values["network"]["design"] = "unit"
    write_sealed(path, values)
    with pytest.raises(UserError, match=r"student\.json: network\.design = 'unit'"):
        load_student(tmp_path / "model")


def test_weights_that_cannot_be_had_are_one_clear_error(monkeypatch):
    def offline(*_, **__):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(smp.encoders, "hf_hub_download", offline)
    asked = config("unet")
    asked = asked.model_copy(update={"network": {**asked.network, "encoder_weights": "imagenet"}})
    with pytest.raises(UserError, match=r"network\.encoder_weights = imagenet: .* mobilenet_v2 are not available"):
        Network(asked, pretrained=True)
    Network(asked)
