"""Looks at the files of a checkpoint before anything of it is loaded, and names what is wrong."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ecoflap.errors import ModelError

READ = (".json", ".safetensors", ".bin", ".pth", ".model", ".txt", ".jinja")
WEIGHTS = (".safetensors", ".bin", ".pth")
POINTERS = (b"version https://git-lfs", b"version https://hawser", b"# xet version")
PAGES = (b"<!doctype", b"<html", b"<?xml")
FORMATS = ("F64", "F32", "BF16", "F16")  # of weights; others stand for numbers by a scale
QUANTIZED = ("quantization_config", "compression_config")  # keys of config.json
QUANTIZED_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")


def check(folder: Path) -> None:
    """Refuses a folder with files that cannot be read or used.

    Args:
        folder: With config.json, weights and processor files; may lack any of them.

    Raises:
        ModelError: naming the file, or the quantization.
    """
    adapter = folder / "adapter_config.json"
    if adapter.exists():
        raise ModelError(
            f"'{adapter}' belongs to an adapter, whose numbers are not in the model's weights",
            allowed="a whole model",
            fix="Merge it (peft: merge_and_unload) and save the result, or take the file away.",
        )
    for file in sorted(folder.iterdir()):
        if file.suffix in READ and file.is_file():
            check_content(file)
            if file.name.endswith("config.json"):
                check_config(file)
            elif file.name.endswith(".index.json"):
                _check_index(file)
            elif file.suffix == ".safetensors":
                _check_header(file)


def check_config(file: Path) -> None:
    """Refuses a config that is no mapping, or is that of a quantized model.

    Args:
        file: config.json or another ``*config.json``.

    Raises:
        ModelError: naming the file, or the quantization.
    """
    content = _mapping(file)
    method = next(_quantizations(content), None) if file.name == "config.json" else None
    if file.name in QUANTIZED_FILES:
        method = content.get("quant_method") or "named in this file"
    if method:
        raise _quantized(method, file)
    names = content.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(
            f"'{file}' names the architectures {names!r}",
            allowed="a list of names of classes",
            fix="Save the model anew with save_pretrained.",
        )


def pickle_reason(error: BaseException) -> str:
    """Returns why torch did not read a pickle, without its advice to run the code in it."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    found = f"holds {named[1]}, which is no tensor" if named else "is damaged or holds no tensors"
    return f"a pickled file {found}; code in a file is never run"


def _quantizations(content: object) -> Iterator[str]:
    """Yields the method of each quantization in a config, at any depth."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key in QUANTIZED and value:
                settings = value if isinstance(value, Mapping) else {}
                loads = any(settings.get(f"load_in_{bits}bit") for bits in (4, 8))
                yield settings.get("quant_method") or ("bitsandbytes" if loads else key)
            else:
                yield from _quantizations(value)


def check_content(file: Path) -> None:
    """Refuses what is not the file itself: a pointer of Git LFS, a web page, nothing.

    Raises:
        ModelError: naming the file.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(64).lstrip().lower()
    except OSError as error:
        raise _unusable(file, f"cannot be read ({error.strerror})", "Mend its rights.") from error
    again = "Download it again."
    if start.startswith(POINTERS):
        raise _unusable(file, "is a pointer of Git LFS, not the file itself", "Run `git lfs pull`.")
    if start.startswith(PAGES):
        raise _unusable(file, "is a web page", again)
    if not start and file.suffix in (*WEIGHTS, ".json"):
        raise _unusable(file, "is empty", again)


def _check_index(file: Path) -> None:
    places = _mapping(file).get("weight_map")
    if not isinstance(places, Mapping):
        raise _unusable(file, "has no weight_map", "Download it again.")
    shards = sorted({str(name) for name in places.values() if name})
    elsewhere = [name for name in shards if Path(name).name != name]
    if elsewhere:
        raise _unusable(file, f"names {elsewhere[0]}, no file beside it", "Download it again.")
    missing = [name for name in shards if not (file.parent / name).is_file()]
    if missing:
        seen = f"names {missing[0]}, which is missing ({len(missing)} of {len(shards)} files)"
        raise _unusable(file, seen, "Download the missing files.")


def _check_header(file: Path) -> None:
    try:
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
            formats = {name: opened.get_slice(name).get_dtype() for name in names}
    except SafetensorError as error:
        raise _unusable(file, f"is damaged or cut short ({error})", "Download it again.") from error
    for key, form in formats.items():
        if key.endswith("weight") and form not in FORMATS:
            raise _quantized(f"{key} is stored as {form}", file)


def _mapping(file: Path) -> Mapping:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        seen = f"is no JSON in UTF-8 ({error})"
        remedy = "Correct it, or download it again."
        if isinstance(error, json.JSONDecodeError) and "BOM" in error.msg:
            seen = "begins with a byte order mark (BOM)"
            remedy = "Save it as UTF-8 without one."
        raise _unusable(file, seen, remedy) from error
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise _unusable(file, f"holds a {kind}, no mapping", "Download it again.")
    return content


def _quantized(method: str, file: Path) -> ModelError:
    return ModelError(
        f"the model is quantized ({method}, says '{file}')",
        allowed="weights in float32, bfloat16 or float16",
        fix="Load the unquantized checkpoint that it was made from.",
    )


def _unusable(file: Path, seen: str, remedy: str) -> ModelError:
    return ModelError(f"'{file}' {seen}", allowed="the file as it was saved", fix=remedy)
