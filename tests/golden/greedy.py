#!/usr/bin/env python3
"""Prints the greedy continuation that transformers computes in float32, as JSON {prompt_ids, ids, text}.

    greedy.py FOLDER "Once upon a time" 200
    greedy.py FOLDER --tokens "1 403 407" 200

`prompt_ids` are what the tokenizer makes of the prompt, its own special tokens included; `ids` and `text` are what
follows. An end-of-text token ends the text and is not part of it, unless --ignore-eos.
"""

import argparse
import json

import torch
import transformers

import checkpoints


def end_ids(model):
    """Ids that end a text: generation_config.json's where there is one, config.json's otherwise."""
    ids = model.generation_config.eos_token_id
    ids = model.config.eos_token_id if ids is None else ids
    return set() if ids is None else set(ids) if isinstance(ids, list) else {ids}


def continue_greedily(model, prompt_ids, count, ends):
    """Up to `count` ids, each the first of the largest logits."""
    ids, fed, cache = [], torch.tensor([prompt_ids]), None
    with torch.no_grad():
        while len(ids) < count:
            output = model(fed, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            best = int(output.logits[0, -1].argmax())
            if best in ends:
                break
            ids.append(best)
            fed = torch.tensor([[best]])
    return ids


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("prompt", nargs="?", help="text; or give --tokens")
    parser.add_argument("count", type=int)
    parser.add_argument("--tokens", help="ids separated by spaces, for a folder without a tokenizer too")
    parser.add_argument("--ignore-eos", action="store_true")
    options = parser.parse_args()
    if (options.prompt is None) == (options.tokens is None):
        parser.error("give a prompt or --tokens")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = None
    if options.tokens is None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(options.folder)
        prompt_ids = tokenizer(options.prompt)["input_ids"]
    else:
        prompt_ids = [int(word) for word in options.tokens.split()]
    model = checkpoints.load(options.folder)
    ids = continue_greedily(model, prompt_ids, options.count, set() if options.ignore_eos else end_ids(model))
    text = None
    if tokenizer:
        # Decoded together and cut: pieces may carry a space that is dropped only at the start of a text.
        start = tokenizer.decode(prompt_ids, skip_special_tokens=True)
        text = tokenizer.decode(prompt_ids + ids, skip_special_tokens=True)[len(start) :]
    print(json.dumps(dict(prompt_ids=prompt_ids, ids=ids, text=text), ensure_ascii=False))


if __name__ == "__main__":
    main()
