"""Section `teacher` of data/weights/params.yaml."""

from pydantic import Field

from stages.common.params import Section


class PretrainParams(Section):
    """How the embedded teacher is trained and scored.

    lr, muon_lr: learning rates of AdamW and of Muon; snapshot_every: steps between snapshots; held_out: number of
    samples to score, which no training sees; threads: of the CPU; workers: processes that draw samples, 0 for none.
    """

    seed: int = Field(ge=0)
    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    lr: float = Field(gt=0)
    muon_lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup_steps: int = Field(gt=0)
    ema_decay: float = Field(ge=0, lt=1)
    snapshot_every: int = Field(gt=0)
    held_out: int = Field(gt=0)
    threads: int = Field(gt=0)
    workers: int = Field(ge=0)
