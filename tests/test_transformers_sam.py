"""Teachers of transformers: tiny random models of the real classes, saved in their official layout and loaded again."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.checkpoints import hub_teacher
from stages.checkpoints.sam_teacher import install_teacher
from stages.common.errors import UserError
from stages.compute import device
from stages.teacher.loading import load_teacher
from stages.teacher.prompting import Chunks, predict
from stages.teacher.sam import save_sam
from stages.teacher.transformers_sam import FAMILIES, family_of
from stages.teacher.windows import View, to_input, views_of
from tests.support.tiny_teacher import TINY, params_of, tiny_sam

pytest.importorskip("transformers")
import transformers

pytestmark = pytest.mark.usefixtures("in_float32")

SIZE_HW = (37, 90)
BOXES = np.array([[5.0, 4.0, 30.5, 20.0], [40.0, 10.0, 88.0, 36.0], [60.25, 1.0, 70.0, 9.0]])
DECODER = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}

SAM2_PROMPTS = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
SIZES = [[16, 16], [8, 8], [4, 4]]
"""Of the maps that the decoder reads, for an input of 64 px."""


def sam_config(kind: type, **decoder):
    """Of SamModel and SamHQModel: 64 px input, patches of 8."""
    vision = {
        "hidden_size": 24,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
        "window_size": 3,
        "global_attn_indexes": [1],
        "mlp_dim": 48,
        "num_pos_feats": 16,
    }
    prompts = {"hidden_size": 32, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
    return kind(
        vision_config=vision,
        prompt_encoder_config=prompts,
        mask_decoder_config={**DECODER, "iou_head_depth": 2, **decoder},
    )


def sam2_config():
    """Of Sam2Model: 64 px input, maps of 16, 8 and 4 cells a side."""
    backbone = {
        "hidden_size": 8,
        "image_size": [64, 64],
        "num_attention_heads": 1,
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 4],
        "window_size_per_stage": [4, 2, 4, 2],
        "window_positional_embedding_background_size": [4, 4],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": {"model_type": "sam2_hiera_det_model", **backbone},
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": SIZES,
        "fpn_hidden_size": 32,
    }
    return transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config=SAM2_PROMPTS,
        mask_decoder_config=DECODER,
    )


def edgetam_config():
    """Of EdgeTamModel: the smallest RepViT of timm."""
    backbone = transformers.TimmWrapperConfig(
        architecture="repvit_m0_9",
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    )
    vision = {
        "backbone_config": backbone.to_dict(),
        "backbone_channel_list": [384, 192, 96, 48],
        "backbone_feature_sizes": SIZES,
        "fpn_hidden_size": 32,
    }
    return transformers.EdgeTamConfig(
        vision_config=vision, prompt_encoder_config=SAM2_PROMPTS, mask_decoder_config=DECODER
    )


def sam3_config():
    """Of Sam3TrackerModel: a ViT with patches of 16 px."""
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "pretrain_image_size": 32,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
    }
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": SIZES,
    }
    return transformers.Sam3TrackerConfig(
        vision_config=vision, prompt_encoder_config=SAM2_PROMPTS, mask_decoder_config=DECODER
    )


CONFIGS = {
    "edgetam": edgetam_config,
    "sam3": sam3_config,
    "sam": lambda: sam_config(transformers.SamConfig),
    "sam_hq": lambda: sam_config(transformers.SamHQConfig, vit_dim=24),
    "sam2": sam2_config,
}


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def folder(request, tmp_path_factory) -> Path:
    """A folder of weights of each family, random."""
    torch.manual_seed(0)
    model = getattr(transformers, FAMILIES[request.param].model)(CONFIGS[request.param]())
    with torch.no_grad():
        for parameter in model.mask_decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    path = tmp_path_factory.mktemp(request.param)
    model.eval().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)


@torch.inference_mode()
def forward(folder: Path, pixels: torch.Tensor, boxes: np.ndarray, many: bool):
    """The model's own forward from pixels, with its single mask's replacement switched off by its configuration."""
    kind = getattr(transformers, FAMILIES[family_of(folder / "config.json")].model)
    model = kind.from_pretrained(folder).eval()
    if hasattr(model.mask_decoder, "dynamic_multimask_via_stability"):
        model.mask_decoder.dynamic_multimask_via_stability = False
    return model(pixel_values=pixels, input_boxes=torch.tensor(boxes[None]).float(), multimask_output=many)


def test_proposals_equal_the_model_s_own_forward(folder, image):
    teacher = load_teacher(folder, torch.device("cpu"))
    window = views_of(tuple(BOXES[0]), SIZE_HW, params_of(), teacher.frame)[0].window
    prompts = to_input(BOXES, window, teacher.frame)
    with torch.inference_mode():
        found = teacher.decode(teacher.encode([image]), prompts)
    assert found.logits.shape[:2] == found.predicted_iou.shape == (3, 4)
    pixels = teacher._pixels(image)
    for many, part in ((False, slice(0, 1)), (True, slice(1, 4))):
        wanted = forward(folder, pixels, prompts, many)
        torch.testing.assert_close(found.logits[:, part], wanted.pred_masks[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.predicted_iou[:, part], wanted.iou_scores[0], atol=1e-5, rtol=1e-4)


def test_windows_of_their_own_equal_one_prompt_at_a_time(folder, image):
    teacher = load_teacher(folder, torch.device("cpu"))
    parts = [image, image[:, :50], image[5:]]
    prompts = np.array([[3.0, 4.0, 30.0, 20.0], [8.0, 3.0, 40.0, 60.0], [20.0, 1.0, 50.0, 9.0]])
    with torch.inference_mode():
        found = teacher.decode(teacher.encode(parts), prompts)
        for number, part in enumerate(parts):
            one = teacher.decode(teacher.encode([part]), prompts[number : number + 1])
            torch.testing.assert_close(found.logits[number], one.logits[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found.predicted_iou[number], one.predicted_iou[0], atol=1e-5, rtol=1e-4)


def test_the_input_is_padded_or_stretched_and_normalised(folder, image):
    teacher = load_teacher(folder, torch.device("cpu"))
    pixels, grey = teacher._pixels(image), teacher._pixels(np.full((*SIZE_HW, 3), 128, np.uint8))
    assert pixels.shape == (1, 3, 64, 64)
    wanted = [(128 / 255 - mean) / std for mean, std in zip(*teacher.family.normalisation, strict=True)]
    assert grey[0, :, 0, 0].tolist() == pytest.approx(wanted, abs=1e-5)
    rows = 64 if teacher.frame.resize == "stretch" else round(37 * 64 / 90)
    assert (pixels[0, :, rows:] == 0).all() and (grey[0, :, :rows] != 0).all()


def test_predicted_iou_of_sam_2_is_a_share_and_its_single_mask_is_not_replaced(folder, image):
    teacher = load_teacher(folder, torch.device("cpu"))
    views = [
        [View(part.window, part.box_xyxy, part.window)]
        for part in (views_of(tuple(box), SIZE_HW, params_of(), teacher.frame)[0] for box in BOXES)
    ]
    found = list(predict(teacher, image, views, Chunks(2)))
    assert [len(candidates) for candidates in found] == [4, 4, 4]
    if teacher.family.resize == "stretch":
        assert all(0 <= candidate.predicted_iou <= 1 for candidates in found for candidate in candidates)
        assert teacher.model.mask_decoder.dynamic_multimask_via_stability is False
        assert transformers.Sam2Config().mask_decoder_config.dynamic_multimask_via_stability is True


@pytest.mark.parametrize("has_it", [False, True])
def test_images_are_encoded_in_bf16_where_a_cpu_has_it_and_all_else_is_float32(folder, image, monkeypatch, has_it):
    monkeypatch.setattr(device, "multiplies_in_bf16", lambda _: has_it)
    teacher, dtypes = load_teacher(folder, torch.device("cpu")), {}
    first = next(part for part in teacher.model.vision_encoder.modules() if isinstance(part, torch.nn.Conv2d))
    for name, part in (("image", first), ("mask", teacher.model.mask_decoder.upscale_conv1)):
        part.register_forward_hook(lambda _, __, out, name=name: dtypes.update({name: out.dtype}))
    with torch.inference_mode():
        embeddings = teacher.encode([image])
        found = teacher.decode(embeddings, BOXES)
    assert dtypes == {"image": torch.bfloat16 if has_it else torch.float32, "mask": torch.float32}
    assert {part.dtype for part in (*embeddings[0], *found)} == {torch.float32}


def test_half_precision_on_disk_is_single_precision_in_memory(folder, tmp_path):
    stored = {key: value.half() for key, value in load_file(folder / "model.safetensors").items()}
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"dtype": "float16"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_teacher(tmp_path, torch.device("cpu")).model.state_dict()
    assert {value.dtype for value in loaded.values() if value.is_floating_point()} == {torch.float32}


def test_a_missing_tensor_is_an_error_and_not_a_random_one(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    del weights[min(key for key in weights if "mask_decoder" in key)]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(UserError, match=r"1 tensors of \w+ are missing or of another shape, first mask_decoder"):
        load_teacher(tmp_path, torch.device("cpu"))


def test_a_model_of_another_number_of_masks_is_refused(tmp_path):
    """Its masks would go to the boxes of others."""
    transformers.SamModel(sam_config(transformers.SamConfig, num_multimask_outputs=2)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"config\.json: num_multimask_outputs = 2; allowed is 3"):
        load_teacher(tmp_path, torch.device("cpu"))


def test_a_folder_without_safetensors_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="not a readable teacher"):
        load_teacher(tmp_path, torch.device("cpu"))


def video_model(kind: str) -> torch.nn.Module:
    """A random model of the kind whose file the hub has for an image model."""
    parts = {"sam2": sam2_config, "edgetam": edgetam_config, "sam3": sam3_config}[kind.split("_")[0]]().to_dict()
    options = {"prompt_encoder_config": SAM2_PROMPTS, "mask_decoder_config": DECODER, "image_size": 64}
    name = {"sam2_video": "Sam2Video", "edgetam_video": "EdgeTamVideo", "sam3_tracker_video": "Sam3TrackerVideo"}[kind]
    config = getattr(transformers, f"{name}Config")(vision_config=parts["vision_config"], **options)
    return getattr(transformers, f"{name}Model")(config)


@pytest.mark.parametrize("kind", ["sam2_video", "edgetam_video", "sam3_tracker_video"])
def test_a_file_of_a_video_model_gives_its_image_model(tmp_path, kind):
    torch.manual_seed(0)
    model = video_model(kind)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == kind
    loaded = load_teacher(tmp_path, torch.device("cpu")).model
    assert type(loaded).__name__ == FAMILIES[kind.split("_")[0]].model
    found, wanted = loaded.state_dict(), model.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in found.items())


@pytest.mark.parametrize("kind", ["sam2_video", "edgetam_video", "sam3_video", "sam3_tracker", "sam3_tracker_video"])
def test_names_of_video_models_name_their_image_models(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    assert family_of(tmp_path / "config.json") == kind.split("_")[0]


def test_the_file_of_sam_3_gives_its_tracker(tmp_path):
    """It holds a detector too, whose backbone both share."""
    torch.manual_seed(0)
    model = transformers.Sam3TrackerModel(sam3_config())

    def theirs(key: str) -> str:
        if key.startswith("vision_encoder.neck."):
            return key.replace("vision_encoder.neck.", "tracker_neck.")
        return f"{'detector_model' if key.startswith('vision_encoder.') else 'tracker_model'}.{key}"

    stored = {theirs(key): value.clone() for key, value in model.state_dict().items()}
    stored["detector_model.mask_decoder.mask_embed.weight"] = torch.zeros(2)
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "sam3_video", "tracker_config": model.config.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = load_teacher(tmp_path, torch.device("cpu")).model.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in model.state_dict().items())


def test_another_model_of_transformers_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="'bert' is no teacher; allowed are sam, sam_hq"):
        load_teacher(tmp_path, torch.device("cpu"))


def test_a_folder_of_this_project_s_own_is_a_sam(tmp_path):
    save_sam(tmp_path / "teacher", tiny_sam(), TINY)
    assert load_teacher(tmp_path / "teacher", torch.device("cpu")).frame.side_px == 64


class Hub(BaseHTTPRequestHandler):
    """Serves revision `sha` of one model as the hub does; hangs up where weights are shorter than `promised` bytes."""

    folder: Path
    sha = "1" * 40
    promised: int | None = None
    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        if self.path == "/api/models/yonigozlan/EdgeTAM-hf":
            body = json.dumps({"id": "yonigozlan/EdgeTAM-hf", "sha": self.sha}).encode()
        elif self.path.startswith(f"/yonigozlan/EdgeTAM-hf/resolve/{self.sha}/"):
            body = (self.folder / self.path.rsplit("/", 1)[-1]).read_bytes()
        else:
            return self.send_error(404)
        self.send_response(200)
        promised = self.promised if self.path.endswith(".safetensors") else None
        self.send_header("Content-Length", str(promised or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(folder, monkeypatch):
    Hub.folder, Hub.asked = folder, []
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(hub_teacher, "URL", f"http://127.0.0.1:{serving.server_port}")
    yield Hub
    serving.shutdown()
    serving.server_close()


def test_a_name_is_downloaded_once_and_pinned(hub, folder, tmp_path):
    for out in ("first", "second"):
        install_teacher("edgetam", tmp_path, tmp_path / "cache", tmp_path / out)
        for file in ("config.json", "model.safetensors"):
            assert (tmp_path / out / file).read_bytes() == (folder / file).read_bytes()
    assert len(hub.asked) == 3
    pinned = tmp_path / "cache/edgetam/pinned.json"
    assert json.loads(pinned.read_text())["revision"] == "1" * 40
    (tmp_path / "cache/edgetam" / ("1" * 40) / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json: SHA-256 is"):
        install_teacher("edgetam", tmp_path, tmp_path / "cache", tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_an_interrupted_download_is_not_continued_with_another_revision(hub, folder, tmp_path, monkeypatch):
    """Of revision 1 arrive config.json and half of the weights."""
    config, weights = ((folder / file).read_bytes() for file in ("config.json", "model.safetensors"))
    (tmp_path / "1").mkdir()
    (tmp_path / "1/config.json").write_bytes(b"{}")
    (tmp_path / "1/model.safetensors").write_bytes(b"x" * (len(weights) // 2))
    monkeypatch.setattr(Hub, "folder", tmp_path / "1")
    monkeypatch.setattr(Hub, "promised", len(weights))
    with pytest.raises(UserError, match="closed after"):
        install_teacher("edgetam", tmp_path, tmp_path / "cache", tmp_path / "first")
    monkeypatch.setattr(Hub, "promised", None)
    monkeypatch.setattr(Hub, "folder", folder)
    monkeypatch.setattr(Hub, "sha", "2" * 40)
    install_teacher("edgetam", tmp_path, tmp_path / "cache", tmp_path / "second")
    assert json.loads((tmp_path / "cache/edgetam/pinned.json").read_text())["revision"] == "2" * 40
    assert (tmp_path / "second/config.json").read_bytes() == config
    assert (tmp_path / "second/model.safetensors").read_bytes() == weights


def test_without_a_network_the_message_says_what_to_fetch(monkeypatch, tmp_path):
    monkeypatch.setattr(hub_teacher, "URL", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"config\.json and model\.safetensors of http://127\.0\.0\.1:9/facebook/sam2\.1-hi"
    ):
        install_teacher("sam2.1_tiny", tmp_path, tmp_path / "cache", tmp_path / "out")


def test_a_local_folder_of_any_family_is_taken(folder, tmp_path):
    install_teacher(str(folder), tmp_path, tmp_path / "cache", tmp_path / "out")
    assert load_teacher(tmp_path / "out", torch.device("cpu")).frame.side_px == 64
