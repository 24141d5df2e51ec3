"""The literal algorithms of the benchmarks against the library, and that each benchmark runs."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Blip2ForConditionalGeneration, LlamaForCausalLM

import ecoflap
from bench import checkpoint, cpu, gpu, literal, memory, models, peers
from bench.__main__ import main, parser
from ecoflap.errors import ArtifactError
from ecoflap.models.adapters.blip2 import Adapter
from ecoflap.scores import matrix_table
from ecoflap_pipeline.code import SCRIPTS
from helpers import processors, tiny

WEIGHTS = {"blip2": tiny.blip2_model, "llama": tiny.llama_model}


@pytest.fixture
def small():
    return cpu.data(models.TINY, samples=8, batch_size=4)


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the command line sets it; restored afterwards


def pruned_both_ways(model, samples, batches, criterion, plain):
    """Returns the library's weights and the literal pass's, from the same dense model."""
    dense = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    plan = ecoflap.allocate(matrix_table(model), sparsity="0.5", method="uniform")
    ecoflap.prune(model, batches, plan, criterion=criterion)
    ours = {m.name: m.module.weight.detach().clone() for m in model.matrices()}
    model.module.load_state_dict(dense)
    literal.prune(models.towers(model), model.loss, samples, criterion=plain, sparsity=0.5)
    theirs = {m.name: m.module.weight.detach().clone() for m in model.matrices()}
    return ours, theirs


@pytest.mark.parametrize("family", WEIGHTS)
def test_the_literal_zeroth_scores_are_the_librarys(family):
    model = WEIGHTS[family]()
    batches = tiny.batches(model)
    weights = {m.name: m.module.weight for m in model.matrices()}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    expected = literal.zeroth(model.loss, weights, batches)
    assert all(torch.equal(before[name], weight) for name, weight in weights.items())
    table = ecoflap.score(model, batches, estimator="zeroth")
    for name, score in zip(table["name"], table["score"], strict=True):
        assert score == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.parametrize("family", WEIGHTS)
def test_the_literal_first_scores_are_the_librarys(family):
    model = WEIGHTS[family]()
    batches = tiny.batches(model)
    expected = literal.first(
        model.loss, {m.name: m.module.weight for m in model.matrices()}, batches
    )
    table = ecoflap.score(model, batches, estimator="first")
    for name, score in zip(table["name"], table["score"], strict=True):
        assert score == pytest.approx(expected[name], rel=1e-5), name


def test_the_literal_wanda_pass_makes_the_same_masks(small):
    ours, theirs = pruned_both_ways(
        small.model, small.samples, small.batches, "wanda", literal.Wanda
    )
    assert cpu.masks_differ(ours, theirs) == 0
    assert all((weight == 0).float().mean() == 0.5 for weight in ours.values())


def test_the_literal_sparsegpt_pass_makes_the_same_weights(small):
    ours, theirs = pruned_both_ways(
        small.model, small.samples, small.batches, "sparsegpt", literal.SparseGPT
    )
    for name, weight in ours.items():
        assert torch.allclose(weight, theirs[name], rtol=0, atol=1e-4 * weight.std()), name
    assert cpu.weights_differ(ours, theirs) == 0


@pytest.mark.parametrize(
    ("criterion", "plain"), [("wanda", literal.Wanda), ("sparsegpt", literal.SparseGPT)]
)
def test_the_literal_passes_walk_a_decoder_only_model(criterion, plain):
    model = tiny.llama_model()
    batches = tiny.batches(model, size=4)
    samples = [{k: v[i : i + 1] for k, v in b.items()} for b in batches for i in range(4)]
    ours, theirs = pruned_both_ways(model, samples, batches, criterion, plain)
    assert cpu.masks_differ(ours, theirs) == 0
    for name, weight in ours.items():
        assert torch.allclose(weight, theirs[name], rtol=0, atol=1e-4 * weight.std()), name


def test_what_differs_is_counted():
    ours = {"a": torch.tensor([0.0, 1.0, 2.0, 3.0])}
    theirs = {"a": torch.tensor([1.0, 0.0, 2.0, 3.5])}
    assert cpu.masks_differ(ours, theirs) == 0.5
    assert cpu.weights_differ(ours, theirs) == 0.75


def test_the_models_have_the_matrices_of_blip2():
    with torch.device("meta"):
        module = Blip2ForConditionalGeneration(models.blip2_config(models.REAL))
    model = Adapter(module, None)
    matrices = list(model.matrices())
    # ViT-g and FlanT5-XL: attention of 4 (decoder 8) squares, with query, key and value in one in
    # the ViT; two matrices of the ViT's MLP, three of the T5's.
    vision, square, gated = 4 * 1408**2 + 2 * 1408 * 6144, 2048**2, 3 * 2048 * 5120
    assert len(matrices) == 39 * 4 + 24 * 7 + 24 * 11 == 588
    weights = 39 * vision + 24 * (4 * square + gated) + 24 * (8 * square + gated)
    assert sum(m.n_weights for m in matrices) == weights
    assert len(models.spread(model, 60)) >= 60


def test_a_sample_of_the_matrices_can_be_scored(small):
    whole = ecoflap.score(small.model, small.batches, estimator="gradnorm")
    names = list(models.spread(small.model, 5))
    with models.only(small.model, names):
        part = ecoflap.score(small.model, small.batches, estimator="gradnorm")
    assert part["name"].tolist() == names
    expected = whole.set_index("name")["score"][names]
    assert part["score"].tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert len(list(small.model.matrices())) == len(whole)


def test_the_cpu_figures_are_ratios_of_two_times(small):
    rows = cpu.score_figures(small, matrices=8)
    rows.append(cpu.draws_figure(small, draws=3))
    rows.append(cpu.pass_figure(small, "wanda", literal.Wanda, goal=2.0))
    rows.append(cpu.sparsegpt_figure(small, matrices=6))
    for row in rows:
        assert row["times_faster"] == pytest.approx(row["other_seconds"] / row["library_seconds"])
    assert rows[0]["deviation"] <= rows[0]["allowed"] == 1e-4
    assert rows[3]["deviation"] == rows[4]["deviation"] == 0


def test_the_gpu_benchmark_runs_small_on_a_cpu(tmp_path, capsys):
    main(["gpu", "--small", "--device", "cpu", "--threads", "1", "--results", str(tmp_path)])
    frame = pd.read_csv(tmp_path / "gpu-small.csv").set_index("what")
    assert list(frame.index) == [
        "literal zeroth",
        "zeroth",
        "gradnorm",
        "first, all gradients at once",
        "wanda",
        "sparsegpt",
    ]
    assert (frame["seconds"] > 0).all()
    assert (frame["peak_gib"] > 0).all()
    assert frame.loc["wanda", "seconds_to_wanda"] == 1
    text = (tmp_path / "gpu-small.md").read_text()
    assert text in capsys.readouterr().out
    for fact in ("hardware", "threads: 1", torch.__version__, "python -m bench gpu"):
        assert fact in text


def test_the_published_costs_stand_beside_their_methods():
    frame = pd.DataFrame({"what": list(gpu.PUBLISHED_ROWS) + ["gradnorm"]})
    found = gpu._beside_published(frame).set_index("what")
    # workflow/resources/published/cost-blip2.csv, sparsity 0.5
    assert found.loc["literal zeroth", "published_seconds"] == 5985
    assert found.loc["first, all gradients at once", "published_gb"] == 22.37
    assert pd.isna(found.loc["gradnorm", "published_seconds"])


@pytest.mark.parametrize("case", memory.IN_MEMORY)
def test_a_memory_case_prints_its_peak(case, capsys):
    main(["memory-case", case, "--small", "--threads", "1"])
    found = json.loads(capsys.readouterr().out)
    assert found["peak_mib"] >= found["imports_mib"] > 0
    # 3 blocks of 4 x 16 x 16 + 3 x 16 x 24 + 2 x 16, two tables of 96 x 16 and a norm, 4 bytes each
    assert found["weights_mib"] * 2**20 == 4 * (3 * (1024 + 1152 + 32) + 2 * 96 * 16 + 16)


def test_a_memory_case_runs_in_a_process_of_its_own(monkeypatch):
    command = [sys.executable, "-m", "bench", "memory-case", "gradnorm", "--small"]
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"imports_mib", "weights_mib", "peak_mib", "seconds"}


@pytest.fixture
def checkpoints(tmp_path):
    """A checkpoint written shard by shard, and the same pruned by the library in memory."""
    checkpoint.write(tmp_path / "dense", memory.SMALL)
    model = ecoflap.load(tmp_path / "dense", dtype="bfloat16", device="cpu")
    memory._prune(model, models.token_windows(model.module.config, 2, 2, 8))
    model.save(tmp_path / "pruned")
    return tmp_path / "dense", tmp_path / "pruned"


def test_a_written_checkpoint_is_whole_and_sharded(checkpoints):
    dense, _ = checkpoints
    assert len(list(dense.glob("*.safetensors"))) == 4  # one for each block, one for the rest
    module, info = LlamaForCausalLM.from_pretrained(
        dense, dtype="bfloat16", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    stored = load_file(dense / "model-00002-of-00004.safetensors")
    state = module.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())


def test_the_check_of_a_pruned_checkpoint_sees_what_is_wrong(checkpoints):
    dense, pruned = checkpoints
    # 3 blocks of 7 matrices and 2 norms; two tables and the last norm
    assert checkpoint.check(dense, pruned, 0.5).startswith("30 tensors")
    (file,) = pruned.glob("*.safetensors")
    whole = load_file(file)
    for name, change, words in [
        ("model.norm.weight", lambda t: t + 1, "was not to be touched"),
        ("model.layers.1.mlp.up_proj.weight", lambda t: t * 2, "kept weights"),
        ("model.layers.2.mlp.up_proj.weight", torch.zeros_like, "zeros"),
    ]:
        save_file({**whole, name: change(whole[name])}, file, metadata={"format": "pt"})
        with pytest.raises(ArtifactError, match=words):
            checkpoint.check(dense, pruned, 0.5)


def test_a_checkpoint_without_room_is_refused(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ArtifactError, match="--scratch"):
        checkpoint.write(tmp_path / "dense", memory.SMALL)


def test_the_large_checkpoint_has_at_least_6_gb_in_blocks_of_100_mb():
    with torch.device("meta"):
        state = LlamaForCausalLM(memory.DISK).state_dict()
    total = 2 * sum(tensor.numel() for tensor in state.values())
    block = 2 * sum(tensor.numel() for name, tensor in state.items() if ".layers.7." in name)
    assert total >= 6e9
    assert block == pytest.approx(100e6, rel=0.05)


def test_the_command_line_lists_the_benchmarks(capsys):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("cpu", "memory", "gpu", "memory-case"))


@pytest.fixture
def language_model(tmp_path):
    """A tiny Llama with a tokenizer, and a text in the form of WikiText-2."""
    model = tiny.llama_model()
    model.module.save_pretrained(tmp_path / "dense")
    processors.tokenizer().save_pretrained(tmp_path / "dense")
    for name in ("valid.txt", "test.txt"):
        (tmp_path / name).write_text("a photo of a red square " * 40)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["wanda", "sparsegpt", "admm", "literal wanda", "literal sparsegpt"]
)
def test_a_pass_beside_its_peers_tells_what_it_took_and_made(
    name, language_model, monkeypatch, capsys
):
    monkeypatch.setattr(peers, "WINDOW", 16)
    folders = [str(language_model / "dense"), str(language_model)]
    main(["peers-case", name, "--threads", "1", *folders])
    found = json.loads(capsys.readouterr().out)
    assert found["removed"] == pytest.approx(0.5, abs=0.01)
    # The kernel sums up the pages of its threads late: the peak may lie a little below.
    assert found["peak_mib"] > 0.99 * found["before_mib"] > 0
    assert found["perplexity"] > 1


def test_passes_are_set_beside_llm_compressors():
    rows = [
        {"pass": name, "seconds": s, "seconds_with_a_busy_core": 3 * s, "peak_mib": 10 * s}
        for name, s in [("wanda", 2), ("sparsegpt", 4), ("admm", 5)]
        + [("llm-compressor wanda", 3), ("llm-compressor sparsegpt", 10)]
    ]
    found = peers.compared(pd.DataFrame(rows).reindex(columns=peers.COLUMNS)).set_index("pass")
    assert found["times_faster"].tolist()[:3] == [1.5, 2.5, 2]
    assert found["times_faster_with_a_busy_core"].tolist()[:3] == [1.5, 2.5, 2]
    assert found["peak_to_theirs"].tolist()[:3] == pytest.approx([2 / 3, 0.4, 0.5])
    assert found["goal"].tolist()[3:] == ["", ""]
