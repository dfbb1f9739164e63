#!/usr/bin/env python3
"""Writes families/gguf_NAME for every row below: a small random GGUF file and its golden logits.

    make_gguf.py            write all (or --only NAME ...)
    make_gguf.py --check    make them again elsewhere, compare the bytes, recompute the logits

Keys, tensor names and layouts are those of llama.cpp's converter. The logits come from the file itself: its tensors are
dequantized, brought back into transformers' layout and run there in float32, so they need no tolerance for quantizing.
"""

import argparse
import math
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import gguf
import numpy
import torch
import transformers
from gguf import GGMLQuantizationType as Type

import checkpoints
import layout
import vocabulary
from checkpoints import Checkpoint, gated, rope

FOLDER = Path(__file__).parent / "families"
TOKENS = checkpoints.TOKENS[:24]
TOLERANCE = 1e-5


@dataclass
class Model:
    checkpoint: Checkpoint
    arch: str
    # "llama" for sentencepiece pieces; a pre-tokenizer's name for byte-level pairs.
    vocabulary: str
    type: Type = Type.F16
    # Parts of tensor names and the types that these get.
    types: dict = field(default_factory=dict)

    @property
    def name(self):
        return self.checkpoint.name


def row(name, kind, arch, words, config, type=Type.F16, types=None, gains=None):
    checkpoint = Checkpoint(name, kind, config | dict(vocab_size=vocabulary.LENGTH), gains=gains or {})
    return Model(checkpoint, arch, words, type, types or {})


def small(**over):
    return gated(num_hidden_layers=2) | over


# Rows of 32 columns and more, as the block formats want them.
BLOCKS = small(hidden_size=64, intermediate_size=96, rope_parameters=rope())
LLAMA3_ROPE = checkpoints.LLAMA3_ROPE | dict(original_max_position_embeddings=16)
LONGROPE = checkpoints.LONGROPE | dict(original_max_position_embeddings=16)

MODELS = [
    row("gguf_llama2", "Llama", "llama", "llama", small(head_dim=16, rope_parameters=rope())),
    row(
        "gguf_llama3",
        "Llama",
        "llama",
        "llama-bpe",
        small(hidden_size=40, tie_word_embeddings=True, head_dim=12, rope_parameters=LLAMA3_ROPE),
        Type.F32,
    ),
    row("gguf_qwen2", "Qwen2", "qwen2", "qwen2", small(tie_word_embeddings=True, rope_parameters=rope(1e6))),
    row(
        "gguf_qwen3",
        "Qwen3",
        "qwen3",
        "qwen2",
        small(head_dim=16, tie_word_embeddings=True, rope_parameters=rope(1e6)),
        Type.BF16,
        gains=checkpoints.QK_NORM,
    ),
    # The file has no place for query_pre_attn_scalar: readers take the length of a key.
    row(
        "gguf_gemma2",
        "Gemma2",
        "gemma2",
        "llama",
        checkpoints.gemma2(
            num_hidden_layers=3,
            query_pre_attn_scalar=16,
            tie_word_embeddings=True,
            attn_logit_softcapping=3.0,
            final_logit_softcapping=12.0,
        ),
        gains={"input_layernorm.weight": 1.4, "model.norm.weight": 2.0},
    ),
    # Nor for the pattern of layers: readers take every sixth as global.
    row(
        "gguf_gemma3",
        "Gemma3",
        "gemma3",
        "llama",
        checkpoints.gemma3(
            num_hidden_layers=7,
            hidden_size=32,
            intermediate_size=48,
            num_key_value_heads=1,
            query_pre_attn_scalar=16,
            tie_word_embeddings=True,
        ),
        gains=checkpoints.QK_NORM,
    ),
    row("gguf_phi3", "Phi3", "phi3", "llama", checkpoints.phi3(num_hidden_layers=2, tie_word_embeddings=True)),
    row(
        "gguf_phi3_longrope",
        "Phi3",
        "phi3",
        "gpt-4o",
        small(
            num_attention_heads=3,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            max_position_embeddings=128,
            original_max_position_embeddings=16,
            rope_parameters=LONGROPE,
        ),
        gains={"qkv_proj.weight": 0.85},
    ),
    # Nor for layers without rope: readers take every fourth.
    row(
        "gguf_smollm3",
        "SmolLM3",
        "smollm3",
        "smaug-bpe",
        small(
            num_hidden_layers=4,
            hidden_size=32,
            intermediate_size=64,
            tie_word_embeddings=True,
            rope_parameters=rope(5e6),
        ),
    ),
    row("gguf_gpt2", "GPT2", "gpt2", "gpt-2", checkpoints.gpt2(n_embd=40, n_head=5, n_layer=2)),
    row(
        "gguf_gpt_neox", "GPTNeoX", "gptneox", "gpt-2", checkpoints.gpt_neox(intermediate_size=96, num_hidden_layers=2)
    ),
    row("gguf_llama_q8_0", "Llama", "llama", "llama", BLOCKS, Type.Q8_0),
    # llama.cpp, too, gives the embedding another type than the rest.
    row(
        "gguf_llama_q4_0",
        "Llama",
        "llama",
        "llama",
        BLOCKS | dict(tie_word_embeddings=True),
        Type.Q4_0,
        {"token_embd": Type.Q8_0},
    ),
    row(
        "gguf_llama_mixed",
        "Llama",
        "llama",
        "llama",
        BLOCKS,
        Type.Q4_1,
        {
            "token_embd": Type.BF16,
            "output.weight": Type.Q8_0,
            "attn_v": Type.Q5_0,
            "ffn_down": Type.Q5_1,
            "attn_k": Type.F16,
        },
    ),
    row(
        "gguf_llama_q8_0_wide",
        "Llama",
        "llama",
        "llama",
        small(
            hidden_size=256,
            intermediate_size=96,
            num_hidden_layers=1,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            rope_parameters=rope(),
        ),
        Type.Q8_0,
        gains={"embed_tokens.weight": 0.3},
    ),
]


def write_settings(writer, model, config):
    """The keys that llama.cpp's converter writes for this architecture."""
    gpt2 = model.arch == "gpt2"
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name(model.name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(4 * config.hidden_size if gpt2 else config.intermediate_size)
    writer.add_head_count(heads)
    if model.arch in ("gpt2", "gptneox"):
        writer.add_layer_norm_eps(config.layer_norm_epsilon if gpt2 else config.layer_norm_eps)
    else:
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if model.arch not in ("gpt2", "gptneox", "phi3", "qwen2") and hasattr(config, "head_dim"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if model.arch in ("llama", "smollm3"):
        writer.add_vocab_size(config.vocab_size)
    if model.arch in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
    if model.arch == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if model.arch == "gptneox":
        writer.add_parallel_residual(config.use_parallel_residual)
    if not gpt2:
        write_rope(writer, model, config, head_dim)
    writer.add_file_type(
        {Type.F32: 0, Type.F16: 1, Type.Q4_0: 2, Type.Q4_1: 3, Type.Q8_0: 7, Type.BF16: 32}[model.type]
    )
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def write_rope(writer, model, config, head_dim):
    """Frequencies: scalings that llama.cpp does not know by name become tensors of divisors."""
    settings = config.rope_parameters
    if model.arch == "gemma3":
        writer.add_rope_freq_base_swa(settings["sliding_attention"]["rope_theta"])
        settings = settings["full_attention"]
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(settings["factor"])
    if model.arch != "gptneox":
        writer.add_rope_freq_base(settings["rope_theta"])
    if model.arch in ("llama", "smollm3", "gptneox", "phi3"):
        writer.add_rope_dimension_count(int(head_dim * settings.get("partial_rotary_factor", 1.0)))
    if model.arch == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
        writer.add_sliding_window(config.sliding_window or 0)
    if settings["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(settings, head_dim))
    if settings["rope_type"] == "longrope":
        original = config.original_max_position_embeddings
        grown = config.max_position_embeddings / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(grown) / math.log(original)))
        for name in ("long", "short"):
            writer.add_tensor(f"rope_factors_{name}.weight", numpy.array(settings[f"{name}_factor"], numpy.float32))


def llama3_divisors(settings, head_dim):
    """What each frequency is divided by: nothing for short waves, the factor for long ones, a blend between."""
    frequencies = settings["rope_theta"] ** -(numpy.arange(0, head_dim, 2) / head_dim)
    turns = settings["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high, factor = settings["low_freq_factor"], settings["high_freq_factor"], settings["factor"]
    blend = numpy.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - blend) / factor + blend)).astype(numpy.float32)


def write(model, path):
    network = checkpoints.build(model.checkpoint)
    writer = gguf.GGUFWriter(path, model.arch)
    write_settings(writer, model, network.config)
    vocabulary.write(writer, model.vocabulary)
    for name, tensor in layout.to_gguf(model.arch, network):
        wanted = next((kind for part, kind in model.types.items() if part in name), model.type)
        kind = Type.F32 if tensor.ndim == 1 else wanted
        writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(model, path):
    """Those of the weights that the file holds."""
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    network = checkpoints.build(replace(model.checkpoint, name="overwritten"))
    network.set_attn_implementation("eager")
    layout.from_gguf(model.arch, network, tensors)
    return checkpoints.logits(network, TOKENS)


def check(model, root):
    committed, made = FOLDER / model.name / "model.gguf", root / f"{model.name}.gguf"
    write(model, made)
    problems = []
    if committed.read_bytes() != made.read_bytes():
        problems.append("the file differs")
    golden = numpy.load(committed.with_name("logits.npy"))
    apart = numpy.abs(golden - logits(model, committed)).max() / numpy.abs(golden).max()
    if not apart <= TOLERANCE:
        problems.append(f"the logits are off by {apart:.1e} of the largest")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these files alone")
    options = parser.parse_args()
    chosen = [model for model in MODELS if not options.only or model.name in options.only]
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    if options.check:
        failed = False
        with tempfile.TemporaryDirectory() as root:
            for model in chosen:
                problems = check(model, Path(root))
                failed |= bool(problems)
                print(f"{model.name:22} {'; '.join(problems) or 'same'}")
        sys.exit(failed)
    for model in chosen:
        path = FOLDER / model.name / "model.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(model, path)
        golden = logits(model, path)
        numpy.save(path.with_name("logits.npy"), golden)
        size = path.stat().st_size
        print(
            f"{model.name:22} {size:8} bytes, logits deviate by {golden.std():.2f}, reach {numpy.abs(golden).max():.2f}"
        )


if __name__ == "__main__":
    main()
