"""Two small models for demonstrations, trained on a CPU: `demo-blip2` and `demo-clip`."""

from pathlib import Path

MODELS = ("demo-blip2", "demo-clip")


def train_demo_model(model: str, folder: Path, *, seed: int) -> None:
    """Train a demo model from scratch and save it with its processor and training log.

    Args:
        model: One of `MODELS`.
        folder: Where to write.
        seed: With the same number of threads the same seed gives the same model.

    Raises:
        ValueError: Unknown model.
    """
    if model == "demo-blip2":
        from demo.train_blip2 import train_blip2 as train
    elif model == "demo-clip":
        from demo.train_clip import train_clip as train
    else:
        raise ValueError(f"unknown demo model {model!r}: choose from {', '.join(MODELS)}")
    train(folder, seed)
