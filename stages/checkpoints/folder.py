"""Folders of weights: model.safetensors beside config.json."""

import shutil
from pathlib import Path

from stages.common.errors import UserError
from stages.common.files import new_folder

FILES = ("config.json", "model.safetensors")


def copy_folder(source: Path, out: Path) -> None:
    """Copy both files, byte for byte. Raises UserError when one is missing."""
    for name in FILES:
        if not (source / name).is_file():
            raise UserError(f"{source / name}: not there; a folder of weights holds {' and '.join(FILES)}")
    with new_folder(out) as part:
        for name in FILES:
            shutil.copyfile(source / name, part / name)
