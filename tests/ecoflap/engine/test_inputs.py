"""A model that does not see one of its inputs is refused, or made to see it."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

import ecoflap
from ecoflap import models
from ecoflap.engine import checks
from ecoflap.errors import ModelError, PruningError
from ecoflap.evaluation.suite import evaluate
from ecoflap.pruning import whole_model
from ecoflap.scores import check_towers
from helpers import architectures, tiny

DEMO = Path("workflow/resources/demo/demo-blip2")
SEEING = [name for name, found in architectures.ARCHITECTURES.items() if "vision" in found.blocks]
CAPTIONS = {
    "kind": "captioning",
    "prompt": "",
    "max_new_tokens": 8,
    "dataset": {"name": "scenes", "split": "validation", "view": "captions", "limit": 4},
}


def copied(folder, file, **changed):
    """A copy of the demo model of which one file says something else; None takes a key out."""
    shutil.copytree(DEMO, folder)
    content = json.loads((folder / file).read_text(encoding="utf-8"))
    content = {key: changed.get(key, value) for key, value in content.items()} | changed
    content = {key: value for key, value in content.items() if value is not None}
    (folder / file).write_text(json.dumps(content), encoding="utf-8")
    return folder


def sample(model):
    from ecoflap.data import sampling

    entry = {"format": "prefix-target", "samples": 4, "dataset": CAPTIONS["dataset"]}
    return model.to_device(sampling.collect(model, entry, 0)[0])


@pytest.mark.parametrize(
    ("file", "key"),
    [("processor_config.json", "num_query_tokens"), ("config.json", "image_token_index")],
)
def test_older_checkpoints_see_their_pictures(tmp_path, file, key):
    """As every BLIP-2 from before transformers 4.45 looks; expected: the loss of the whole one."""
    whole = models.load(DEMO, device="cpu")
    older = models.load(copied(tmp_path / "older", file, **{key: None}), device="cpu")
    batch = sample(older)
    assert torch.equal(batch["input_ids"], sample(whole)["input_ids"])
    with torch.no_grad():
        assert torch.equal(older.loss(batch), whole.loss(batch))
    older.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / file).read_text(encoding="utf-8"))
    assert saved[key] == json.loads((DEMO / file).read_text(encoding="utf-8"))[key]


@pytest.mark.parametrize(
    ("file", "key", "number", "told"),
    [
        ("processor_config.json", "num_query_tokens", 8, "8 in the processor and 12 in the model"),
        ("config.json", "image_token_index", 7, r"<image> is \d+ in the tokenizer, 7 in the model"),
    ],
)
def test_a_processor_of_another_model_is_refused(tmp_path, file, key, number, told):
    with pytest.raises(ModelError, match=told):
        models.load(copied(tmp_path / "other", file, **{key: number}), device="cpu")


def blinded(model):
    """A model whose vision blocks return zeros, whatever they are shown."""

    def zeros(_, args, output):
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    for block in model.blocks:
        if block.tower == "vision":
            block.module.register_forward_hook(zeros)
    return model


@pytest.mark.parametrize("name", SEEING)
def test_pictures_that_change_no_logit_are_refused(name):
    architecture = architectures.ARCHITECTURES[name]
    model, batches = blinded(architecture.model()), architecture.batches()
    plan = pd.DataFrame({"name": [m.name for m in model.matrices()], "sparsity": 0.5})
    dense = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    for refused in (
        lambda: ecoflap.score(model, batches, estimator="gradnorm"),
        lambda: ecoflap.score(model, batches, estimator="zeroth"),
        lambda: ecoflap.score(model, batches, estimator="local-wanda"),
        lambda: ecoflap.prune(model, batches, plan, criterion="wanda"),
        lambda: whole_model.prune_iterative_obd(model, batches, 0.5),
    ):
        with pytest.raises(ModelError, match="pictures .* change nothing"):
            refused()
    assert all(torch.equal(dense[name], new) for name, new in model.module.state_dict().items())


def test_texts_without_image_tokens_are_refused():
    """The case that was met: the queries have no place in the text."""
    architecture = architectures.ARCHITECTURES["blip2-t5"]
    model, (batch,) = architecture.model(), architecture.batches(1)
    batch = batch | {"input_ids": batch["input_ids"].clamp(max=architectures.TEXT_END)}
    with pytest.raises(ModelError, match="pictures .* change nothing"):
        ecoflap.score(model, [batch], estimator="gradnorm")


def test_a_tower_that_the_loss_does_not_depend_on_is_refused(monkeypatch):
    """The language tower of BLIP-2, when the loss is that of the pictures alone."""
    architecture = architectures.ARCHITECTURES["clip"]
    model = architecture.model()
    monkeypatch.setattr(
        model, "loss", lambda batch: model.module(**batch).image_embeds.std(0).mean()
    )
    for estimator in ("gradnorm", "first", "fisher", "elements", "zeroth"):
        with pytest.raises(PruningError, match="every score of the language tower is 0"):
            ecoflap.score(model, architecture.batches(), estimator=estimator)


def test_scores_that_look_at_no_loss_may_be_zero():
    frame = pd.DataFrame({"tower": ["vision", "language"], "score": [0.0, 1.0]})
    frame.attrs["estimator"] = "outliers"
    check_towers(frame)  # a block without outliers is a finding


def test_a_dense_model_that_does_not_see_is_not_evaluated():
    with pytest.raises(ModelError, match="pictures .* change nothing"):
        evaluate(blinded(models.load(DEMO, device="cpu")), {"captions": CAPTIONS})


def test_a_pruned_model_that_does_not_see_is_a_result():
    model = blinded(models.load(DEMO, device="cpu"))
    whole_model.prune_global_magnitude(model, "0.9999")
    predictions, _ = evaluate(model, {"captions": CAPTIONS})
    assert len(predictions) == 4


def test_the_logits_of_a_batch_of_texts_are_not_kept():
    model = tiny.llama_model()
    (batch,) = tiny.batches(model, 1)
    (loss,) = checks.check_forward(model, batch)
    assert loss.shape == ()
    assert loss.item() == model.loss(batch).item()
