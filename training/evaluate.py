"""Greedy exact match on a model's evaluation items, by setting.

An item counts when greedy decoding of its prompt begins with its answer. That is so
exactly when, at every position of the answer, the likeliest token is the answer's;
one pass over prompt and answer therefore decides it.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model import Wren, load_folder

PROBES_PER_BATCH = 50


@dataclass(frozen=True)
class Probe:
    """An item as tokens: the prompt's, beginning with `<s>`, and the answer's."""

    task: str
    prompt: list[int]
    answer: list[int]


def read_probes(path: Path, tokenizer: Tokenizer) -> list[Probe]:
    """The items of a `tasks.jsonl`."""
    probes = []
    for line in path.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        prompt = tokenizer.encode(item["prompt"]).ids
        answer = tokenizer.encode(item["answer"], add_special_tokens=False).ids
        probes.append(Probe(item["task"], prompt, answer))
    return probes


@torch.no_grad()
def matches(model: Wren, probes: list[Probe]) -> list[bool]:
    """Whether greedy decoding gives each probe's answer."""
    found = []
    for start in range(0, len(probes), PROBES_PER_BATCH):
        part = probes[start : start + PROBES_PER_BATCH]
        tokens = torch.zeros(len(part), max(len(p.prompt) + len(p.answer) for p in part), dtype=torch.long)
        for row, probe in enumerate(part):
            ids = probe.prompt + probe.answer
            tokens[row, : len(ids)] = torch.tensor(ids)
        likeliest: Tensor = model(tokens).argmax(-1)
        for row, probe in enumerate(part):
            first = len(probe.prompt) - 1
            found.append(likeliest[row, first : first + len(probe.answer)].tolist() == probe.answer)
    return found


def perplexity(model: Wren, tokenizer: Tokenizer, path: Path) -> float:
    """Of the documents in `path`, each alone, `</s>` included."""
    nats, count = 0.0, 0
    for text in path.read_text(encoding="utf-8").strip().split("\n\n"):
        ids = torch.tensor([[*tokenizer.encode(text).ids, tokenizer.token_to_id("</s>")]])
        with torch.no_grad():
            logits = model(ids[:, :-1])[0]
        nats += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return float(torch.tensor(nats / count).exp())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--tasks", type=Path, help="default: tasks.jsonl in the folder")
    parser.add_argument("--text", type=Path, help="also report the perplexity of this file's documents")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    model = load_folder(options.model).eval()
    probes = read_probes(options.tasks or options.model / "tasks.jsonl", tokenizer)
    by_task: dict[str, list[bool]] = defaultdict(list)
    for probe, right in zip(probes, matches(model, probes)):
        by_task[probe.task].append(right)
    print(f"{'setting':<16} {'right':>5} {'of':>5} {'%':>6}")
    for task, rights in by_task.items():
        print(f"{task:<16} {sum(rights):>5} {len(rights):>5} {100 * sum(rights) / len(rights):>6.1f}")
    if options.text:
        print(f"perplexity of {options.text.name}: {perplexity(model, tokenizer, options.text):.3f}")


if __name__ == "__main__":
    main()
