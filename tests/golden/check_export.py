#!/usr/bin/env python3
"""Exports a checkpoint that Pith compressed, and compares the logits of `transformers` over the export with Pith's.

    check_export.py PITH FOLDER [--encoding q4] [--tokens 64]

PITH is the command. FOLDER is converted to the encoding, exported in float32 and, for Pith's side, the export converted to
f32, so that both compute with the same weights and neither rounds what it multiplies them with.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import torch
import transformers

TOLERANCE = 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pith")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoding", default="q4")
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)

        def pith(*arguments):
            subprocess.run([options.pith, *map(str, arguments)], check=True)

        pith("convert", options.folder, place / "packed.pith", "--encoding", options.encoding, "--quiet")
        pith("export", place / "packed.pith", "-o", place / "export", "--like", options.folder, "--dtype", "f32")
        pith("convert", place / "export", place / "plain.pith", "--encoding", "f32", "--quiet")
        model = transformers.AutoModelForCausalLM.from_pretrained(
            place / "export", dtype=torch.float32, attn_implementation="eager"
        ).eval()
        ids = random.Random("pith export").choices(range(model.config.vocab_size), k=options.tokens)
        out = place / "logits.npy"
        pith("logits", place / "plain.pith", "--tokens", ",".join(map(str, ids)), "-o", out, "--kv", "f32")
        with torch.no_grad():
            expected = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
        found = numpy.load(place / "logits.npy")
    apart = numpy.abs(found - expected).max() / numpy.abs(expected).max()
    print(f"{options.folder.name}, {options.encoding}: apart by {apart:.1e} of the largest logit")
    sys.exit(not apart <= TOLERANCE)


if __name__ == "__main__":
    main()
