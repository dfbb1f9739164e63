"""From text to packed rows of tokens with a weight for each target."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

ROW_TOKENS = 257  # 256 inputs and, shifted by one, 256 targets
OPEN_ROWS = 64
PROMPT_WEIGHT = 0.25
PROMPT_LABELS = ("Context", "Quiz", "Question", "Text", "Instruction")
ANSWER_LABELS = ("Answer", "Response", "Summary")


def weigh(ids: list[int], prompts: set[int], answers: set[int], colon: int, newline: int) -> list[float]:
    """One for what the model should learn to say, less for a prompt, whose strangers nobody can foretell."""
    if ids[1] not in prompts:
        return [0.0] + [1.0] * (len(ids) - 1)
    weights, weight, previous = [0.0], PROMPT_WEIGHT, -1
    for token in ids[1:-1]:
        if token == newline:
            weight = PROMPT_WEIGHT
        weights.append(weight)
        if token == colon and previous in answers:
            weight = 1.0
        previous = token
    return weights + [1.0]


def pack(documents: list[tuple[list[int], list[float]]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Places whole documents in rows, each in the fullest of a few open rows that has room."""
    rows: list[tuple[list[int], list[float]]] = []
    still_open: list[tuple[list[int], list[float]]] = []
    for ids, weights in documents:
        fitting = [row for row in still_open if len(row[0]) + len(ids) <= ROW_TOKENS]
        if fitting:
            row = max(fitting, key=lambda row: len(row[0]))
            row[0].extend(ids)
            row[1].extend(weights)
            if len(row[0]) < ROW_TOKENS - 8:
                continue
            still_open.remove(row)
            rows.append(row)
        else:
            if len(still_open) == OPEN_ROWS:
                still_open.sort(key=lambda row: len(row[0]))
                rows.append(still_open.pop())
            still_open.append((list(ids), list(weights)))
    rows += still_open
    tokens = np.full((len(rows), ROW_TOKENS), pad, dtype=np.int16)
    shares = np.zeros((len(rows), ROW_TOKENS), dtype=np.float16)
    for index, (ids, weights) in enumerate(rows):
        tokens[index, : len(ids)] = ids
        shares[index, : len(weights)] = weights
    return tokens, shares


def read_rows(corpus: Path, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and target weights, rows × `ROW_TOKENS`, of a corpus whose documents an empty line separates."""
    text = corpus.read_text(encoding="utf-8")
    end = tokenizer.token_to_id("</s>")

    def single(word: str) -> int:
        ids = tokenizer.encode(word, add_special_tokens=False).ids
        if len(ids) != 1:
            raise ValueError(f"the tokenizer splits {word!r} into {len(ids)} tokens, expected 1")
        return ids[0]

    prompts, answers = {single(w) for w in PROMPT_LABELS}, {single(w) for w in ANSWER_LABELS}
    colon, newline = single(":"), single("\n")
    documents = []
    texts = text.strip().split("\n\n")
    for start in range(0, len(texts), 50_000):
        for encoding in tokenizer.encode_batch_fast(texts[start : start + 50_000]):
            ids = [*encoding.ids, end]
            documents.append((ids, weigh(ids, prompts, answers, colon, newline)))
    return pack(documents, end)
