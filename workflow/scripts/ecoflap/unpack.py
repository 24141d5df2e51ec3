"""Turns the compact files of this folder into the weights that `from_pretrained` loads.

    python unpack.py            writes the dense files beside the compact ones
    python unpack.py FOLDER     writes them there

`load` returns the tensors of one file without writing any. A compact file is a safetensors file: of
each weight with zeros it holds the values that are there, and under `<name>:mask` a bit per weight,
1 where a value is. This needs torch and safetensors alone.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

SUFFIX = ".compact.safetensors"
MASK = ":mask"
SEAL = b"ecoflap-sha256:"  # before the digest of the file, which counts as zeros in it
# For each byte its eight bits as eight booleans, read as one number.
BITS = torch.arange(256)[:, None].bitwise_right_shift(torch.arange(7, -1, -1)) & 1
MASKS = BITS.bool().view(torch.int64).flatten()


def read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Returns the dense tensors of a compact file, and the metadata of the file it was made from.

    Raises:
        ValueError: if it is not the whole file that was written.
    """
    content = Path(path).read_bytes()
    start = content.find(SEAL) + len(SEAL)
    digest = hashlib.sha256(content[:start] + b"0" * 64)
    digest.update(memoryview(content)[start + 64 :])
    if SEAL not in content or content[start : start + 64] != digest.hexdigest().encode():
        raise ValueError(f"{path} is not whole. Allowed: the file as written. Copy it again.")
    del content
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["ecoflap"])
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
    for name, shape in facts["shapes"].items():
        bytes_ = stored.pop(name + MASK)
        kept = MASKS.index_select(0, bytes_.int()).view(torch.bool)[: math.prod(shape)]
        dense = torch.zeros(kept.shape, dtype=stored[name].dtype)
        stored[name] = dense.masked_scatter_(kept, stored[name]).reshape(shape)
    return stored, facts["metadata"]


def load(path: str | Path) -> dict[str, torch.Tensor]:
    """Returns the dense tensors of a compact file by name."""
    return read(path)[0]


def unpack(source: str | Path, target: str | Path) -> list[Path]:
    """Writes the dense file of each compact file in a folder, and returns their paths.

    Raises:
        ValueError: if there is no compact file, one is damaged, or a dense file is there already.
        OSError, SafetensorError: if the folder cannot be written. No dense file is left then.
    """
    files = sorted(Path(source).glob("*" + SUFFIX))
    if not files:
        raise ValueError(f"no *{SUFFIX} in {source}. Allowed: at least one. Copy it there.")
    dense = [Path(target, file.name.replace(SUFFIX, ".safetensors")) for file in files]
    for path in dense:
        if os.path.lexists(path):
            raise ValueError(f"{path} is there. Allowed: a folder without it. Name another one.")
    if os.path.lexists(target) and not Path(target).is_dir():
        raise ValueError(f"{target} is no folder. Allowed: a folder, new or not. Name one.")
    Path(target).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unpack-", dir=target) as temporary:
        written = [Path(temporary, path.name) for path in dense]
        for file, path in zip(files, written, strict=True):
            tensors, metadata = read(file)
            save_file(tensors, path, metadata=metadata)
            shutil.copymode(file, path)  # safetensors writes what only its owner may read
        for path, final in zip(written, dense, strict=True):
            path.replace(final)
    return dense


if __name__ == "__main__":
    here = Path(__file__).parent
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("folder", nargs="?", default=here, help="where the dense files go")
    folder = parser.parse_args().folder
    try:
        for written in unpack(here, folder):
            sys.stdout.write(f"{written}\n")
    except ValueError as problem:
        sys.exit(str(problem))
    except (OSError, SafetensorError) as problem:
        allowed = "compact files that may be read, and a folder with space that may be written"
        remedy = "Mend that, or name another folder."
        sys.exit(f"cannot unpack into {folder} ({problem}). Allowed: {allowed}. {remedy}")
