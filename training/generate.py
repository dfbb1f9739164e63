"""Writes the training text, the evaluation items and the texts beside the model.

The same seed gives the same bytes. Documents are separated by an empty line.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from documents import Author, Item
from world import make_world

WORLD_SEED = 1
TEXT_BYTES = 64 * 1024


def write_corpus(path: Path, author: Author, byte_count: int) -> None:
    """Writes whole documents until `byte_count` is reached."""
    written = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        while written < byte_count:
            written += file.write(author.document() + "\n\n")


def distinct(make: Callable[[], Item], count: int) -> list[Item]:
    """The first `count` items that differ in prompt."""
    items: dict[str, Item] = {}
    while len(items) < count:
        item = make()
        items.setdefault(item.prompt, item)
    return list(items.values())


def write_tasks(path: Path, author: Author, count: int) -> None:
    """Writes `count` evaluation items of each setting, one JSON object a line."""
    makers = (author.factoid, author.multiple_choice, author.in_context, author.summary, author.instruction)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for make in makers:
            for item in distinct(make, count):
                file.write(json.dumps(vars(item)) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="where to write the training text")
    parser.add_argument("--model", type=Path, required=True, help="folder for tasks.jsonl, calibration.txt, heldout.txt")
    parser.add_argument("--megabytes", type=float, default=80, help="size of the training text")
    parser.add_argument("--items", type=int, default=200, help="evaluation items in each setting")
    parser.add_argument("--seed", type=int, default=1, help="of the documents; the world has its own")
    options = parser.parse_args()

    world = make_world(WORLD_SEED)
    options.model.mkdir(parents=True, exist_ok=True)
    write_corpus(options.corpus, Author(world, options.seed, reserved=False), int(options.megabytes * 1e6))
    write_corpus(options.model / "calibration.txt", Author(world, options.seed + 1, reserved=False), TEXT_BYTES)
    write_corpus(options.model / "heldout.txt", Author(world, options.seed + 2, reserved=True), TEXT_BYTES)
    write_tasks(options.model / "tasks.jsonl", Author(world, options.seed + 3, reserved=True), options.items)


if __name__ == "__main__":
    main()
