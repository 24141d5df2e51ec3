"""Any model of transformers, loaded as the class that its checkpoint names."""

import logging
from typing import Any

import transformers
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, PreTrainedModel

from ecoflap.errors import ModelError
from ecoflap.models.checkpoints.loading import TOKENIZER_FILES, Loader, has_file
from ecoflap.models.model import BlockNames, Model
from ecoflap.plugins import suggestion

log = logging.getLogger(__name__)
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


class Adapter(Model):
    """A model with its own loss and no calibration format: pass batches of tensors."""

    @classmethod
    def from_pretrained(cls, loader: Loader, blocks: BlockNames | None = None) -> "Adapter":
        """Loads the model, and its processor or tokenizer if it has one; never remote code.

        Raises:
            ModelError: if transformers has no such class, or the processor needs a package.
        """
        config = AutoConfig.from_pretrained(loader.path, trust_remote_code=False)
        module = loader.module(_class_of(config, loader.path), blocks)
        return cls(module, _processor(loader.path), blocks)

    def needed_processor(self) -> Any:
        """Returns the processor or tokenizer, which makes batches from examples.

        Raises:
            ModelError: if the checkpoint came without one.
        """
        if self.processor is None:
            raise ModelError(
                f"{type(self.module).__name__} was loaded without a processor",
                allowed="processor and tokenizer files beside the weights",
                fix="Save the model's processor into the same folder, or pass batches of tensors.",
            )
        return self.processor


def _class_of(config: transformers.PreTrainedConfig, path: str) -> type[PreTrainedModel]:
    name = next(iter(config.architectures or []), None)
    found = getattr(transformers, name or "", None)
    if isinstance(found, type) and issubclass(found, PreTrainedModel):
        return found
    near = suggestion(name, dir(transformers)) if name else ""
    raise ModelError(
        f"config.json in '{path}' names the class {name}",
        allowed=f"a model class of transformers {transformers.__version__} as its first "
        "architecture",
        fix=near or "Save the model with save_pretrained; a newer transformers may know it.",
    )


def _processor(path: str):
    """Returns the processor, else the tokenizer, else None."""
    for files, auto in ((PROCESSOR_FILES, AutoProcessor), (TOKENIZER_FILES, AutoTokenizer)):
        if any(has_file(path, name) for name in files):
            try:
                return auto.from_pretrained(path, trust_remote_code=False)
            except ImportError as error:
                reason = " ".join(str(error).split())
                raise ModelError(
                    f"the processor of '{path}' cannot be loaded ({reason})",
                    allowed="a processor whose packages are installed",
                    fix="Install them; or remove the processor files, then it is left out.",
                ) from error
    log.warning("'%s' has no processor and no tokenizer: none will be saved", path)
    return None
