"""What an exported model says of itself: embedded in the ONNX or OpenVINO file, so that it runs without our code.

Each field of `Metadata` is one property of the file, its value as JSON: ONNX's `metadata_props`, or in OpenVINO's
`rt_info` below `boxes2pixels`. docs/predict.md has a program that reads them.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from stages.common.errors import UserError
from stages.common.params import Section, parse
from stages.student.config import NetworkConfig, ViewParams
from stages.student.decision import Decision, checked
from stages.student.tiling import OVERLAP

SECTION = "boxes2pixels"
"""Section of OpenVINO's `rt_info`."""


class Metadata(Section):
    """All that turns an image into a label map with the model alone.

    `identity`: equal for a student and its float32 exports. `batch`: tiles per call, None: any number. With `scale`
    native the image is cut into tiles as `overlap` and `blending` say; with stretch it is resized to one.
    `white_level`: what becomes 255 in images of more than 8 bits; None: 65535 for 16-bit grey, 1 for floating-point.
    """

    metadata_version: Literal[1] = 1
    names: list[str] = Field(min_length=1)
    scale: Literal["native", "stretch"]
    size_px: Annotated[int, ViewParams.model_fields["size_px"]]
    overlap: float = OVERLAP
    blending: str = (
        "tiles evenly spread over the image, padded by its last row and column to size_px, with at least `overlap`; "
        "logits summed with weights that fall linearly to the tile's edge over `overlap` of its side"
    )
    input: str = "images: (B, size_px, size_px, 3) float32 RGB, 0 to 255; normalisation is inside the graph"
    output: str = "logits: (B, len(names) + 1, size_px, size_px) float32; label 0 is background, then names in order"
    white_level: float | None = None
    batch: int | None
    precision: Literal["float32", "int8"]
    identity: str
    thresholds: list[float] | None
    least_area_px: list[int] | None
    temperature: float
    plan_sha256: str
    versions: dict[str, str]

    @property
    def decision(self) -> Decision:
        """The operating point: see `stages.student.decision`."""
        return Decision(thresholds=self.thresholds, least_area_px=self.least_area_px, temperature=self.temperature)

    @property
    def view(self) -> ViewParams:
        """How an image reaches the network."""
        return ViewParams(scale=self.scale, size_px=self.size_px)

    def as_properties(self) -> dict[str, str]:
        """Name to JSON text of every field."""
        return {name: json.dumps(value) for name, value in self.model_dump().items()}


def metadata_of(
    config: NetworkConfig, decision: Decision, identity: str, int8: bool, batch: int | None, versions: dict[str, str]
) -> Metadata:
    """Metadata of an export of the student with `config`, `decision` and `identity`."""
    return Metadata(
        names=config.names,
        scale=config.view.scale,
        size_px=config.view.size_px,
        white_level=config.white_level,
        batch=batch,
        precision="int8" if int8 else "float32",
        identity=identity + ("-int8" if int8 else ""),
        **decision.model_dump(),
        plan_sha256=config.plan_sha256,
        versions=versions,
    )


def read_metadata(properties: Mapping[str, str], where: str) -> Metadata:
    """The opposite of `as_properties`; other properties are ignored. Raises UserError that starts with `where`."""
    try:
        values = {name: json.loads(properties[name]) for name in Metadata.model_fields if name in properties}
    except ValueError as error:
        raise UserError(f"{where}: its metadata is not JSON ({error}); export the student again") from None
    if not values:
        raise UserError(f"{where}: holds no metadata of this project; export the student again")
    about = parse(Metadata, values, f"{where}: metadata")
    decision = {name: values[name] for name in Decision.model_fields}
    checked(parse(Decision, decision, f"{where}: metadata"), len(about.names), f"{where}: metadata")
    return about
