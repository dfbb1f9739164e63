#!/usr/bin/env python3
"""Writes fuzz/seed.gguf and fuzz/seed.safetensors: whole models of a few kilobytes, so that a fuzzer tries thousands a second.

One layer, hidden 32, 16 tokens; the matrices of the GGUF file take turns through six types.
"""

from pathlib import Path

import gguf
import numpy as np

HIDDEN, INNER, HEADS, KV_HEADS, VOCAB = 32, 32, 2, 1, 16
SHAPES = {
    "attn_norm": (HIDDEN,), "attn_q": (HIDDEN, HIDDEN), "attn_k": (16, HIDDEN), "attn_v": (16, HIDDEN),
    "attn_output": (HIDDEN, HIDDEN), "ffn_norm": (HIDDEN,), "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN),
    "ffn_down": (HIDDEN, INNER),
}
NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
TYPES = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F16"]


def main():
    random = np.random.default_rng(1)
    folder = Path(__file__).parent.parent / "fuzz"
    values = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in SHAPES.items()}
    embedding = random.normal(0, 0.3, (VOCAB, HIDDEN)).astype(np.float32)
    norm = np.ones(HIDDEN, np.float32)

    writer = gguf.GGUFWriter(folder / "seed.gguf", "llama")
    writer.add_context_length(16)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "▁ab", "c", "d", "e", "f", "g", "h", "i"])
    writer.add_token_scores([-float(index) for index in range(VOCAB)])
    writer.add_token_types([2, 3, 3] + [1] * (VOCAB - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", norm)
    types = iter(TYPES * 2)
    for name, value in values.items():
        if value.ndim == 1:
            writer.add_tensor(f"blk.0.{name}.weight", value)
            continue
        kind = gguf.GGMLQuantizationType[next(types)]
        writer.add_tensor(f"blk.0.{name}.weight", gguf.quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    from safetensors.numpy import save_file

    tensors = {f"model.layers.0.{NAMES[name]}.weight": value.astype(np.float16) for name, value in values.items()}
    tensors |= {"model.embed_tokens.weight": embedding, "model.norm.weight": norm}
    save_file(tensors, folder / "seed.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
