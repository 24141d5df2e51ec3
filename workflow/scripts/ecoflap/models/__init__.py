"""Adapters: the only modules that know transformers. `load` picks one by the model's class."""

import importlib.util
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from ecoflap.errors import EcoflapError, ModelError
from ecoflap.models.checkpoints import files
from ecoflap.plugins import ADAPTERS, ENVIRONMENTS, FAMILIES, VIEWS

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from ecoflap.models.model import BlockNames, Model

DTYPES = ("float32", "bfloat16", "float16")
FAMILY_OF_CLASS = {
    "CLIPModel": "clip",
    "T5ForConditionalGeneration": "seq2seq",
    "BlipForQuestionAnswering": "blip-vqa",
    "BlipForConditionalGeneration": "blip-captioning",
    "BlipForImageTextRetrieval": "blip-retrieval",
    "Blip2ForImageTextRetrieval": "blip2-matching",
    "BlipNLVR": "blip-nlvr",  # LAVIS's
}


def family_of(config: "PreTrainedConfig") -> str:
    """Returns the family of a Hugging Face config: ``generic`` if none of its own fits."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as IMAGE_TEXT,
    )

    architecture = next(iter(config.architectures or []), "")
    if architecture in FAMILY_OF_CLASS:
        return FAMILY_OF_CLASS[architecture]
    text = config.get_text_config()
    encodes_text = config.is_encoder_decoder or getattr(text, "is_encoder_decoder", False)
    if architecture == "Blip2ForConditionalGeneration" and encodes_text:
        return "blip2"
    sees = text is not config or hasattr(config, "vision_config")
    if architecture.endswith("ForCausalLM") and not sees:
        return "causal-lm"
    if architecture in IMAGE_TEXT.values() and not encodes_text:
        return "image-text"
    return "generic"


def _outside_family(path: str | Path) -> str | None:
    """Returns the family of a local folder whose model is none of transformers'."""
    for name, family in FAMILIES.items():
        if family.environment in ENVIRONMENTS and Path(path, family.config_file).is_file():
            config = json.loads(Path(path, family.config_file).read_text(encoding="utf-8"))
            architecture = next(iter(config.get("architectures") or []), "")
            if FAMILY_OF_CLASS.get(architecture) == name or family.config_file != "config.json":
                return name
    return None


def _identified(path: str | Path) -> tuple[str, str]:
    """Returns family and class of a checkpoint.

    Raises:
        ModelError: if it cannot be read, or its family needs another environment than this one.
    """
    from transformers import AutoConfig, __version__

    outside = _outside_family(path)
    if outside is not None:
        environment = FAMILIES[outside].environment
        package = ENVIRONMENTS[environment]
        if importlib.util.find_spec(package) is None:
            raise _elsewhere(path, outside, environment, f"no package {package} here")
        from ecoflap.models.adapters._outside import import_torchvision

        import_torchvision()  # before the adapter's library imports it
        return outside, FAMILIES[outside].config_file
    if int(__version__.partition(".")[0]) < 5:
        raise _elsewhere(path, "a class of transformers", "pipeline", f"{__version__} is too old")
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    return family_of(config), ", ".join(config.architectures or ["no architecture"])


def _elsewhere(path: str | Path, family: str, environment: str, reason: str) -> ModelError:
    target = "setup" if environment == "pipeline" else f"setup-{environment}"
    return ModelError(
        f"'{path}' ({family}) cannot be loaded in this environment: {reason}",
        allowed=f"a Python with what envs/{environment}.yaml pins",
        fix=f"Run `make {target}` and use its Python; in the pipeline use --sdm conda, or name "
        "the Python under environments.",
    )


def load(
    path: str | Path,
    *,
    dtype: str = "float32",
    device: str = "auto",
    family: str | None = None,
    blocks: "BlockNames | None" = None,
    offload: str = "none",
) -> "Model":
    """Loads a model that can be scored and pruned.

    Args:
        path: A folder written by ``save_pretrained`` with its processor files, or a hub id.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        family: What the checkpoint is expected to be; anything by default.
        blocks: Dotted name or names of the ModuleLists of blocks to prune, for each tower
            (``vision``, ``language``); all others stay dense. Found by themselves by default.
        offload: Where the weights of blocks wait while they do not run: ``none``, on the device;
            ``cpu``, in the host's memory; ``disk``, in the checkpoint's safetensors files, so
            that neither device nor host ever holds the model.

    Raises:
        ModelError: if the model cannot be read, it is of another family, or nothing can be pruned.
    """
    import torch

    from ecoflap.devices import resolve_device
    from ecoflap.models.checkpoints.loading import Loader, find_file
    from ecoflap.models.inputs import settle_queries

    if dtype not in DTYPES:
        raise ModelError(f"dtype '{dtype}'", allowed=", ".join(DTYPES), fix="Correct the dtype.")
    if Path(path).is_dir():
        files.check(Path(path))
    try:
        found, name = _identified(path)
        fetched = None if Path(path).is_dir() else find_file(str(path), "config.json")
        if fetched:
            files.check_config(Path(fetched))
    except EcoflapError:
        raise
    except Exception as error:  # transformers raises many kinds for a config that it cannot use
        raise _unreadable(path, error) from error
    if family not in (None, found):
        raise ModelError(
            f"'{path}' ({name}) is of the family {found}",
            allowed=family,
            fix=f"Set family: {found}." if found in FAMILIES else "Choose another checkpoint.",
        )
    adapter = ADAPTERS.get(found).Adapter
    loader = Loader(
        str(path),
        dtype=getattr(torch, dtype),
        device=resolve_device(device),
        offload=offload,
    )
    try:
        model = adapter.from_pretrained(loader, blocks)
    except EcoflapError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ModelError(
            f"'{path}' does not fit into the memory here ({_reason(error)})",
            allowed="a model that fits, or whose blocks wait elsewhere",
            fix="Set offload: cpu or disk, a smaller dtype, or use a larger machine.",
        ) from error
    except Exception as error:  # of many kinds, by what in the checkpoint does not fit
        raise _unreadable(path, error) from error
    settle_queries(model)
    _check_finite(path, model)
    loader.place(model)
    model.source = str(path)
    return model


def check_processor(model: "Model") -> None:
    """Refuses a model whose checkpoint lacks what the formats and tasks of its family need.

    Raises:
        ModelError: naming what is missing.
    """
    family = FAMILIES.get(model.family)
    if family is None or family.environment in ENVIRONMENTS:
        return  # their adapters make or need a processor of their own
    needed = {"tokenizer": "tokenizer_config.json with tokenizer.json or the model's vocabulary"}
    if any(VIEWS.get(form) != "text" for form in family.formats):
        needed["image_processor"] = "processor_config.json or preprocessor_config.json"
    for part, where in needed.items():
        alone = part == "tokenizer" and hasattr(model.processor, "convert_tokens_to_ids")
        if not alone and getattr(model.processor, part, None) is None:
            raise ModelError(
                f"'{model.source}' has no {part.replace('_', ' ')}, without which a model of "
                f"the family {model.family} is neither calibrated nor evaluated",
                allowed=f"{where} beside the weights",
                fix="Save the model's processor into the same folder.",
            )
    tokenizer = getattr(model.processor, "tokenizer", model.processor)
    pads = family.formats != ("text-windows",)
    unset = ["pad_token"] if pads and tokenizer.pad_token is None else []
    unset += ["patch_size"] if getattr(model.processor, "patch_size", True) is None else []
    if unset:
        raise ModelError(
            f"the processor of '{model.source}' has no {' and no '.join(unset)}",
            allowed="a pad_token in tokenizer_config.json, such as the eos_token; in a "
            "processor_config.json that has a patch_size, that of the vision tower",
            fix="Set it there.",
        )


def _check_finite(path: str | Path, model: "Model") -> None:
    for name, parameter in model.module.named_parameters():
        if parameter.device.type != "meta" and not parameter.isfinite().all():
            raise ModelError(
                f"{name} in '{path}' is not finite",
                allowed=f"finite numbers in {str(parameter.dtype).removeprefix('torch.')}",
                fix="Use another checkpoint, or a dtype with a larger range (bfloat16).",
            )


def _unreadable(path: str | Path, error: Exception) -> ModelError:
    from ecoflap.models.checkpoints.sources import access_problem

    refused = access_problem(str(path), error)
    if refused:
        return refused
    if "trust_remote_code" in str(error):
        return ModelError(
            f"'{path}' needs Python code of its own (auto_map in its files)",
            allowed="classes of transformers; code that comes with a checkpoint is never run",
            fix="Choose a checkpoint that plain transformers loads.",
        )
    return ModelError(
        f"cannot load a model from '{path}' ({_reason(error)})",
        allowed="a folder with config.json, whole safetensors and processor files, or a hub id "
        "that can be reached",
        fix="Check the path; without network, download the model first.",
    )


def _reason(error: BaseException) -> str:
    """Returns the beginning of what an error says in one line, with its kind if that says more."""
    if isinstance(error, pickle.UnpicklingError):
        return files.pickle_reason(error)
    if "ignore_mismatched_sizes" in str(error):
        return "it has weights of other shapes than config.json says; the log above names them"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    known = isinstance(error, OSError | ValueError | RuntimeError) and text
    return text if known else f"{type(error).__name__}: {text}".removesuffix(": ")
