"""Opens the model with `transformers`, compares its logits with `model.py` and lets it speak."""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from model import load_folder

PROMPTS = ("Once upon a time", "The village of", "Long ago there lived")
QUESTIONS = ("Who are you?", "Tell me a story about a heron.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--ask", action="append", default=[], help="a further question; may be repeated")
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    ids = tokenizer("The village of Wickbury lies on", return_tensors="pt").input_ids
    with torch.no_grad():
        theirs, ours = model(ids).logits, load_folder(options.model)(ids)
    print(f"largest difference of logits: {(theirs - ours).abs().max():.2e} of {theirs.abs().max():.1f}")
    turns = [[{"role": "user", "content": question}] for question in (*QUESTIONS, *options.ask)]
    chats = [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
    for prompt in [tokenizer.bos_token + text for text in PROMPTS] + chats:
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        inputs.pop("token_type_ids", None)
        written = model.generate(**inputs, max_new_tokens=128, do_sample=False)[0]
        print("---", tokenizer.decode(written, skip_special_tokens=True), sep="\n")


if __name__ == "__main__":
    main()
