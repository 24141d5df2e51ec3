"""2:4 on devices with and without it; the benchmark on a CPU."""

import pandas as pd
import pytest
import torch
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

import ecoflap
from bench import deploy as bench
from bench.__main__ import main
from ecoflap.criteria import prune_matrix
from ecoflap.errors import DeployError
from ecoflap.export import semi_structured
from ecoflap.scores import matrix_table
from helpers import tiny


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the command line sets it; restored afterwards


@pytest.fixture
def two_four():
    """A small Llama in bfloat16 of which 2 of 4 weights are left."""
    model = tiny.llama_model()
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform", of=4)
    ecoflap.prune(model, [], plan, criterion="magnitude", pattern="2:4")
    model.module.to(torch.bfloat16)
    return model


@pytest.fixture
def gpu(monkeypatch):
    """Stands for a GPU: its conversion only notes what it was given."""
    taken = []
    monkeypatch.setattr(semi_structured, "_check_device", lambda device: None)
    monkeypatch.setattr(
        torch.sparse, "to_sparse_semi_structured", lambda weight: taken.append(weight) or weight + 0
    )
    return taken


def test_a_device_without_sparse_tensor_cores_is_refused(two_four, monkeypatch):
    with pytest.raises(DeployError, match="on the device 'cpu'. Allowed: CUDA .* 8.0 and above"):
        semi_structured.to_semi_structured(two_four)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(DeployError, match="Tesla T4, which has no sparse tensor cores"):
        semi_structured._check_device(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    semi_structured._check_device(torch.device("cuda"))


def test_every_matrix_is_converted_and_no_other_layer(two_four, gpu):
    before = [m.module.weight.detach().clone() for m in two_four.matrices()]
    head = two_four.module.lm_head.weight
    assert semi_structured.to_semi_structured(two_four) is two_four
    assert len(gpu) == len(before) == 3 * 7
    assert all(torch.equal(one, other) for one, other in zip(gpu, before, strict=True))
    assert all(not m.module.weight.requires_grad for m in two_four.matrices())
    assert two_four.module.lm_head.weight is head


def test_what_is_not_two_of_four_is_named_and_nothing_converted(two_four, gpu):
    last = list(two_four.matrices())[-1]
    with torch.no_grad():
        last.module.weight[3, 4:8] = torch.tensor([1.0, 0.0, 2.0, 3.0])
    with pytest.raises(DeployError, match=f"{last.name} keeps 3 of 4 .*pattern='2:4'"):
        semi_structured.to_semi_structured(two_four)
    assert gpu == []


def test_other_number_formats_and_offloaded_weights_are_refused(two_four, gpu, monkeypatch):
    two_four.module.float()
    with pytest.raises(DeployError, match="q_proj is float32. Allowed: float16, bfloat16"):
        semi_structured.to_semi_structured(two_four)
    monkeypatch.setattr(type(two_four), "offload", "cpu")
    with pytest.raises(DeployError, match="offload='cpu'"):
        semi_structured.to_semi_structured(two_four)


def test_a_shape_that_torch_refuses_is_named(two_four, gpu, monkeypatch):
    def refuse(weight):
        raise RuntimeError("shape not supported")

    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", refuse)
    with pytest.raises(DeployError, match=r"q_proj \(16, 16\) semi-structured \(shape not supp"):
        semi_structured.to_semi_structured(two_four)


def test_our_two_of_four_are_those_of_torchs_kernels():
    """Torch's own conversion, which needs no GPU, keeps each weight of our pattern."""
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0)).to(torch.float16)
    pruned, _ = prune_matrix(weight, None, sparsity=0.5, criterion="magnitude", pattern="2:4")
    assert semi_structured.is_two_four(pruned)
    parts = sparse_semi_structured_from_dense_cutlass(pruned)
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(*parts), pruned)
    assert parts[0].shape == (64, 64)
    assert not semi_structured.is_two_four(weight)
    assert not semi_structured.is_two_four(pruned.T.contiguous())  # along the outputs it is none
    assert not semi_structured.is_two_four(torch.zeros(4, 6))


def test_the_benchmark_sets_each_form_beside_dense(tmp_path, capsys):
    main(["deploy", "--small", "--device", "cpu", "--threads", "1", "--results", str(tmp_path)])
    frame = pd.read_csv(tmp_path / "deploy-small.csv")
    assert set(frame["form"]) == {"dense", "CSR, 50% zeros"}
    blocks = frame[frame["what"].str.endswith("block")]
    assert len(blocks) == 2 * 3
    assert "vision_model.encoder: 16 to 48" in set(frame["what"])
    dense = frame[frame["form"] == "dense"].set_index("what")["milliseconds"]
    for row in frame.itertuples():
        assert row.times_dense == pytest.approx(dense[row.what] / row.milliseconds)
        assert row.samples_per_second == pytest.approx(2000 / row.milliseconds)
    sparse = frame[frame["form"] != "dense"]
    assert sparse["deviation"].max() < 1e-5
    text = (tmp_path / "deploy-small.md").read_text()
    assert text in capsys.readouterr().out


def test_what_torch_refuses_is_a_row_without_numbers(monkeypatch):
    def refuse(name, linear):
        raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr(bench, "_to_csr", refuse)
    frame, _ = bench.run("cpu", small=True)
    sparse = frame[frame["form"] != "dense"]
    assert len(sparse) == len(frame) / 2
    assert sparse[["milliseconds", "times_dense"]].isna().all(axis=None)


def test_the_bytes_of_each_form_are_counted():
    weight = torch.eye(8)
    assert bench.stored_bytes(weight) == 8 * 8 * 4
    # 8 values of 4 bytes, 8 columns and 9 starts of rows of 8 bytes.
    assert bench.stored_bytes(weight.to_sparse_csr()) == 8 * 4 + 8 * 8 + 9 * 8


def test_the_measured_layers_have_the_widths_of_blip2():
    with torch.device("meta"):
        size = bench.scale("cpu", small=False).size
    assert size.vision["hidden_size"] == 1408
    assert size.vision["intermediate_size"] == 6144
    assert (size.text["d_model"], size.text["d_ff"]) == (2048, 5120)
    assert size.vision["num_hidden_layers"] == size.text["num_layers"] == 2
