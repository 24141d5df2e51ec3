"""Train a demo model without Snakemake: `python -m demo demo-blip2 FOLDER --seed 0`."""

import argparse
import logging
from pathlib import Path

from demo import MODELS, train_demo_model
from ecoflap.devices import set_threads

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    set_threads(arguments.threads)
    train_demo_model(arguments.model, arguments.folder, seed=arguments.seed)
