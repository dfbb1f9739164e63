#!/usr/bin/env python3
"""Writes a random bf16 checkpoint with the shape of a published model, to measure memory and time on.

    make_big.py {1b,0.5b,135m} FOLDER [--seed N] [--shard-bytes N]

Safetensors shards, config.json as published, and a byte-level BPE tokenizer of full size whose merges are made up.
Streams: memory stays far below a gigabyte whatever the shape. The same seed gives the same bytes. Needs numpy only.
"""

import argparse
import json
import random
import zlib
from pathlib import Path

import numpy

from vocabulary import byte_letters, byte_tokens

CHUNK = 1 << 20
LLAMA3_ROPE = dict(
    factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=8192, rope_type="llama3"
)
# `words` of the vocabulary come from pairs of bytes, `specials` follow them; rows beyond are padding, as published.
SHAPES = {
    "1b": dict(
        like="Llama-3.2-1B",
        model="llama",
        hidden=2048,
        layers=16,
        heads=32,
        kv_heads=8,
        ffn=8192,
        vocab=128256,
        words=128000,
        specials=256,
        theta=500000.0,
        eps=1e-5,
        context=131072,
        scaling=LLAMA3_ROPE,
        bos=128000,
        eos=128001,
    ),
    "0.5b": dict(
        like="Qwen2.5-0.5B",
        model="qwen2",
        hidden=896,
        layers=24,
        heads=14,
        kv_heads=2,
        ffn=4864,
        vocab=151936,
        words=151643,
        specials=22,
        theta=1000000.0,
        eps=1e-6,
        context=32768,
        scaling=None,
        bos=None,
        eos=151643,
    ),
    "135m": dict(
        like="SmolLM2-135M",
        model="llama",
        hidden=576,
        layers=30,
        heads=9,
        kv_heads=3,
        ffn=1536,
        vocab=49152,
        words=49135,
        specials=17,
        theta=100000.0,
        eps=1e-5,
        context=8192,
        scaling=None,
        bos=49135,
        eos=49135,
    ),
}
DIGITS = {"1b": "{1,3}", "0.5b": "", "135m": ""}


def tensors(shape):
    """Names and shapes in the order of the forward pass; heads have 64 dimensions, the head is the embedding."""
    hidden, ffn, queries, keys = shape["hidden"], shape["ffn"], shape["heads"] * 64, shape["kv_heads"] * 64
    yield "model.embed_tokens.weight", (shape["vocab"], hidden)
    for layer in range(shape["layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        for letter, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield prefix + f"self_attn.{letter}_proj.weight", (rows, hidden)
            if shape["model"] == "qwen2":
                yield prefix + f"self_attn.{letter}_proj.bias", (rows,)
        yield prefix + "self_attn.o_proj.weight", (hidden, queries)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "mlp.gate_proj.weight", (ffn, hidden)
        yield prefix + "mlp.up_proj.weight", (ffn, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, ffn)
    yield "model.norm.weight", (hidden,)


def bf16(values):
    """The upper halves of float32, rounded to nearest even, as uint16."""
    bits = values.view(numpy.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")


def write_tensor(file, name, shape, seed):
    stream = numpy.random.default_rng([seed, zlib.crc32(name.encode())])
    scale, centre = (0.05, 1.0) if name.endswith("norm.weight") else (0.02, 0.0)
    left = int(numpy.prod(shape))
    while left:
        values = stream.standard_normal(min(left, CHUNK), dtype=numpy.float32)
        values *= numpy.float32(scale)
        values += numpy.float32(centre)
        file.write(bf16(values).tobytes())
        left -= len(values)


def plan(shape, shard_bytes):
    """Tensors into shards, each of at most `shard_bytes` unless one tensor alone is larger."""
    shards, size = [[]], 0
    for name, dims in tensors(shape):
        length = 2 * int(numpy.prod(dims))
        if shards[-1] and size + length > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append((name, dims, length))
        size += length
    return shards


def write_weights(folder, shape, seed, shard_bytes):
    shards, places, total = plan(shape, shard_bytes), {}, 0
    for number, shard in enumerate(shards, 1):
        file_name = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        header, end = {"__metadata__": {"format": "pt"}}, 0
        for name, dims, length in shard:
            header[name] = dict(dtype="BF16", shape=dims, data_offsets=[end, end + length])
            places[name] = file_name
            end += length
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file_name, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, dims, _ in shard:
                write_tensor(file, name, dims, seed)
        total += end
    if len(shards) > 1:
        index = dict(metadata=dict(total_size=total), weight_map=dict(sorted(places.items())))
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return total


def merges(count, seed):
    """Pairs in a valid order: both parts of a merge are bytes or results of merges before it.

    Early, and so short, parts are drawn more often; a word's space (Ġ) may only lead.
    """
    draw, letters = random.Random(seed), byte_letters()
    plain = [letters[byte] for byte in b"etaoinsrhldcumfpgwybvkxjqzETAOINSRHLDCUMFPGWYBVKXJQZ"]
    leading, known, pairs = [letters[ord(" ")]], set(byte_tokens()), []
    while len(pairs) < count:
        first = leading if draw.random() < 0.5 else plain
        left = first[int(len(first) * draw.random() ** 3)]
        right = plain[int(len(plain) * draw.random() ** 3)]
        joined = left + right
        if len(joined) > 16 or joined in known:
            continue
        known.add(joined)
        first.append(joined)
        pairs.append((left, right))
    return pairs


def write_tokenizer(folder, name, shape, seed):
    pairs = merges(shape["words"] - 256, seed)
    words = byte_tokens() + ["".join(pair) for pair in pairs]
    named = {shape["eos"]: "<|end_of_text|>", shape["bos"]: "<|begin_of_text|>"}
    specials = {}
    for number in range(shape["words"], shape["words"] + shape["specials"]):
        specials[number] = named.get(number, f"<|reserved_{number}|>")
    added = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    split = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        + DIGITS[name]
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
    post = byte_level
    if shape["bos"] is not None:
        bos, text = specials[shape["bos"]], dict(Sequence=dict(id="A", type_id=0))
        start = dict(SpecialToken=dict(id=bos, type_id=0))
        pair = [start, text, dict(SpecialToken=dict(id=bos, type_id=1)), dict(Sequence=dict(id="B", type_id=1))]
        tokens = {bos: dict(id=bos, ids=[shape["bos"]], tokens=[bos])}
        post = dict(type="TemplateProcessing", single=[start, text], pair=pair, special_tokens=tokens)
    model = dict(
        type="BPE",
        dropout=None,
        unk_token=None,
        continuing_subword_prefix=None,
        end_of_word_suffix=None,
        fuse_unk=False,
        byte_fallback=False,
        ignore_merges=False,
        vocab={word: number for number, word in enumerate(words)},
        merges=[" ".join(pair) for pair in pairs],
    )
    regex = dict(type="Split", pattern=dict(Regex=split), behavior="Isolated", invert=False)
    tokenizer = dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=[dict(id=number, content=text) | added for number, text in specials.items()],
        normalizer=None,
        pre_tokenizer=dict(type="Sequence", pretokenizers=[regex, byte_level]),
        post_processor=post,
        decoder=byte_level,
        model=model,
    )
    with open(folder / "tokenizer.json", "w", encoding="utf-8") as file:
        json.dump(tokenizer, file, ensure_ascii=False, indent=2)
    settings = dict(
        bos_token=specials.get(shape["bos"]),
        eos_token=specials[shape["eos"]],
        model_max_length=shape["context"],
        clean_up_tokenization_spaces=False,
        tokenizer_class="PreTrainedTokenizerFast",
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def write_config(folder, shape):
    settings = dict(
        architectures=["LlamaForCausalLM" if shape["model"] == "llama" else "Qwen2ForCausalLM"],
        attention_dropout=0.0,
        bos_token_id=shape["bos"],
        eos_token_id=shape["eos"],
        hidden_act="silu",
        hidden_size=shape["hidden"],
        initializer_range=0.02,
        intermediate_size=shape["ffn"],
        max_position_embeddings=shape["context"],
        model_type=shape["model"],
        num_attention_heads=shape["heads"],
        num_hidden_layers=shape["layers"],
        num_key_value_heads=shape["kv_heads"],
        rms_norm_eps=shape["eps"],
        rope_theta=shape["theta"],
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
        transformers_version="4.45.0",
        use_cache=True,
        vocab_size=shape["vocab"],
    )
    if shape["model"] == "llama":
        settings |= dict(
            attention_bias=False, head_dim=64, mlp_bias=False, pretraining_tp=1, rope_scaling=shape["scaling"]
        )
    else:
        settings |= dict(max_window_layers=shape["layers"], sliding_window=shape["context"], use_sliding_window=False)
        settings["bos_token_id"] = shape["eos"]
    (folder / "config.json").write_text(json.dumps(dict(sorted(settings.items())), indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shard-bytes", type=int, default=1_000_000_000)
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    options.folder.mkdir(parents=True, exist_ok=True)
    for old in options.folder.glob("model*.safetensors*"):
        old.unlink()
    write_config(options.folder, shape)
    write_tokenizer(options.folder, options.shape, shape, options.seed)
    total = write_weights(options.folder, shape, options.seed, options.shard_bytes)
    print(f"{options.folder}: {total // 2} parameters like {shape['like']}'s, {total} bytes of weights")


if __name__ == "__main__":
    main()
