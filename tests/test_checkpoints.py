"""Weights by name: official layouts, SHA-256 before unpickling, interrupted downloads."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry

from stages.checkpoints import sam_teacher, timm_backbone
from stages.checkpoints.fetch import fetch
from stages.checkpoints.hub_teacher import HUB, ORIGINAL_SHA256
from stages.checkpoints.sam_teacher import install_teacher
from stages.checkpoints.timm_backbone import config_of, install_backbone
from stages.common.errors import UserError
from stages.common.files import sha256_file
from stages.student.backbone import build_backbone, load_backbone
from stages.teacher.image_encoders import OFFICIAL
from stages.teacher.sam import build_sam, load_sam, save_sam
from tests.support.tiny_teacher import TINY

OFFLINE = "Without a network: do this"


@pytest.fixture(scope="module")
def vit_b_file(tmp_path_factory) -> Path:
    """segment_anything's own vit_b layout, every key and shape; each tensor is one number seen many times, so small."""
    state = sam_model_registry["vit_b"]().state_dict()
    path = tmp_path_factory.mktemp("vit_b") / "sam_vit_b.pth"
    numbers = {
        key: torch.tensor(0.5 + index / 1024).expand(value.shape) for index, (key, value) in enumerate(state.items())
    }
    torch.save(numbers, path)
    assert path.stat().st_size < 1_000_000
    return path


class Server(ThreadingHTTPServer):
    """Serves `content` at every address, with ranges, and hangs up after `limit` bytes of an answer."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.limit, self.ranges, self.asked = content, None, True, []
        self.url = f"http://127.0.0.1:{self.server_port}/sam_vit_b_01ec64.pth"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        body = self.server.content[start:]
        if not body:
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    serving = Server(bytes(range(256)) * 40)
    threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
    yield serving
    serving.shutdown()
    serving.server_close()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_download_is_cached_and_not_repeated(server, tmp_path):
    path = tmp_path / "cache/weights"
    for _ in range(2):
        assert fetch(server.url, path, digest(server.content), OFFLINE).read_bytes() == server.content
    assert server.asked == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_resumes_or_starts_again(server, tmp_path, ranges):
    path = tmp_path / "weights"
    server.limit = 700
    with pytest.raises(UserError, match=OFFLINE):
        fetch(server.url, path, digest(server.content), OFFLINE)
    assert not path.exists()
    server.limit, server.ranges = None, ranges
    assert fetch(server.url, path, digest(server.content), OFFLINE).read_bytes() == server.content
    assert server.asked == [None, "bytes=700-"]


def test_leftovers_of_another_file_do_not_end_up_in_the_weights(server, tmp_path):
    path = tmp_path / "weights"
    path.with_name("weights.part").write_bytes(b"x" * (len(server.content) + 5))
    assert fetch(server.url, path, digest(server.content), OFFLINE).read_bytes() == server.content
    path.unlink()
    path.with_name("weights.part").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=r"SHA-256 is .* The file was removed"):
        fetch(server.url, path, digest(server.content), OFFLINE)
    assert fetch(server.url, path, digest(server.content), OFFLINE).read_bytes() == server.content


def test_other_bytes_than_published_are_removed(server, tmp_path):
    with pytest.raises(UserError, match=r"SHA-256 is .* has 00"):
        fetch(server.url, tmp_path / "weights", "00" * 32, OFFLINE)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_error_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=rf"http://127.0.0.1:9/weights: cannot be downloaded .* {OFFLINE}"):
        fetch("http://127.0.0.1:9/weights", tmp_path / "weights", None, OFFLINE)


def test_an_official_checkpoint_is_converted_exactly(vit_b_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sam_teacher.SHA256, "vit_b", sha256_file(vit_b_file))
    install_teacher(str(vit_b_file), tmp_path / "none", tmp_path / "cache", tmp_path / "teacher")
    sam, config = load_sam(tmp_path / "teacher")
    assert config == OFFICIAL["vit_b"]
    official = torch.load(vit_b_file, weights_only=True)
    assert sam.state_dict().keys() == official.keys()
    assert all(torch.equal(value, official[key]) for key, value in sam.state_dict().items())


def test_an_official_name_is_fetched_verified_and_converted(server, vit_b_file, tmp_path, monkeypatch):
    server.content = vit_b_file.read_bytes()
    monkeypatch.setitem(OFFICIAL, "vit_b", OFFICIAL["vit_b"].model_copy(update={"source": server.url}))
    monkeypatch.setattr(sam_teacher, "convert", lambda path, name, out: seen.append((path, name, out)))
    seen = []
    with pytest.raises(UserError, match="SHA-256"):  # the published digest, other bytes
        install_teacher("vit_b", tmp_path / "none", tmp_path / "cache", tmp_path / "teacher")
    assert not seen
    monkeypatch.setitem(sam_teacher.SHA256, "vit_b", sha256_file(vit_b_file))
    install_teacher("vit_b", tmp_path / "none", tmp_path / "cache", tmp_path / "teacher")
    assert seen == [(tmp_path / "cache/sam_vit_b_01ec64.pth", "vit_b", tmp_path / "teacher")]


def test_a_pickle_of_unknown_digest_is_never_opened(tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    torch.save(Trap(), tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth: not opened"):
        install_teacher(str(tmp_path / "evil.pth"), tmp_path, tmp_path, tmp_path / "teacher")
    monkeypatch.setitem(sam_teacher.SHA256, "vit_b", sha256_file(tmp_path / "evil.pth"))
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        install_teacher(str(tmp_path / "evil.pth"), tmp_path, tmp_path, tmp_path / "teacher")
    assert not (tmp_path / "sprung").exists()


def test_the_authors_own_files_of_sam_hq_are_refused_by_name(tmp_path, monkeypatch):
    name = "sam_hq_vit_b"
    (tmp_path / "official.pt").write_bytes(b"a pickle")
    (digest,) = (digest for digest, known in ORIGINAL_SHA256.items() if known == name)
    monkeypatch.setattr(sam_teacher, "sha256_file", lambda _: digest)
    repository = HUB[name].replace(".", r"\.")
    with pytest.raises(
        UserError, match=rf"official\.pt: not opened: .* to {name}, or to a folder .*/{repository}$"
    ) as error:
        install_teacher(str(tmp_path / "official.pt"), tmp_path, tmp_path, tmp_path / "teacher")
    assert "\n" not in str(error.value)


def test_embedded_and_local_teachers_are_copied_byte_for_byte(tmp_path):
    save_sam(tmp_path / "embedded", build_sam(TINY), TINY, torch.float16)
    install_teacher("embedded", tmp_path / "embedded", tmp_path, tmp_path / "one")
    install_teacher(str(tmp_path / "one"), tmp_path, tmp_path, tmp_path / "two")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "embedded" / name).read_bytes()


def test_an_unknown_teacher_is_refused_with_what_is_allowed(tmp_path):
    with pytest.raises(
        UserError, match=r"weights.teacher = 'vit_x': no such file or folder; allowed are embedded, vit_b"
    ):
        install_teacher("vit_x", tmp_path, tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match=r"config\.json: not readable .*; expected the configuration of a teacher"):
        install_teacher("embedded", tmp_path, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


DINOV2, TINY_VIT = "vit_small_patch14_dinov2.lvd142m", "vit_tiny_patch16_224.augreg_in21k"


def timm_file(folder: Path, name: str) -> torch.nn.Module:
    """A checkpoint as the hub has it, `folder`/NAME.safetensors: timm's keys, random weights, classifier included."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    save_file(model.state_dict(), folder / f"{name}.safetensors")
    return model


@pytest.mark.parametrize(
    ("name", "size_px", "patch_px", "mean"),
    [(DINOV2, 70, 14, 0.485), ("vit_small_patch16_dinov3.lvd1689m", 96, 16, 0.485), (TINY_VIT, 80, 16, 0.5)],
)
def test_any_vit_of_timm_gives_its_own_features_at_any_size_that_its_patches_divide(
    tmp_path, name, size_px, patch_px, mean
):
    model = timm_file(tmp_path, name)
    install_backbone(str(tmp_path / f"{name}.safetensors"), tmp_path, tmp_path / "backbone")
    ours, config = load_backbone(tmp_path / "backbone", size_px)
    assert (config.family, config.taps, config.mean[0]) == ("vit", [1, 2, 4, 7], mean)
    model.set_input_size(img_size=(size_px, size_px))
    images = torch.randn(1, 3, size_px, size_px)
    with torch.no_grad():
        expected = model.forward_intermediates(images, indices=config.taps, norm=True, intermediates_only=True)
        for one, other in zip(ours.eval()(images), expected, strict=True):
            torch.testing.assert_close(one, other)
    trained = {name for name, parameter in ours.named_parameters() if parameter.requires_grad}
    assert trained == {
        name for name, _ in ours.named_parameters() if name.endswith(".bias") or ".norm" in name or "norm." in name
    }
    with pytest.raises(UserError, match=rf"view\.size_px = {size_px + 2}: the backbone {name} needs .* of {patch_px}"):
        build_backbone(config, size_px + 2)


@pytest.mark.parametrize(
    ("name", "size_px"),
    [("resnet18.a1_in1k", 70), ("convnext_atto.d2_in1k", 96), ("maxvit_pico_rw_256", 256)],
)
def test_a_network_of_several_strides_gives_four_levels_from_stride_4_on(tmp_path, name, size_px):
    model = timm_file(tmp_path, name)
    install_backbone(str(tmp_path / f"{name}.safetensors"), tmp_path, tmp_path / "backbone")
    ours, config = load_backbone(tmp_path / "backbone", size_px)
    assert (config.family, ours.strides) == ("pyramid", [4, 8, 16, 32])
    images = torch.randn(1, 3, size_px, size_px)
    with torch.no_grad():
        expected = model.forward_intermediates(images, intermediates_only=True)[-4:]
        for one, other in zip(ours.eval()(images), expected, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("name", "size_px", "why"),
    [
        (
            "convnext_atto.d2_in1k",
            112,
            r"gives the taps .*\(320, 3, 3\).*, expected .*\(320, 4, 4\).*multiple of 32 px",
        ),
        ("hrnet_w18_small", 112, "fails .The size of tensor a"),
        ("maxvit_pico_rw_256", 112, r"fails .*divisible by window.*, or the size that it was published for, may fit"),
        ("vit_tiny_patch16_224.augreg_in21k", 120, "needs a multiple of 16"),
    ],
)
def test_a_size_that_the_network_does_not_take_is_refused_before_the_first_step(tmp_path, name, size_px, why):
    timm_file(tmp_path, name)
    install_backbone(str(tmp_path / f"{name}.safetensors"), tmp_path, tmp_path / "backbone")
    with pytest.raises(UserError, match=rf"view\.size_px = {size_px}: the backbone {name} {why}") as error:
        load_backbone(tmp_path / "backbone", size_px)
    assert "\n" not in str(error.value)


def test_a_vit_with_a_convolutional_stem_has_the_stride_of_both(tmp_path):
    timm_file(tmp_path, "vit_tiny_r_s16_p8_224")
    install_backbone(str(tmp_path / "vit_tiny_r_s16_p8_224.safetensors"), tmp_path, tmp_path / "backbone")
    ours, _ = load_backbone(tmp_path / "backbone", 64)
    assert ours.strides == [32] * 4
    assert [tap.shape for tap in ours(torch.rand(1, 3, 64, 64))] == [(1, 192, 2, 2)] * 4


def test_maps_with_channels_last_are_turned():
    config = config_of("swin_tiny_patch4_window7_224.ms_in1k", "nowhere")
    with torch.device("meta"):
        taps = build_backbone(config, 224)(torch.zeros(1, 3, 224, 224))
    assert [tap.shape[1:] for tap in taps] == [(96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7)]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("test_vit.r160_in1k", "needed are 8 blocks of a vision transformer, or four feature levels"),
        ("vit_x", "'vit_x' is no name of timm's; a file is called after it, such as vit_small"),
    ],
)
def test_what_has_no_four_taps_is_refused(name, why):
    with pytest.raises(UserError, match=rf"weights\.backbone.*{why}"):
        config_of(name, "nowhere")


def test_weights_of_another_network_are_refused(tmp_path):
    timm_file(tmp_path, TINY_VIT)
    other = tmp_path / "resnet18.a1_in1k.safetensors"
    other.write_bytes((tmp_path / f"{TINY_VIT}.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"resnet18.*not the weights of resnet18\.a1_in1k: .*conv1"):
        install_backbone(str(other), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_timm_name_is_fetched_from_the_hub_as_safetensors(tmp_path, monkeypatch):
    asked = []

    def fetched(url, path, sha256, offline):
        asked.append((url, sha256))
        timm_file(path.parent, TINY_VIT)
        return path

    monkeypatch.setattr(timm_backbone, "fetch", fetched)
    install_backbone(TINY_VIT, tmp_path, tmp_path / "backbone")
    url = "https://huggingface.co/timm/{}/resolve/main/model.safetensors"
    assert asked == [(url.format(TINY_VIT), None)]
    assert load_backbone(tmp_path / "backbone", 64)[1].name == TINY_VIT
    published = "04d27f3400d059fc0cfd7d17dd1909a75bf3ea8fb3eeb48b97cb99e57ee20081"
    monkeypatch.setattr(timm_backbone, "convert", lambda *_: None)
    monkeypatch.setattr(timm_backbone, "fetch", lambda url, path, sha256, offline: asked.append((url, sha256)))
    install_backbone(DINOV2, tmp_path, tmp_path / "backbone")
    assert asked[1] == (url.format(DINOV2), published)


def test_folders_are_copied_and_unknown_names_are_refused(tmp_path):
    timm_file(tmp_path, TINY_VIT)
    install_backbone(str(tmp_path / f"{TINY_VIT}.safetensors"), tmp_path, tmp_path / "one")
    install_backbone(str(tmp_path / "one"), tmp_path, tmp_path / "two")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert (tmp_path / "one/config.json").read_bytes() == (tmp_path / "two/config.json").read_bytes()
    with pytest.raises(
        UserError, match=r"weights\.backbone = 'vit_x': no such file or folder; allowed are efficientnet_lite0"
    ):
        install_backbone("vit_x", tmp_path, tmp_path / "three")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / f"{TINY_VIT}.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cut\.safetensors: not a safetensors file"):
        install_backbone(str(tmp_path / "cut.safetensors"), tmp_path, tmp_path / "three")
