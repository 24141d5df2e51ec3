"""A small pruned model, ways to fine-tune it and drawn samples, for the tests of fine-tuning."""

import pytest
import torch

from ecoflap.finetuning import data, training
from ecoflap.pruning import whole_model
from helpers import tiny

TOKENS = 7
TEXTS = {"name": "wikitext-2", "split": "train", "view": "text"}
FULL = {
    "method": "full",
    "data": [
        {
            "dataset": TEXTS,
            "format": "text-windows",
            "window": TOKENS,
        }
    ],
    "epochs": 2,
    "learning_rate": 0.01,
    "warmup": 1,
    "weight_decay": 0.05,
    "batch_size": 3,
    "precision": "float32",
}
CAPTIONS = {
    "dataset": {"name": "scenes", "split": "train", "view": "captions"},
    "format": "image-caption",
}
LORA = {**FULL, "method": "sparselora", "rank": 2}
BOTH = pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "sparselora"])


def items(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(2, tiny.VOCABULARY, (count, TOKENS), generator=generator)
    return [({"id": str(i), "tokens": t}, FULL["data"][0]) for i, t in enumerate(drawn)]


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """Six examples to learn from and two held-out ones, instead of a data set."""
    monkeypatch.setattr(data, "draw", lambda *_: (items(6), items(2, seed=1)))


def pruned():
    model = tiny.llama_model()
    whole_model.prune_global_magnitude(model, "0.5")
    return model


def die_at(monkeypatch, number):
    """Ends runs before a step, as a kill does."""
    step = training._Run._step

    def dies(self, now, batch):
        if now == number:
            raise KeyboardInterrupt
        return step(self, now, batch)

    monkeypatch.setattr(training._Run, "_step", dies)


def state(model):
    return {name: p.detach().clone() for name, p in model.module.named_parameters()}
