"""MobileSAM: a file in its authors' layout, and their encoder written down once more, from the file's own names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.checkpoints import sam_teacher
from stages.checkpoints.sam_teacher import install_teacher
from stages.common.errors import UserError
from stages.common.files import sha256_file
from stages.teacher.image_encoders import OFFICIAL, MobileSamConfig
from stages.teacher.loading import load_teacher
from stages.teacher.sam import build_sam

pytestmark = pytest.mark.usefixtures("in_float32")

SMALL = MobileSamConfig(
    name="mobile_sam",
    image_size=64,
    prompt_dim=16,
    embed_dims=[8, 8, 12, 16],
    depths=[1, 2, 1, 1],
    num_heads=[1, 2, 3, 2],
    window_sizes=[7, 3, 4, 3],  # maps of 8, 4 and 4 px: padded, exactly one window, padded
    decoder_heads=2,
    decoder_mlp_dim=32,
    iou_head_dim=16,
    source="random",
)

Read = Callable[[str, tuple[int, ...]], Tensor]


def run_encoder(read: Read, pixels: Tensor, config: MobileSamConfig) -> Tensor:
    """MobileSAM's image encoder on (N, 3, S, S). `read` gives the tensor of a name in mobile_sam.pt, of that shape."""

    def conv(key: str, x: Tensor, width: int, size: int = 1, stride: int = 1, groups: int = 1) -> Tensor:
        x = F.conv2d(
            x, read(f"{key}.c.weight", (width, x.shape[1] // groups, size, size)), None, stride, size // 2, 1, groups
        )
        read(f"{key}.bn.num_batches_tracked", ())
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(read(f"{key}.bn.{name}", (width,)) for name in names))

    def norm(key: str, x: Tensor) -> Tensor:
        width = x.shape[-1]
        return F.layer_norm(x, (width,), read(f"{key}.weight", (width,)), read(f"{key}.bias", (width,)))

    def linear(key: str, x: Tensor, width: int) -> Tensor:
        return F.linear(x, read(f"{key}.weight", (width, x.shape[-1])), read(f"{key}.bias", (width,)))

    def attend(key: str, window: Tensor, heads: int) -> Tensor:
        """`window`: (side, side, width)."""
        side, _, width = window.shape
        rows, columns = (part.flatten() for part in torch.meshgrid(*[torch.arange(side)] * 2, indexing="ij"))
        offsets = (rows[:, None] - rows).abs() * side + (columns[:, None] - columns).abs()
        biases = read(f"{key}.attention_biases", (heads, side * side))
        mixed = linear(f"{key}.qkv", norm(f"{key}.norm", window.reshape(side * side, width)), 3 * width)
        found = []
        for head, part in enumerate(mixed.chunk(heads, dim=1)):
            query, key_, value = part.chunk(3, dim=1)
            found.append((query @ key_.T / (width // heads) ** 0.5 + biases[head][offsets]).softmax(dim=1) @ value)
        return linear(f"{key}.proj", torch.cat(found, dim=1), width).reshape(side, side, width)

    def block(key: str, x: Tensor, heads: int, side: int) -> Tensor:
        count, width, height, _ = x.shape
        padded = F.pad(x, (0, -height % side, 0, -height % side)).permute(0, 2, 3, 1)
        mixed = torch.zeros_like(padded)
        for image in range(count):
            for top in range(0, padded.shape[1], side):
                for left in range(0, padded.shape[1], side):
                    place = image, slice(top, top + side), slice(left, left + side)
                    mixed[place] = attend(f"{key}.attn", padded[place], heads)
        x = conv(f"{key}.local_conv", x + mixed[:, :height, :height].permute(0, 3, 1, 2), width, 3, groups=width)
        x = x.permute(0, 2, 3, 1)
        hidden = F.gelu(linear(f"{key}.mlp.fc1", norm(f"{key}.mlp.norm", x), 4 * width))
        return (x + linear(f"{key}.mlp.fc2", hidden, width)).permute(0, 3, 1, 2)

    x = F.gelu(conv("patch_embed.seq.0", pixels, config.embed_dims[0] // 2, 3, 2))
    x = conv("patch_embed.seq.2", x, config.embed_dims[0], 3, 2)
    for stage, width in enumerate(config.embed_dims):
        for number in range(config.depths[stage]):
            key = f"layers.{stage}.blocks.{number}"
            if stage:
                x = block(key, x, config.num_heads[stage], config.window_sizes[stage])
            else:
                hidden = F.gelu(conv(f"{key}.conv1", x, 4 * width))
                hidden = F.gelu(conv(f"{key}.conv2", hidden, 4 * width, 3, groups=4 * width))
                x = F.gelu(x + conv(f"{key}.conv3", hidden, width))
        if stage < 3:
            key, wider = f"layers.{stage}.downsample", config.embed_dims[stage + 1]
            x = F.gelu(conv(f"{key}.conv1", x, wider))
            x = F.gelu(conv(f"{key}.conv2", x, wider, 3, 1 if stage == 2 else 2, groups=wider))
            x = conv(f"{key}.conv3", x, wider)
    for number, size in ((0, 1), (2, 3)):
        width = config.prompt_dim
        x = F.conv2d(x, read(f"neck.{number}.weight", (width, x.shape[1], size, size)), None, 1, size // 2)
        read_norm = (read(f"neck.{number + 1}.{name}", (width,)) for name in ("weight", "bias"))
        x = F.layer_norm(x.permute(0, 2, 3, 1), (width,), *read_norm, eps=1e-6).permute(0, 3, 1, 2)
    return x


def official_state(config: MobileSamConfig) -> dict[str, Tensor]:
    """Random weights under the names of mobile_sam.pt; the encoder's are those that `run_encoder` reads."""
    torch.manual_seed(0)
    state = {key: value for key, value in build_sam(config).state_dict().items() if "image_encoder" not in key}

    def made(name: str, shape: tuple[int, ...]) -> Tensor:
        value = torch.randn(shape) * 0.3 if shape else torch.tensor(7)
        if name.endswith(("running_var", "bn.weight", "norm.weight")):
            value = 1 + value.abs()
        return state.setdefault(f"image_encoder.{name}", value)

    run_encoder(made, torch.zeros(1, 3, config.image_size, config.image_size), config)
    width = config.embed_dims[3]
    for name, shape in (("norm_head.weight", (width,)), ("norm_head.bias", (width,)), ("head.weight", (1000, width))):
        made(name, shape)
    made("head.bias", (1000,))
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return official_state(SMALL)


@pytest.fixture
def file(state, tmp_path, monkeypatch) -> Path:
    """`mobile_sam.pt`, of a small configuration."""
    return put(state, tmp_path / "mobile_sam.pt", monkeypatch)


def put(state: dict[str, Tensor], path: Path, monkeypatch) -> Path:
    torch.save(state, path)
    monkeypatch.setitem(OFFICIAL, "mobile_sam", SMALL)
    monkeypatch.setitem(sam_teacher.SHA256, "mobile_sam", sha256_file(path))
    return path


def test_the_official_file_gives_the_embeddings_of_the_authors_encoder(state, file, tmp_path):
    install_teacher(str(file), tmp_path, tmp_path / "cache", tmp_path / "teacher")
    teacher = load_teacher(tmp_path / "teacher", torch.device("cpu"))
    assert "timm" in teacher.libraries
    windows = [
        np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        for number, size in ((0, (64, 40)), (1, (23, 64)))
    ]
    with torch.inference_mode():
        found = teacher.encode(windows)
        for window, embedding in zip(windows, found.image, strict=True):
            pixels = teacher.sam.preprocess(torch.tensor(window).permute(2, 0, 1))
            wanted = run_encoder(lambda name, _: state[f"image_encoder.{name}"], pixels[None], SMALL)
            torch.testing.assert_close(embedding[None], wanted, atol=1e-4, rtol=1e-4)
        proposals = teacher.decode(found, np.array([[3.0, 4.0, 30.0, 50.0], [1.0, 2.0, 60.0, 20.0]]))
    assert proposals.logits.shape == (2, 4, 16, 16) and proposals.logits.std() > 0
    for key, value in teacher.sam.state_dict().items():
        assert key.startswith("image_encoder.") or torch.equal(value, state[key]), key


def test_its_size_is_that_of_the_authors_network_without_the_classifier():
    # their file of 40,728,226 bytes holds 439 tensors of 40,561,032 bytes
    with torch.device("meta"):
        values = build_sam(OFFICIAL["mobile_sam"]).state_dict().values()
    assert len(values) == 439 - 4
    classifier = 4 * (320 + 320 + 320 * 1000 + 1000)
    assert sum(value.numel() * value.element_size() for value in values) == 40_561_032 - classifier


@pytest.mark.parametrize(
    "lost", ["image_encoder.layers.2.blocks.0.attn.attention_biases", "mask_decoder.iou_token.weight"]
)
def test_a_missing_tensor_is_one_line(state, tmp_path, monkeypatch, lost):
    path = put({key: value for key, value in state.items() if key != lost}, tmp_path / "mobile_sam.pt", monkeypatch)
    name = lost.rsplit(".", 2)[1]
    with pytest.raises(UserError, match=rf"mobile_sam\.pt: not a mobile_sam checkpoint: .*Missing.*{name}") as error:
        install_teacher(str(path), tmp_path, tmp_path / "cache", tmp_path / "teacher")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "teacher").exists()


def test_other_bytes_are_not_opened(file, tmp_path):
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(
        UserError, match=r"mobile_sam\.pt: not opened: its SHA-256, .* \(vit_b, vit_l, vit_h, mobile_sam, sam2"
    ):
        install_teacher(str(file), tmp_path, tmp_path / "cache", tmp_path / "teacher")


def test_every_official_name_has_the_sha256_of_its_file():
    assert sam_teacher.SHA256.keys() == OFFICIAL.keys()
    assert sam_teacher.SHA256["mobile_sam"] == "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f"
