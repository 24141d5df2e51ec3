"""On a GPU: the numbers of the CPU, wherever weights wait, and the memory that gradnorm needs.

Needs torch, transformers, pandas and pytest alone: `python -m pytest -m gpu tests/gpu`.
"""

import pytest
import torch

import ecoflap
from ecoflap.models import offload
from ecoflap.models.checkpoints.loading import Loader
from ecoflap.scores import matrix_table
from helpers import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible"),
]
DEVICE = "cuda"


@pytest.fixture(autouse=True)
def _exact_products():
    """Full float32 products, so that a CPU can be the reference."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture(params=tiny.MODELS)
def saved(request, tmp_path, monkeypatch):
    """A model on the CPU, and a function that loads it again on the GPU."""
    monkeypatch.setattr(Loader, "processor", lambda *_: None)
    model = tiny.MODELS[request.param]()
    model.module.save_pretrained(tmp_path / "dense", max_shard_size="20KB")
    return model, lambda **options: ecoflap.load(tmp_path / "dense", device=DEVICE, **options)


@pytest.mark.parametrize("kind", offload.KINDS)
@pytest.mark.parametrize("estimator", ["gradnorm", "first", "fisher", "local-wanda", "medians"])
def test_scores_are_those_of_the_cpu(saved, estimator, kind):
    model, load = saved
    batches = tiny.batches(model, 2)
    expected = ecoflap.score(model, batches, estimator=estimator)["score"]
    found = ecoflap.score(load(offload=kind), batches, estimator=estimator)["score"]
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("kind", offload.KINDS)
def test_zeroth_repeats_and_does_not_depend_on_where_weights_wait(saved, kind):
    model, load = saved
    batches = tiny.batches(model, 2)
    expected = ecoflap.score(load(), batches, estimator="zeroth")
    assert ecoflap.score(load(offload=kind), batches, estimator="zeroth").equals(expected)


@pytest.mark.parametrize("kind", offload.KINDS)
@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "ria", "sparsegpt", "admm"])
def test_pruned_weights_are_those_of_the_cpu(saved, criterion, kind, tmp_path):
    model, load = saved
    batches = tiny.batches(model, 2)
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    ecoflap.prune(model, batches, plan, criterion=criterion)
    other = load(offload=kind)
    ecoflap.prune(other, batches, plan, criterion=criterion)
    other.save(tmp_path / "pruned")
    again = type(model.module).from_pretrained(tmp_path / "pruned").state_dict()
    weights = model.module.state_dict()
    for matrix in model.matrices():
        one, two = weights[f"{matrix.name}.weight"], again[f"{matrix.name}.weight"]
        # A last bit of a sum may let two neighbours of the threshold change places.
        assert ((one == 0) != (two == 0)).float().mean() < 0.02, matrix.name
        assert (one - two).abs().median() < 1e-4, matrix.name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradnorm_of_16_bits_is_near_that_of_32(dtype):
    model, half = tiny.llama_model(), tiny.llama_model()
    batches = tiny.batches(model, 2)
    expected = ecoflap.score(model, batches)["score"]
    half.module.to(DEVICE, dtype)
    assert ecoflap.score(half, batches)["score"].tolist() == pytest.approx(
        expected.tolist(), rel=0.1
    )


def test_gradnorm_never_holds_more_than_one_gradient():
    from transformers import LlamaConfig

    from bench import models as shapes

    config = LlamaConfig(hidden_size=512, intermediate_size=1024, num_hidden_layers=12)
    model = shapes.build_llama(config, torch.float32)
    model.module.to(DEVICE)
    batches = [
        model.to_device(batch)
        for batch in shapes.token_windows(config, batches=1, batch_size=1, length=16)
    ]
    weights = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    ecoflap.score(model, batches)
    extra = torch.cuda.max_memory_allocated() - weights
    gradients = sum(4 * matrix.n_weights for matrix in model.matrices())
    assert extra < gradients / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_semi_structured_model_is_the_dense_one(dtype):
    from transformers import LlamaConfig

    from bench import deploy as forms
    from bench import models as shapes
    from ecoflap.export import semi_structured

    if torch.cuda.get_device_capability() < semi_structured.CAPABILITY:
        pytest.skip("no sparse tensor cores")
    config = LlamaConfig(hidden_size=512, intermediate_size=1024, num_hidden_layers=2)
    model = shapes.build_llama(config, torch.float32)
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform", of=4)
    ecoflap.prune(model, [], plan, criterion="magnitude", pattern="2:4")
    model.module.to(DEVICE, dtype)
    (batch,) = shapes.token_windows(config, batches=1, batch_size=3, length=17)
    batch = model.to_device(batch)
    weight = next(model.matrices()).module.weight
    dense = weight.numel() * weight.element_size()
    with torch.inference_mode():
        expected = model.module(**batch).logits
        semi_structured.to_semi_structured(model)
        found = model.module(**batch).logits
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    assert forms.stored_bytes(next(model.matrices()).module.weight) < 0.6 * dense


def test_energy_is_told_or_left_out():
    from ecoflap.measure import Cost

    matrix = torch.ones(4096, 4096, device=DEVICE)
    with Cost(DEVICE) as cost:
        for _ in range(100):
            matrix = matrix @ matrix / 4096
        torch.cuda.synchronize()
    assert cost.joules is None or 0 < cost.joules < 10_000 * max(1.0, cost.seconds)


def test_the_deployment_benchmark_has_every_form():
    from bench import deploy as bench

    frame, _ = bench.run(DEVICE, small=True)
    assert {"dense", "2:4", "CSR, 50% zeros"} == set(frame["form"])
