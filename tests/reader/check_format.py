#!/usr/bin/env python3
"""Reads `.pith` files with pith_reader and compares what it finds with what Pith finds.

    check_format.py --pith target/release/pith FOLDER... [--checkpoint FOLDER...]

Each checkpoint, a Hugging Face folder, is first converted to every encoding by `pith convert`.

For each `*.pith` of the folders, and for each that was converted: all checks and checksums of the
format, and whether `pith inspect --verify` takes the file; then the values of the tensors against
`expected.json` of the folder, where it lists the file (xxh3-64 of a tensor's values: f32,
little-endian, row after row); then against `pith export`; then the tokenizer against `pith
detokenize` and `pith tokenize`. All comparisons are to the bit.

Exported tensors may have other names, be transposed, and be several of a layer's tensors one below
the other. Which is which is found by the values, within the layer that the name tells. Names of
Hugging Face's Llama must be those of the right tensor. Every tensor of both sides must be found.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

import pith_reader
from pith_reader import BYTES, ENCODINGS, MATRIX, NONE

LLAMA = {
    "model.embed_tokens.weight": "embedding.token", "model.norm.weight": "output.norm",
    "lm_head.weight": "output.head", "self_attn.q_proj.weight": "attention.query",
    "self_attn.k_proj.weight": "attention.key", "self_attn.v_proj.weight": "attention.value",
    "self_attn.o_proj.weight": "attention.output", "self_attn.q_proj.bias": "attention.query.bias",
    "self_attn.k_proj.bias": "attention.key.bias", "self_attn.v_proj.bias": "attention.value.bias",
    "mlp.gate_proj.weight": "ffn.gate", "mlp.up_proj.weight": "ffn.up",
    "mlp.down_proj.weight": "ffn.down",
}


class Report:
    """What was read, compared and found to differ."""

    def __init__(self):
        self.files = self.tensors = self.not_exported = 0
        self.compared = Counter()       # matrices that were compared, for each encoding
        self.exported = Counter()       # those of them that were compared with export
        self.problems = []

    def problem(self, message):
        print(f"  DIFFERS: {message}")
        self.problems.append(message)


def run(command, **options):
    return subprocess.run(command, capture_output=True, timeout=600, **options)


def safetensors(path):
    """{name: float32 array} of a file whose tensors are all f32."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        pith_reader.require(entry["dtype"] == "F32", f"export: {name} is {entry['dtype']}")
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[8 + size + begin:8 + size + end], "<f4")
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def export(pith, path, like):
    """Runs `pith export`. Gives (tensors, None), or (None, the reason why there are none)."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "export")
        command = [pith, "export", "--quiet", "--dtype", "f32", "--output", out, path]
        done = run(command + (["--like", like] if like else []))
        if done.returncode != 0:
            reason = done.stderr.decode(errors="replace").strip().splitlines()
            return None, reason[-1] if reason else f"export ended with {done.returncode}"
        tensors = {}
        for file in sorted(out.glob("*.safetensors")):
            tensors |= safetensors(file)
        return tensors, None


def same(a, b):
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def layer_of(name):
    """The layer in an exported name: its first number, as in `model.layers.3.mlp.up_proj`."""
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    return numbers[0] if numbers else NONE


def stack(values, candidates):
    """Names of candidates that, one below the other, are `values`; None if there are none."""
    names, at = [], 0
    by_length = sorted(candidates, key=lambda name: -len(candidates[name]))
    while at < len(values):
        for name in by_length:
            part = candidates[name]
            if name not in names and same(part, values[at:at + len(part)]):
                names.append(name)
                at += len(part)
                break
        else:
            return None
    return names


def forms(values, layer):
    """An exported tensor in the forms in which the file may hold it."""
    yield values
    if values.ndim == 2:
        yield values.T
    else:
        yield values + np.float32(1)            # Gemma's norms, which add the 1 themselves
    heads = len(layer.get("mixer", {}).get("query_heads", []))
    if heads and len(values) % (3 * heads) == 0:    # GPT-NeoX: query, key, value of each head
        parts = values.reshape(heads, 3, -1, *values.shape[1:])
        yield parts.swapaxes(0, 1).reshape(values.shape)


def compare_export(entries, tensors, layers, exported, report):
    """Finds each exported tensor among the file's. Returns names of those that are the same."""
    left, found = dict(tensors), set()
    if "output.head.residual" in left:      # an exported head is the sum, in f32
        head = "output.head" if "output.head" in left else "embedding.token"
        left[head] = left[head] + left.pop("output.head.residual")
    places = {entry.name: (entry.layer, entry.role) for entry in entries}
    for name, values in exported.items():
        layer = layer_of(name)
        role = LLAMA.get(name.removeprefix(f"model.layers.{layer}."))
        candidates = {key: part for key, part in left.items()
                      if places[key] == (layer, role or places[key][1])}
        config = layers[layer] if layer < len(layers) else {}
        stacks = (stack(form, candidates) for form in forms(values, config))
        names = next(filter(None, stacks), None)
        if names is None:
            report.problem(f"export: {name} is none of the file's tensors")
        for key in names or []:
            del left[key]
            found.add(key)
    for key in left:
        report.problem(f"export: {key} is none of the exported tensors")
    if "output.head.residual" in tensors and head in found:
        found.add("output.head.residual")
    return found


def value_checksum(values):
    return f"{pith_reader.xxh3(values.astype('<f4').tobytes()):016x}"


def compare_expected(tensors, expected, report):
    """Compares checksums of values. Returns names of the tensors that are the same."""
    found = set()
    for name, checksum in expected.items():
        if name not in tensors:
            report.problem(f"expected.json: there is no tensor {name}")
        elif value_checksum(tensors[name]) != checksum:
            report.problem(f"expected.json: the values of {name} differ")
        else:
            found.add(name)
    for name in tensors.keys() - expected.keys():
        report.problem(f"expected.json: it lacks {name}")
    return found


def compare_tokenizer(pith, path, vocabulary, ids, report):
    """Decodes all ids, and `ids` of expected.json; then encodes the text of the latter."""
    sequences = [[i for i, (kind, _) in enumerate(vocabulary.tokens) if kind != pith_reader.ABSENT]]
    sequences += [ids] if ids else []
    for sequence in sequences:
        done = run([pith, "detokenize", path], input=" ".join(map(str, sequence)).encode())
        if done.returncode != 0:
            report.problem(f"detokenize: {done.stderr.decode(errors='replace').strip()}")
        elif done.stdout.removesuffix(b"\n") != \
                vocabulary.decode(sequence).encode().removesuffix(b"\n"):
            report.problem("detokenize: the text differs")
    if ids:
        text = vocabulary.decode(ids).encode()
        done = run([pith, "tokenize", "--json", "--file", "-", path], input=text)
        if done.returncode != 0:
            report.problem(f"tokenize: {done.stderr.decode(errors='replace').strip()}")
            return
        found = json.loads(done.stdout)
        pieces = [vocabulary.piece(i).decode(errors="replace") for i in found["ids"]]
        if pieces != found["pieces"]:
            report.problem("tokenize: the pieces of the ids differ")
    print(f"  tokenizer: {len(vocabulary.tokens)} tokens decoded, {len(ids or [])} ids of the text")


def matrices(entries, names):
    """The name of the encoding of each matrix among the named tensors."""
    return [ENCODINGS[e.encoding][0] for e in entries if e.kind == MATRIX and e.name in names]


def check_file(program, path, expected, report, like=None):
    print(path.name)
    try:
        pith = pith_reader.read(path)
        tensors = {e.name: pith.tensor(e.name) for e in pith.entries if e.kind != BYTES}
        vocabulary = pith.vocabulary()
    except pith_reader.FormatError as error:
        report.problem(f"the reader refuses it: {error}")
        return
    report.files += 1
    done = run([program, "inspect", "--verify", path])
    if done.returncode != 0:
        report.problem(f"pith refuses it: {done.stderr.decode(errors='replace').strip()}")
        return
    found = set()
    if "tensors" in expected:
        found |= compare_expected(tensors, expected["tensors"], report)
        print(f"  compared with expected.json: {len(found)} of {len(tensors)} tensors")
    exported, reason = export(program, path, like)
    if exported is None:
        print(f"  not compared with export: {reason}")
        report.not_exported += 1
    else:
        same_names = compare_export(
            pith.entries, tensors, pith.metadata["model"]["layers"], exported, report)
        print(f"  compared with export: {len(same_names)} of {len(tensors)} tensors")
        report.exported.update(matrices(pith.entries, same_names))
        found |= same_names
    if vocabulary:
        compare_tokenizer(program, path, vocabulary, expected.get("ids"), report)
    report.tensors += len(found)
    report.compared.update(matrices(pith.entries, found))


def check_checkpoint(program, checkpoint, report):
    """Converts a checkpoint to every encoding and checks the files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, *_ in ENCODINGS.values():
            path = Path(folder, f"{checkpoint.name}-{name}.pith")
            done = run([program, "convert", "--quiet", "--encoding", name, checkpoint, path])
            if done.returncode != 0:
                report.problem(f"convert: {done.stderr.decode(errors='replace').strip()}")
            else:
                check_file(program, path, {}, report, checkpoint)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pith", required=True, type=os.path.abspath, help="the program pith")
    parser.add_argument("--checkpoint", nargs="+", type=Path, default=[], help="Hugging Face "
                        "folders, to compare every encoding with export")
    parser.add_argument("folders", nargs="+", type=Path, help="folders of .pith files")
    args = parser.parse_args()
    report = Report()
    for folder in args.folders:
        listed = folder / "expected.json"
        expected = json.loads(listed.read_text()) if listed.exists() else {}
        for path in sorted(folder.glob("*.pith")):
            check_file(args.pith, path, expected.get(path.stem, {}), report)
        for name in expected.keys() - {path.stem for path in folder.glob("*.pith")}:
            report.problem(f"{folder}: expected.json lists {name}, which is not there")
    for checkpoint in args.checkpoint:
        check_checkpoint(args.pith, checkpoint.resolve(), report)
    for name, *_ in ENCODINGS.values():
        if not report.compared[name]:
            report.problem(f"no tensor was compared in {name}")
        if args.checkpoint and not report.exported[name]:
            report.problem(f"no tensor was compared with export in {name}")
    if not report.files:
        report.problem("no file was read")
    counts = ", ".join(f"{report.exported[name]} {name}" for name, *_ in ENCODINGS.values())
    print(f"matrices compared with export: {counts}")
    print(f"{report.files} files read, {report.tensors} tensors compared to the bit, "
          f"{report.not_exported} files not exportable, {len(report.problems)} differences")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
