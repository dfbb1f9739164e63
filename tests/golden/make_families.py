#!/usr/bin/env python3
"""Writes families/NAME for every row of checkpoints.py: a small random checkpoint and its golden logits.

    make_families.py            write all (or --only NAME ...)
    make_families.py --check    make them again elsewhere, compare every tensor, recompute the logits

The logits are those of the checkpoint loaded back from the folder, in float32.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy
import torch
import transformers
from safetensors.torch import load_file

import checkpoints
import legacy

FOLDER = Path(__file__).parent / "families"
# Between two builds of torch sums are taken in another order; f32 keeps this much of the largest logit.
TOLERANCE = 1e-5


def write(checkpoint, root):
    """Writes one folder; a 4.x form must load to the very logits that the 5.x form gave."""
    folder = root / checkpoint.name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    model = checkpoints.build(checkpoint).to(getattr(torch, checkpoint.dtype))
    model.save_pretrained(folder, max_shard_size=checkpoint.shard or "1GB")
    logits = checkpoints.logits(checkpoints.load(folder), checkpoints.TOKENS)
    if checkpoint.legacy:
        legacy.rewrite(checkpoint.name, folder)
        again = checkpoints.logits(checkpoints.load(folder), checkpoints.TOKENS)
        if not numpy.array_equal(logits, again):
            sys.exit(f"{checkpoint.name}: the 4.x form gives other logits, apart by {numpy.abs(logits - again).max()}")
    numpy.save(folder / "logits.npy", logits)
    if checkpoint.short_count:
        short = checkpoints.logits(checkpoints.load(folder), checkpoints.TOKENS[: checkpoint.short_count])
        numpy.save(folder / "logits_short.npy", short)
    return logits


def stored(folder):
    """Every tensor of a folder's safetensors files."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def check(checkpoint, root):
    """Problems found between the committed folder and what this machine makes."""
    committed, made = FOLDER / checkpoint.name, root / checkpoint.name
    write(checkpoint, root)
    problems = []
    if json.loads((committed / "config.json").read_text()) != json.loads((made / "config.json").read_text()):
        problems.append("config.json differs")
    left, right = stored(committed), stored(made)
    if left.keys() != right.keys():
        problems.append(f"tensors differ: {sorted(left.keys() ^ right.keys())}")
    problems += [f"{name} differs" for name in left.keys() & right.keys() if not torch.equal(left[name], right[name])]
    model = checkpoints.load(committed)
    for path in sorted(committed.glob("logits*.npy")):
        golden = numpy.load(path)
        found = checkpoints.logits(model, checkpoints.TOKENS[: len(golden)])
        apart = numpy.abs(golden - found).max() / numpy.abs(golden).max()
        if not apart <= TOLERANCE:
            problems.append(f"{path.name} is off by {apart:.1e} of its largest value")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these checkpoints alone")
    options = parser.parse_args()
    chosen = [row for row in checkpoints.CHECKPOINTS if not options.only or row.name in options.only]
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    failed = False
    if options.check:
        if json.loads((FOLDER / "tokens.json").read_text()) != checkpoints.TOKENS:
            sys.exit("tokens.json differs")
        with tempfile.TemporaryDirectory() as root:
            for checkpoint in chosen:
                problems = check(checkpoint, Path(root))
                failed |= bool(problems)
                print(f"{checkpoint.name:20} {'; '.join(problems) or 'same'}")
        sys.exit(failed)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "tokens.json").write_text(json.dumps(checkpoints.TOKENS) + "\n")
    for checkpoint in chosen:
        logits = write(checkpoint, FOLDER)
        size = sum(path.stat().st_size for path in (FOLDER / checkpoint.name).iterdir())
        print(
            f"{checkpoint.name:20} {size:8} bytes, logits deviate by {logits.std():.2f}, reach {numpy.abs(logits).max():.2f}"
        )


if __name__ == "__main__":
    main()
