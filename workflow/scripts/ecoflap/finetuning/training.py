"""Fine-tuning after pruning, in which nothing that was pruned comes back."""

import copy
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from ecoflap import artifacts
from ecoflap.errors import ConfigError, ModelError, PruningError
from ecoflap.finetuning import data, lora, masks, resume, snapshot
from ecoflap.finetuning.objective import Objective
from ecoflap.finetuning.settings import checked
from ecoflap.finetuning.step_settings import step_problems
from ecoflap.measure import Cost
from ecoflap.seeds import seed_from

if TYPE_CHECKING:
    import pandas as pd

    from ecoflap.models.model import Model

log = logging.getLogger(__name__)
COLUMNS = ("loss", "learning_rate", "held_out_loss")
STOPS = 10  # in a run, at most: where held-out loss is measured and a checkpoint written
WORKERS = 4  # processes that read pictures for a GPU


def finetune(
    model: "Model",
    settings: Mapping,
    *,
    seed: int = 0,
    teacher: "Model | None" = None,
    batch_size: int = 32,
    checkpoint: str | Path | None = None,
    head: Mapping = MappingProxyType({}),
    cost: Cost | None = None,
) -> "pd.DataFrame":
    """Trains a pruned model in place with AdamW; what was pruned stays exactly zero.

    ``full`` trains every parameter of the model, as the paper's code does, and sets what was pruned
    to zero after each step; ``sparselora`` trains a masked low-rank update of each prunable matrix
    and merges it. The learning rate follows a cosine to zero. Data and randomness of a step come
    from the seed and the step's number alone. Started by ``accelerate launch``, each process takes
    its part of every batch; gradients are averaged over them. A run that ends in an error, Ctrl-C
    too, leaves the model as it was.

    Args:
        model: A pruned model in float32, on its device (with several processes each on its own).
            With ``full`` a copy of its weights waits on the host.
        settings: An entry of config/finetuning.yaml with its data located; its defaults need not
            be there.
        seed: Decides the data, their order and the start of the updates.
        teacher: The dense model, for ``distillation``.
        batch_size: Samples per forward; a step of more of them adds up gradients.
        checkpoint: File that a killed run goes on from; written after about each tenth of the run.
            Whoever has stored the result deletes it.
        head: Header of what is being made; a checkpoint with another one, or of a run with other
            settings, another seed, batch_size or teacher, or from other weights, is refused.
        cost: The measurement that this call is in; it counts what a killed run had cost at the
            checkpoint.

    Returns:
        A row per step: step (from 1), loss, learning_rate, held_out_loss (NaN between the stops).

    Raises:
        ConfigError: for settings that fit no run or not this model, or too few examples for them.
        DataError: if the data have fewer examples than asked for, or a batch less than a sample for
            each process.
        ArtifactError: if the checkpoint is of another run.
        PruningError: if a loss or a weight is not finite (a checkpoint is deleted then: from
            there the run would only fail again), or a pruned weight came back.
    """
    import pandas as pd

    settings = checked(model, settings, batch_size=batch_size, seed=seed)
    _check(model, settings, teacher)
    gone = masks.removed(model)
    state = {
        "schema_version": artifacts.SCHEMA_VERSION,
        **head,
        "settings": settings,
        "seed": seed,
        "batch_size": batch_size,
    }
    if checkpoint:
        state["weights_before"] = snapshot.digest(model, gone)
        state["weights_of_the_teacher"] = snapshot.digest(teacher) if teacher else None
    state = json.loads(json.dumps(state, default=str))  # as it will be read again
    full = settings["method"] == "full"
    names = [name for name, _ in model.module.named_parameters()] if full else []
    with snapshot.as_found(model, names):
        run = _Run(model, settings, gone, seed=seed, teacher=teacher, batch_size=batch_size)
        try:
            curve = run.go(Path(checkpoint) if checkpoint else None, state, cost)
        finally:
            run.objective.close()
        masks.check(model, gone)
    model.history.append(("fine-tuning", copy.deepcopy({**settings, "seed": seed})))
    table = pd.DataFrame(curve.numpy(), columns=COLUMNS)
    table.insert(0, "step", range(1, len(table) + 1))
    held_out = table["held_out_loss"].dropna()
    if len(held_out) > 1 and held_out.iloc[-1] >= held_out.iloc[0]:
        text = "the held-out loss is no lower at the end (%.4f) than at the first stop (%.4f)"
        log.warning(text, held_out.iloc[-1], held_out.iloc[0])
    return table


def learning_rate(step: int, steps: int, *, peak: float, warmup: int) -> float:
    """Returns the rate of a step, from 0: up in a line, then down a cosine that ends at 0."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def trained_beside_matrices(model: "Model", settings: Mapping) -> dict[str, torch.Tensor]:
    """Returns what `finetune` trained besides the prunable matrices, by its name in the model."""
    if settings["method"] == "sparselora":
        return {}
    matrices = {f"{matrix.name}.weight" for matrix in model.matrices()}
    named = model.module.named_parameters()
    return {name: parameter for name, parameter in named if name not in matrices}


class _Run:
    """What the steps of one run share."""

    def __init__(
        self,
        model: "Model",
        settings: Mapping,
        gone: dict[str, torch.Tensor],
        *,
        seed: int,
        teacher: "Model | None",
        batch_size: int,
    ):
        self.model, self.settings, self.gone, self.seed = model, settings, gone, seed
        self.batch_size, self.low_rank = batch_size, settings["method"] == "sparselora"
        # Buckets of unused parameters would wait for each other forever without this.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(
            cpu=model.device.type == "cpu",
            device_placement=False,
            mixed_precision="no",  # the objective has its own autocast
            kwargs_handlers=[unused],
        )
        train, self.held_out = data.draw(model, settings["data"], seed)
        share = (self.accelerator.process_index, self.accelerator.num_processes)
        for problem in step_problems(settings, len(train)):
            raise ConfigError(problem)
        keys = ("batch_size", "epochs")
        chosen = {key: settings[key] for key in keys}
        self.data = data.Steps(model, train, seed=seed, share=share, **chosen)
        self.trained = self._trained()
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), weight_decay=settings["weight_decay"], fused=True
        )
        self.objective = Objective(
            model,
            precision=settings["precision"],
            teacher=teacher,
            weight=settings.get("distillation", 0.0),
        )
        self.loss = self.accelerator.prepare(self.objective)

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        if self.low_rank:
            return lora.add(self.model, self.gone, rank=self.settings["rank"], seed=self.seed)
        self.model.module.requires_grad_(True)
        return dict(self.model.module.named_parameters())

    def go(self, checkpoint: Path | None, head: Mapping, cost: Cost | None) -> torch.Tensor:
        """Trains to the end; returns the curve, float64 [steps, 3]."""
        steps = len(self.data)
        every = -(-steps // STOPS)
        curve = torch.zeros(0, len(COLUMNS), dtype=torch.float64)
        state = {"trained": self.trained, "optimizer": self.optimizer}
        if checkpoint is not None and checkpoint.exists():
            curve, spent = resume.load(checkpoint, head, **state)
            if cost is not None:
                cost.earlier = spent
            log.info("going on at step %d of %d", len(curve), steps)
        first = len(curve)
        loader = DataLoader(
            Subset(self.data, range(first, steps)),
            batch_size=None,
            num_workers=WORKERS if self.model.device.type == "cuda" else 0,
        )
        rows = list(curve)
        batches = tqdm(loader, desc="fine-tuning", unit="step", disable=None)
        for step, batch in enumerate(batches, start=first):
            loss, rate = self._step(step, batch)
            stop = (step + 1) % every == 0 or step + 1 == steps
            held_out = self._held_out_loss() if stop else math.nan
            if trouble := self._trouble(loss, held_out, stop=stop):
                if checkpoint is not None and self.accelerator.is_main_process:
                    checkpoint.unlink(missing_ok=True)
                raise PruningError(
                    f"at step {step + 1} {trouble}",
                    allowed="finite losses and weights",
                    fix="Lower the learning rate, or set precision: float32.",
                )
            rows.append(torch.tensor([loss, rate, held_out], dtype=torch.float64))
            if stop:
                further = f", held-out loss {held_out:.4f}" if self.held_out else ""
                log.info("step %d of %d: loss %.4f%s", step + 1, steps, loss, further)
            if stop and checkpoint is not None and self.accelerator.is_main_process:
                spent = cost.so_far() if cost is not None else None
                resume.save(checkpoint, head, curve=torch.stack(rows), spent=spent, **state)
        if self.low_rank:
            lora.merge(self.model)
        return torch.stack(rows)

    def _step(self, step: int, batch: data.Batch) -> tuple[float, float]:
        """Takes one step; returns its loss and its learning rate."""
        rate = learning_rate(
            step,
            len(self.data),
            peak=self.settings["learning_rate"],
            warmup=self.settings["warmup"],
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(seed_from("fine-tuning", self.seed, step, self.data.share[0]))
        self.model.module.train()
        # Gradients are averaged over processes, whose parts of a batch may differ by a sample.
        count, total = self.data.batch_size / self.data.share[1], 0.0
        parts = list(data.pieces(self.model.to_device(batch), self.batch_size))
        for number, part in enumerate(parts, start=1):
            share = len(next(iter(part.values()))) / count
            # Processes meet once a step, at its last piece.
            with _together(self.accelerator, self.loss, number == len(parts)):
                loss = self.loss(part) * share
                self.accelerator.backward(loss)
            total += loss.detach()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if not self.low_rank:
            masks.apply(self.model, self.gone)
        return self.accelerator.reduce(total, reduction="mean").item(), rate

    def _trouble(self, loss: float, held_out: float, *, stop: bool) -> str | None:
        """Returns what is not finite after a step; weights are looked at where a run stops."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if stop and not all(
            bool(parameter.isfinite().all()) for parameter in self.trained.values()
        ):
            return "a weight is not finite"
        if stop and self.held_out and not math.isfinite(held_out):
            return f"the held-out loss is {held_out}"
        return None

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        """Returns the mean loss of the held-out samples, without the teacher; NaN if none are."""
        self.model.module.eval()
        total = 0.0
        for part in data.evenly(torch.arange(len(self.held_out)), self.batch_size):
            items = [self.held_out[i] for i in part.tolist()]
            batch = self.model.to_device(data.encode(self.model, items, self.seed, "held-out"))
            total += len(items) * self.objective.task_loss(batch).double().item()
        return total / len(self.held_out) if self.held_out else math.nan


@contextmanager
def _together(accelerator: Accelerator, module: torch.nn.Module, last: bool) -> Iterator[None]:
    if last:
        yield
    else:
        with accelerator.no_sync(module):
            yield


def _check(model: "Model", settings: Mapping, teacher: "Model | None") -> None:
    if settings["method"] == "sparselora":
        lora.check_rank(model, settings["rank"])
    if ("distillation" in settings) != (teacher is not None):
        seen, remedy = "a teacher without distillation", "Set distillation, or pass no teacher."
        if teacher is None:
            seen, remedy = "distillation without a teacher", "Pass the dense model as teacher."
        raise ConfigError(seen, allowed="both or none", fix=remedy)
    if teacher is not None and getattr(teacher, "module", model.module) is model.module:
        seen = "a teacher that is no other model"
        raise ConfigError(seen, allowed="the dense model, loaded by ecoflap.load", fix="Load it.")
    dtype = next(model.module.parameters()).dtype
    if model.offload != "none" or dtype != torch.float32:
        raise ModelError(
            f"fine-tuning a model in {dtype} with offload='{model.offload}'",
            allowed="float32 weights on the device (precision: bfloat16 computes in bfloat16)",
            fix="Load it with dtype='float32', offload='none'.",
        )
