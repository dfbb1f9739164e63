#!/usr/bin/env python3
"""Writes a small Llama with a byte-level tokenizer, such as wren, as an F16 GGUF file, for `cargo xtask quality`.

    to_gguf.py ../models/wren wren-f16.gguf

llama.cpp's own converter knows pre-tokenizers by a list of published vocabularies; this one takes the one of SmolLM, which
cuts digits one by one as wren does. Needs the Python packages gguf, numpy, safetensors and torch.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy
import torch
from safetensors.torch import load_file

LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def interleaved(weight, heads):
    """Rows of rotary pairs (i, i + half) of every head side by side, as GGUF has them."""
    rows, cols = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def write_vocabulary(writer, folder, vocab_len):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    pieces = {index: piece for piece, index in tokenizer["model"]["vocab"].items()}
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    pieces |= {index: token["content"] for index, token in added.items()}
    normal, control, unused = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL, gguf.TokenType.UNUSED
    types = [
        control if index in added and added[index]["special"] else normal if index in pieces else unused
        for index in range(vocab_len)
    ]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([pieces.get(index, f"[unused {index}]") for index in range(vocab_len)])
    writer.add_token_types(types)
    writer.add_token_merges(merges)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    config = json.loads((args.folder / "config.json").read_text())
    if config["model_type"] != "llama":
        parser.error(f"{args.folder} is of type {config['model_type']}, expected llama")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(str(args.output), "llama")
    writer.add_name(args.folder.resolve().name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    write_vocabulary(writer, args.folder, config["vocab_size"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)
    for name, tensor in load_file(args.folder / "model.safetensors").items():
        values = tensor.to(torch.float32).numpy()
        if name.startswith("model.layers."):
            layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
            if part in ("self_attn.q_proj", "self_attn.k_proj"):
                values = interleaved(values, heads if part == "self_attn.q_proj" else kv_heads)
            target = f"blk.{layer}.{LAYER[part]}.weight"
        else:
            targets = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm"}
            target = f"{targets.get(name, 'output')}.weight"
        values = numpy.ascontiguousarray(values)
        writer.add_tensor(target, values if values.ndim == 1 else values.astype(numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
