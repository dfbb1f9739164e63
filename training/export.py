"""Writes a checkpoint as a Hugging Face folder with bfloat16 weights."""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from model import Config

CHAT_TEMPLATE = (
    "{% for message in messages if message['role'] == 'user' %}{% if loop.last %}"
    "{{ bos_token }}Question: {{ message['content'] }}\nAnswer:"
    "{% endif %}{% endfor %}"
)


def model_config(config: Config, begin: int, end: int) -> dict:
    """What `LlamaForCausalLM` needs to know."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": begin,
        "eos_token_id": end,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden,
        "initializer_range": 0.02,
        "intermediate_size": config.mlp,
        "max_position_embeddings": config.context_len,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": config.vocab_len,
    }


def tokenizer_config(context_len: int) -> dict:
    """Names the special tokens and how a conversation becomes a prompt."""
    return {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_len,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder to write")
    options = parser.parse_args()

    state = torch.load(options.checkpoint, weights_only=True)
    config, begin, end = Config(), 0, 1
    tensors = {f"model.{name}": tensor.bfloat16().contiguous() for name, tensor in state["model"].items()}
    options.model.mkdir(parents=True, exist_ok=True)
    save_file(tensors, options.model / "model.safetensors", metadata={"format": "pt"})
    write_json(options.model / "config.json", model_config(config, begin, end))
    write_json(options.model / "tokenizer_config.json", tokenizer_config(config.context_len))
    write_json(
        options.model / "generation_config.json",
        {"bos_token_id": begin, "do_sample": False, "eos_token_id": end, "max_new_tokens": 128},
    )
    if options.tokenizer.resolve() != (options.model / "tokenizer.json").resolve():
        shutil.copyfile(options.tokenizer, options.model / "tokenizer.json")
    print(f"step {state['step']}, {state['elapsed_s']:.0f} s of training")


if __name__ == "__main__":
    main()
