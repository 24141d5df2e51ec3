"""Benchmarks: `python -m bench cpu`, `memory`, `gpu`, `deploy` or `peers`."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import cpu, deploy, gpu, memory, peers, report
from ecoflap.devices import resolve_device, set_threads
from ecoflap.measure import versions
from ecoflap_pipeline.job import write_utf8


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    whole = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = whole.add_subparsers(dest="name", required=True, metavar="NAME")
    helps = {
        "cpu": "speed against the literal algorithms, about 8 minutes on 2 cores",
        "memory": "peak memory, and pruning from disk; needs 20 GB of free space",
        "gpu": "BLIP-2 at its real size on a GPU, at most 8 minutes on an H100",
        "deploy": "dense layers and blocks against sparse ones, 5 to 10 minutes on 2 cores",
        "peers": "pruning passes beside llm-compressor's, about 15 minutes on 2 cores",
        "memory-case": "one case of `memory`, in this process; prints JSON",
        "peers-case": "one pass of `peers`, in this process; prints JSON",
    }
    parsers = {name: names.add_parser(name, help=text) for name, text in helps.items()}
    for name, command in parsers.items():
        command.description = helps[name]
        command.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
        if not name.endswith("-case"):
            where = {"type": Path, "default": Path("results/benchmarks")}
            command.add_argument("--results", **where, help="folder of the CSV and Markdown files")
    parsers["memory"].add_argument(
        "--scratch", type=Path, help="folder for the checkpoints; the system's temporary one if not"
    )
    for name in ("gpu", "deploy"):
        parsers[name].add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    for name in ("gpu", "deploy", "memory-case"):
        parsers[name].add_argument("--small", action="store_true", help="a tiny model instead")
    parsers["memory-case"].add_argument("case", choices=memory.CASES)
    parsers["memory-case"].add_argument("--folder", type=Path, help="checkpoint of offload-disk")
    parsers["peers-case"].add_argument("pruning_pass", choices=peers.PASSES, metavar="PASS")
    for name in ("peers", "peers-case"):
        parsers[name].add_argument("folder", type=Path, help="SmolLM2-135M, as it is prepared")
        parsers[name].add_argument("data", type=Path, help="valid.txt and test.txt of WikiText-2")
    return whole


def main(arguments: Sequence[str]) -> None:
    """Runs a benchmark, writes its files and shows its table."""
    options = parser().parse_args(arguments)
    write_utf8()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("ecoflap.pruning").setLevel(logging.WARNING)  # a line per block
    set_threads(options.threads)
    name, device = options.name, "cpu"
    if name.endswith("-case"):
        if name == "memory-case":
            found = memory.measure_case(options.case, folder=options.folder, small=options.small)
        else:
            found = peers.measure_case(
                options.pruning_pass, folder=options.folder, data=options.data
            )
        sys.stdout.write(json.dumps(found) + "\n")
        return
    if name == "cpu":
        frame, notes = cpu.run(), cpu.NOTES
    elif name == "memory":
        frame, notes = memory.run(options.threads, options.scratch), memory.NOTES
    elif name == "peers":
        frame = peers.run(options.threads, options.folder, options.data)
        found = versions(["llmcompressor", "compressed-tensors"])
        notes = (*peers.NOTES, ", ".join(f"{key} {value}" for key, value in found.items()))
    else:
        device = resolve_device(options.device)
        measured = {"gpu": gpu, "deploy": deploy}[name]
        frame, notes = measured.run(device, small=options.small)
        name = f"{name}-small" if options.small else name
    command = " ".join(["python -m bench", *arguments])
    text = report.write(
        name, frame, notes=notes, command=command, folder=options.results, device=device
    )
    sys.stdout.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
