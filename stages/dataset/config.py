"""Parameters of reading a data set."""

from typing import Literal

from pydantic import Field

from stages.shell.params import Section


class DataParams(Section):
    """Section `data`. `root`: the folder that holds data.yaml; relative to the project, or absolute."""

    root: str = Field(min_length=1)


class IngestParams(Section):
    """Section `ingest`.

    `duplicates`: what the same photograph in two splits does, fail the stage or be reported only.
    `max_bad_share`: share of unreadable photographs beyond which the stage stops.
    """

    duplicates: Literal["error", "report"]
    max_bad_share: float = Field(ge=0, le=1)
