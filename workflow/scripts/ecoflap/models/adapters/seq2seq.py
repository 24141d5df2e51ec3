"""An encoder-decoder language model (T5)."""

from collections.abc import Mapping, Sequence

import torch

from ecoflap.models.adapters import generic
from ecoflap.models.model import IGNORED


class Adapter(generic.Adapter):
    """T5: calibrated on texts that are cut into what it reads and what it writes."""

    def encode(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Encodes examples with ``prompt`` and ``target``.

        Returns:
            input_ids and attention_mask [n, prompt tokens], labels [n, target tokens] with -100
            for padding.
        """
        prompts, targets = (
            self.needed_processor()([e[key] for e in examples], padding=True, return_tensors="pt")
            for key in ("prompt", "target")
        )
        labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, IGNORED)
        return {name: prompts[name] for name in ("input_ids", "attention_mask")} | {
            "labels": labels
        }
