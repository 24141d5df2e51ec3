"""Which families compare the samples of a batch, so that a batch of one is refused."""

import pytest

from ecoflap.errors import ConfigError
from ecoflap.plugins import FAMILIES, LOSS_SCORES, SCORES
from ecoflap_pipeline.config import check as configuration
from ecoflap_pipeline.config import references
from helpers.configs import ROOT, merged

# Read off the losses of the adapters: pairs in a batch, or another caption of the batch.
COMPARING = {"clip", "open-clip", "blip-retrieval", "blip2-matching"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("estimator", SCORES)
def test_a_batch_of_one_is_refused_where_the_loss_compares_samples(family, estimator):
    config = {"calibrations": {"c": {"samples": 8, "format": FAMILIES[family].formats[0]}}}
    entry = {"estimator": estimator, "samples": 8, "batch_size": 1}
    problems = list(references._sample_problems("here", config, entry, {"family": family}, "c"))
    expected = estimator in LOSS_SCORES and family in COMPARING
    assert len(problems) == expected
    assert all("the loss compares samples with each other" in problem for problem in problems)


def experiment(family, kind):
    """The published gradients of single samples, and a landscape, for one family."""
    landscape = {"kind": "loss-landscape", "samples": 8, "batch_size": 1, "steps": 5, "radius": 1}
    table = {"kind": "table", "variants": ["ecoflap-first"], "sparsities": ["0.5"], "tasks": ["t"]}
    task = {"label": "T", "kind": FAMILIES[family].tasks[0], "prompt": "", "max_new_tokens": 4}
    if task["kind"] != "captioning":
        task = {"label": "T", "kind": task["kind"]}
    view = {"name": "scenes", "split": "test", "view": "captions"}
    return {
        "models": {
            "m": {
                "label": "M",
                "family": family,
                "source": {"folder": "somewhere"},
                "calibration": "c",
            }
        },
        "calibrations": {
            "c": {
                "dataset": {**view, "split": "train"},
                "format": "image-caption",
                "samples": 128,
            }
        },
        "tasks": {"t": {**task, "dataset": view}},
        "experiments": {
            "e": {"title": "E", "models": ["m"], **(table if kind == "table" else landscape)}
        },
        "run": ["e"],
    }


@pytest.mark.parametrize("kind", ["table", "loss-landscape"])
@pytest.mark.parametrize(
    ("family", "refused"), [("blip-captioning", False), ("blip-retrieval", True)]
)
def test_published_gradients_of_single_samples_suit_a_captioning_model(family, refused, kind):
    config = merged(experiment(family, kind))
    if refused:
        with pytest.raises(ConfigError, match="a batch of one sample"):
            configuration.check(config, ROOT)
    else:
        configuration.check(config, ROOT)
