"""The loss landscape against losses of weights that the test moves by itself."""

import pytest
import torch

from ecoflap.errors import ConfigError, ModelError
from ecoflap.evaluation.loss_landscape import direction, loss_landscape
from ecoflap.seeds import seed_from
from helpers import tiny


def loss(model, batches):
    with torch.no_grad():
        return sum(model.loss(batch).item() for batch in batches) / len(batches)


def test_each_point_is_the_loss_of_weights_moved_there():
    model = tiny.blip2_model()
    batches = tiny.batches(model)
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    table = loss_landscape(model, batches, radius=0.5, steps=3, seed=4)
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert len(table) == 9
    points = table.set_index(["x", "y"])["loss"]
    assert points[0.0, 0.0] == pytest.approx(loss(model, batches), rel=1e-6)
    with torch.no_grad():
        for matrix in model.matrices():
            weight = before[f"{matrix.name}.weight"]
            for number, step in enumerate((0.5, -0.5)):
                noise = direction(weight, seed_from("landscape", 4, matrix.name, number))
                assert torch.allclose(noise.norm(dim=1), weight.norm(dim=1), rtol=1e-5)
                matrix.module.weight.add_(step * noise)
    assert points[0.5, -0.5] == pytest.approx(loss(model, batches), rel=1e-5)
    assert points.nunique() == 9


def test_the_seed_decides_the_directions():
    model = tiny.llama_model()
    batches = tiny.batches(model, 1)
    tables = [loss_landscape(model, batches, radius=0.3, steps=3, seed=s) for s in (0, 0, 1)]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


@pytest.mark.parametrize(
    ("radius", "steps", "said"),
    [(0, 3, "radius 0"), (float("inf"), 3, "radius inf"), (1, 4, "steps 4"), (1, 1, "steps 1")],
)
def test_what_makes_no_grid_is_told(radius, steps, said):
    model = tiny.llama_model()
    with pytest.raises(ConfigError, match=said):
        loss_landscape(model, tiny.batches(model, 1), radius=radius, steps=steps)


def test_an_offloaded_model_is_refused(monkeypatch):
    model = tiny.llama_model()
    monkeypatch.setattr(type(model), "offload", "cpu")
    with pytest.raises(ModelError, match="offload='cpu'"):
        loss_landscape(model, tiny.batches(model, 1), radius=1, steps=3)
