"""A sharded checkpoint larger than memory: written, and checked, without holding the model."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from ecoflap.errors import ArtifactError
from ecoflap.seeds import seed_from

log = logging.getLogger(__name__)
COPIES = 3  # the dense checkpoint, the scratch files, the pruned one


def write(folder: Path, config: LlamaConfig) -> None:
    """Writes random weights as a checkpoint with a shard per block.

    Args:
        folder: Where; made if needed.
        config: The model, with its dtype.

    Raises:
        ArtifactError: if the disk has no room for this checkpoint and what pruning writes.
    """
    from demo.tokenizer import build_tokenizer  # needs pillow, which a GPU machine may lack

    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        shapes = {n: t.shape for n, t in LlamaForCausalLM(config).state_dict().items()}
    dtype = cast(torch.dtype, config.dtype)
    total = sum(shape.numel() for shape in shapes.values()) * dtype.itemsize
    _require_room(folder, COPIES * total)
    shards: dict[str, list[str]] = {}
    for name in shapes:
        shards.setdefault(_part_of(name), []).append(name)
    files = {}
    for number, names in enumerate(tqdm(shards.values(), desc="write", unit="shard", disable=None)):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: _values(name, shapes[name], dtype) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    build_tokenizer(config.max_position_embeddings).save_pretrained(folder)


def _part_of(name: str) -> str:
    """Returns ``model.layers.N`` for a block's tensor, the first part for any other."""
    parts = name.split(".")
    return ".".join(parts[:3]) if "layers" in parts else "rest"


def _values(name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    if len(shape) < 2:
        return torch.ones(shape, dtype=dtype)
    generator = torch.Generator().manual_seed(seed_from("checkpoint", name))
    width = (3 / shape[1]) ** 0.5  # the variance is one over the inputs
    return torch.empty(shape).uniform_(-width, width, generator=generator).to(dtype)


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ArtifactError(
            f"{free / 1e9:.1f} GB are free at {folder}",
            allowed=f"at least {needed / 1e9:.1f} GB",
            fix="Name a folder on a larger disk: --scratch FOLDER.",
        )


def size_mb(folder: Path) -> float:
    """Returns the size of a checkpoint's weights in MiB."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**20


@contextmanager
def _opened(folder: Path) -> Iterator[dict]:
    """Maps the name of each tensor to the open shard that holds it."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        shard = safe_open(path, framework="pt")
        found |= dict.fromkeys(shard.keys(), shard)
    yield found


def check(dense: Path, pruned: Path, sparsity: float) -> str:
    """Compares blocks of a checkpoint that Wanda pruned with the dense one.

    Args:
        dense: The checkpoint that was pruned.
        pruned: What was saved.
        sparsity: Fraction that each row must have lost.

    Returns:
        What was compared.

    Raises:
        ArtifactError: naming the first tensor that is not as it must be.
    """
    with _opened(dense) as before, _opened(pruned) as after:
        if before.keys() != after.keys():
            odd = sorted(before.keys() ^ after.keys())[0]
            raise _wrong(odd, "is in one checkpoint only")
        layers = sorted({_part_of(name) for name in before} - {"rest"}, key=lambda n: int(n[13:]))
        chosen = {"rest", layers[0], layers[len(layers) // 2], layers[-1]}
        names = [name for name in sorted(before) if _part_of(name) in chosen]
        for name in names:
            old, new = before[name].get_tensor(name), after[name].get_tensor(name)
            if _part_of(name) == "rest" or old.ndim < 2:
                if not torch.equal(old, new):
                    raise _wrong(name, "was not to be touched, and changed")
                continue
            gone = new == 0
            if not (gone.sum(dim=1) == round(sparsity * old.shape[1])).all():
                raise _wrong(name, f"has a row without {sparsity} zeros")
            if not torch.equal(new, old.masked_fill(gone, 0)):
                raise _wrong(name, "has kept weights that changed")
    return f"{len(names)} tensors of the saved model compared with the dense ones"


def _wrong(name: str, what: str) -> ArtifactError:
    return ArtifactError(
        f"{name} {what}",
        allowed="the planned zeros, and all else as it was",
        fix="Report this run.",
    )
