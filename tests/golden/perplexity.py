#!/usr/bin/env python3
"""Prints the perplexity that transformers computes in float32 of a text, as JSON.

    perplexity.py FOLDER TEXT --context 512 [--bytes 65536]

The text is tokenized whole, without special tokens, and cut into windows that do not overlap. Each window is fed as the
beginning-of-text token and `context - 1` tokens of the text (the last window may be shorter), and every token of the
text is scored once: perplexity = exp(mean negative log likelihood). A tokenizer without a beginning-of-text token gives
windows of `context` tokens whose first is not scored.
"""

import argparse
import json
import math

import torch
import transformers

import checkpoints


def read_text(path, limit):
    """The first `limit` bytes, without a character that the cut has split."""
    with open(path, "rb") as file:
        data = file.read(limit)
    return data.decode("utf-8", errors="strict" if limit < 0 else "ignore")


def windows(ids, context, bos):
    if bos is None:
        return [ids[start : start + context] for start in range(0, len(ids), context)]
    return [[bos] + ids[start : start + context - 1] for start in range(0, len(ids), context - 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("text")
    parser.add_argument("--context", type=int, default=512, help="tokens a window, beginning-of-text included")
    parser.add_argument("--bytes", type=int, default=-1, help="read only so many bytes of the text")
    options = parser.parse_args()
    if options.context < 2:
        parser.error("--context must be at least 2")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.folder)
    ids = tokenizer(read_text(options.text, options.bytes), add_special_tokens=False, verbose=False)["input_ids"]
    model = checkpoints.load(options.folder)
    length = getattr(model.config, "max_position_embeddings", options.context)
    if options.context > length:
        parser.error(f"--context {options.context} is beyond the model's {length}")
    total, scored, cut = 0.0, 0, windows(ids, options.context, tokenizer.bos_token_id)
    with torch.no_grad():
        for window in cut:
            if len(window) < 2:
                continue
            fed = torch.tensor([window])
            logits = model(fed, use_cache=False).logits[0, :-1].double()
            total += torch.nn.functional.cross_entropy(logits, fed[0, 1:], reduction="sum").item()
            scored += len(window) - 1
    if not scored:
        parser.error("the text has no token to score")
    mean = total / scored
    result = dict(
        perplexity=math.exp(mean), mean_nll=mean, scored_tokens=scored, windows=len(cut), context=options.context
    )
    print(json.dumps(result | dict(bos=tokenizer.bos_token_id)))


if __name__ == "__main__":
    main()
