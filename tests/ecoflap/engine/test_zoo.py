"""Many classes of transformers against plain forwards and backwards; docs/architectures.md."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

import ecoflap
from ecoflap.criteria import wanda
from ecoflap.engine.walk import Walk
from ecoflap.errors import PruningError
from ecoflap.models.checkpoints.loading import Loader
from ecoflap.pruning import whole_model
from ecoflap.scores import zeroth
from helpers import architectures, hooks, zoo
from helpers.zoo import Case

CASES = {str(case): case for case in zoo.CASES}
# A module called twice, a weight used without a call, states that blocks share.
TRAPS = ("BertForMaskedLM-chunk_size_feed_forward-unpadded", "MambaForCausalLM")


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


def gradients(model, batch) -> dict[str, torch.Tensor]:
    """Gradients of an ordinary backward; zeros where there is none."""
    weights = {matrix.name: matrix.module.weight for matrix in model.matrices()}
    found = torch.autograd.grad(model.loss(batch), list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for (name, weight), gradient in zip(weights.items(), found, strict=True)
    }


def test_streamed_gradients_are_those_of_a_plain_backward(case):
    model = zoo.build(case)
    batches = zoo.batches(case, model)
    found = [gradients(model, batch) for batch in batches]
    scores = ecoflap.score(model, batches, estimator="gradnorm").set_index("name")["score"]
    for name, score in scores.items():
        norms = sum(one[name].double().norm().item() for one in found)
        expected = math.sqrt(2 / math.pi) * norms / len(batches)
        assert score == pytest.approx(expected, rel=1e-5, abs=1e-9), name


def test_replayed_losses_are_those_of_full_forwards(case):
    model = zoo.build(case)
    with torch.no_grad():
        for batch in zoo.batches(case, model):
            for block, loss in zeroth._losses(model, batch, model.blocks):
                weight = block.matrices[-1].module.weight
                original = weight.detach().clone()
                weight.mul_(1.5)
                replayed, full = loss(), model.loss(batch).double().item()
                weight.copy_(original)
                assert replayed == full, block.name


def test_statistics_are_those_of_plain_forwards_or_refused_by_name(case):
    model = zoo.build(case)
    batches = zoo.batches(case, model)
    if case.refused is not None:
        plan = pd.DataFrame({"name": [m.name for m in model.matrices()], "sparsity": 0.5})
        with pytest.raises(PruningError, match=rf"\S*{re.escape(case.refused)} "):
            ecoflap.prune(model, batches, plan)
        return

    def real(matrix, batch):
        return zoo.real_tokens(model, matrix.name, batch)

    expected, walk = hooks.squares(model, batches, real), Walk(model, batches, wanda)
    for block in walk:
        for name, found in walk.statistics(block).items():
            torch.testing.assert_close(
                found.double(), expected.pop(name), rtol=1e-5, atol=1e-8, msg=name
            )
        walk.advance(block)
    assert not expected


@pytest.mark.parametrize("name", TRAPS)
def test_all_scores_of_gradients_see_every_use_of_a_weight(name):
    """Expected: the definitions of `algorithms`, from plain gradients."""
    case = CASES[name]
    model = zoo.build(case)
    batches = zoo.batches(case, model)
    found = [gradients(model, batch) for batch in batches]
    weights = {m.name: m.module.weight.detach().clone() for m in model.matrices()}
    for estimator, terms in {
        "first": lambda w, g: (w * g).abs(),
        "fisher": lambda w, g: (w * g).square(),
        "elements": lambda w, g: (w * g).abs(),
    }.items():
        scores = ecoflap.score(model, batches, estimator=estimator).set_index("name")["score"]
        for matrix, score in scores.items():
            sums = [terms(weights[matrix], one[matrix]).double().sum().item() for one in found]
            assert score == pytest.approx(sum(sums) / len(sums), rel=1e-4), (estimator, matrix)
    # At this sparsity the first of the three steps removes only a weight or two of each thousand.
    whole_model.prune_iterative_obd(model, batches, "0.1")
    damage = torch.cat(
        [(w.square() * sum(g[n].square() for g in found)).flatten() for n, w in weights.items()]
    )
    first = round(0.1**3 * len(damage))
    gone = torch.cat([(m.module.weight == 0).flatten() for m in model.matrices()])
    assert gone[damage.argsort()[:first]].all()


def test_an_offloaded_weight_that_is_used_without_a_call_has_its_gradient():
    case = CASES["MambaForCausalLM"]
    whole, moved = zoo.build(case), zoo.build(case)
    Loader("", dtype=torch.float32, device="cpu", offload="cpu").place(moved)
    batches = zoo.batches(case, whole)
    tables = [ecoflap.score(model, batches, estimator="first") for model in (whole, moved)]
    pd.testing.assert_frame_equal(*tables)


def test_a_weight_used_both_ways_is_refused_by_name():
    model = zoo.build(CASES["BertForMaskedLM"])
    linear = model.blocks[1].matrices[0].module
    linear.register_forward_hook(lambda module, args, output: output + args[0] @ module.weight.T)
    with pytest.raises(PruningError, match=r"calls \S*layer.1\S*, and uses its weight without"):
        ecoflap.score(model, zoo.batches(CASES["BertForMaskedLM"], model))


def test_the_table_of_the_docs_is_what_is_tested():
    rows = [
        (case.name, ", ".join(case.settings), _batches(case), case.refused or "equal")
        for case in zoo.CASES
    ]
    rows += [
        (type(found.build()).__name__, "", "padded", "equal")
        for found in architectures.ARCHITECTURES.values()
    ]
    text = Path("docs/architectures.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("| `")]
    expected = [
        f"| `{name}` | {settings} | {batches} | equal | equal | "
        + ("equal |" if last == "equal" else f"refused: `{last}` |")
        for name, settings, batches, last in sorted(set(rows))
    ]
    assert table == expected
    assert len({name for name, *_ in rows}) >= 70


def _batches(case: Case) -> str:
    return "padded" if case.padded else "without padding"
