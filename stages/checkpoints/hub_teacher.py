"""Install a teacher from the Hugging Face hub: config.json and model.safetensors of one revision, never a pickle.

No SHA-256 of these files is published. The revision and the SHA-256 are recorded at the first download, in
`pinned.json` in the cache; later installations take that revision and refuse other bytes.
"""

import json
import shutil
from pathlib import Path

import torch

from stages.checkpoints.fetch import FILES, fetch
from stages.common.errors import UserError
from stages.common.files import new_folder, sha256_file
from stages.common.params import read_sealed, write_sealed
from stages.teacher.loading import load_teacher

URL = "https://huggingface.co"

HUB = {
    "sam2.1_tiny": "facebook/sam2.1-hiera-tiny",
    "sam2.1_small": "facebook/sam2.1-hiera-small",
    "sam2.1_base_plus": "facebook/sam2.1-hiera-base-plus",
    "sam2.1_large": "facebook/sam2.1-hiera-large",
    "sam_hq_vit_b": "syscv-community/sam-hq-vit-base",
    "sam_hq_vit_l": "syscv-community/sam-hq-vit-large",
    "sam_hq_vit_h": "syscv-community/sam-hq-vit-huge",
    "slimsam": "Zigeng/SlimSAM-uniform-77",
    "edgetam": "yonigozlan/EdgeTAM-hf",
}
"""Name in `weights.teacher` -> repository. SAM 3 is not among them: its licence bars some uses, so it needs a local
folder. The licences of these stand in stages/evaluation/card.py."""

ORIGINAL_SHA256 = {
    "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69": "sam2.1_tiny",
    "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38": "sam2.1_small",
    "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5": "sam2.1_base_plus",
    "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318": "sam2.1_large",
    "14a9d662cd6f5a9c2dba6d40ab0058d88d287e4a18fd6fdc6ad5fb1a3fdeaa57": "sam_hq_vit_b",
    "e1a6c385d62bf005ded91a54d5ec55c985cfc4103ef89c08d90f39f04934c343": "sam_hq_vit_l",
    "a7ac14a085326d9fa6199c8c698c4f0e7280afdbb974d2c4660ec60877b45e35": "sam_hq_vit_h",
}
"""SHA-256 of the authors' own files of these networks, which have another layout: sam2_file.py converts those of SAM
2.1; the others are never opened."""


def install_from_hub(name: str, cache: Path, out: Path) -> None:
    """Write the teacher of this name in HUB to the folder `out`. Raises UserError where it is not available."""
    repository, folder = HUB[name], cache / name
    offline = (
        f"Without a network: fetch {' and '.join(FILES)} of {URL}/{repository} elsewhere and give their folder as "
        "weights.teacher"
    )
    pinned = folder / "pinned.json"
    if not pinned.exists():
        _pin(repository, folder, pinned, offline)
    revision, digests = map(read_sealed(pinned, f"remove {folder}").get, ("revision", "sha256"))
    with new_folder(out) as part:
        for file in FILES:
            shutil.copyfile(_fetched(repository, revision, file, folder, digests[file], offline), part / file)
        load_teacher(part, torch.device("cpu"))


def _pin(repository: str, folder: Path, pinned: Path, offline: str) -> None:
    """Download the files of the newest revision, and record the revision and their SHA-256 in `pinned`."""
    listing = fetch(f"{URL}/api/models/{repository}", folder / "listing.json", None, offline)
    try:
        revision = str(json.loads(listing.read_text(encoding="utf-8"))["sha"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{URL}/api/models/{repository}: does not name a revision (sha)") from None
    finally:
        listing.unlink()
    found = {file: sha256_file(_fetched(repository, revision, file, folder, None, offline)) for file in FILES}
    write_sealed(pinned, {"repository": repository, "revision": revision, "sha256": found})


def _fetched(repository: str, revision: str, file: str, folder: Path, sha256: str | None, offline: str) -> Path:
    """The file of this revision. Each revision has a folder of its own: a download that was interrupted resumes after
    the repository has changed, and must not join bytes of two revisions."""
    return fetch(f"{URL}/{repository}/resolve/{revision}/{file}", folder / revision / file, sha256, offline)
