"""The small random checkpoints: one row of CHECKPOINTS each, and how a row becomes a model.

Dimensions are awkward on purpose: an odd vocabulary, widths that no tile divides, head_dim apart from hidden / heads
where the family lets it be, grouped heads, windows shorter than the sequence, original contexts shorter than it too.
"""

import random
import zlib
from dataclasses import dataclass, field

import numpy
import torch
import transformers

VOCAB_LEN = 131
TOKEN_COUNT = 64
# Both ends of the vocabulary are among the ids.
TOKENS = [1, VOCAB_LEN - 1, 0] + random.Random("pith tokens").choices(range(VOCAB_LEN), k=TOKEN_COUNT - 3)
# An epsilon of 1e-6 leaves no trace in the logits; one that was read wrongly should. Checkpoints in the 4.x form keep
# the published size.
LARGE_EPS = 0.01


@dataclass
class Checkpoint:
    """`kind` is transformers' prefix of Config and ForCausalLM; `config` its arguments."""

    name: str
    kind: str
    config: dict
    dtype: str = "bfloat16"
    # Largest shard; None writes one file.
    shard: str | None = None
    # config.json as transformers 4 wrote it, with the file's own keys and what old checkpoints carried beside weights.
    legacy: bool = False
    # Ends of parameter names and what multiplies their values.
    gains: dict = field(default_factory=dict)
    # A second golden file, for this many tokens only.
    short_count: int | None = None

    def config_class(self):
        name = {"Gemma3": "Gemma3TextConfig"}.get(self.kind, self.kind + "Config")
        return getattr(transformers, name)

    def model_class(self):
        return getattr(transformers, self.kind + ("LMHeadModel" if self.kind == "GPT2" else "ForCausalLM"))


def gated(**over):
    """Arguments that every family with a gated feed-forward takes."""
    base = dict(
        vocab_size=VOCAB_LEN,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
        rms_norm_eps=LARGE_EPS,
    )
    return base | over


def rope(theta=10000.0, **over):
    return dict(rope_type="default", rope_theta=theta) | over


# Wavelengths of head_dim 16 at theta 500 run from 6 to 1,400 positions: 32 / 4 and 32 / 1 cut them into three bands.
LLAMA3_ROPE = rope(
    500.0,
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
LONGROPE = rope(
    rope_type="longrope",
    partial_rotary_factor=0.75,
    short_factor=[1.0, 1.02, 1.05, 1.1, 1.2, 1.25],
    long_factor=[1.0, 1.3, 2.1, 4.7, 7.9, 11.3],
    original_max_position_embeddings=32,
)
GEMMA3_ROPE = {
    "full_attention": rope(1_000_000.0, rope_type="linear", factor=8.0),
    "sliding_attention": rope(10_000.0),
}
# Normalised queries and keys give scores of one size whatever the weights are: only the gain spreads them.
QK_NORM = {"q_norm.weight": 1.2, "k_norm.weight": 1.2}


def gemma2(**over):
    return (
        gated(num_hidden_layers=4, head_dim=16, sliding_window=16, query_pre_attn_scalar=24, rope_parameters=rope())
        | over
    )


def gemma3(**over):
    return (
        gated(
            head_dim=16,
            sliding_window=16,
            query_pre_attn_scalar=24,
            rope_parameters=GEMMA3_ROPE,
            max_position_embeddings=512,
        )
        | over
    )


def phi3(**over):
    return gated(original_max_position_embeddings=128, rope_parameters=rope(partial_rotary_factor=1.0)) | over


def gpt2(**over):
    base = dict(vocab_size=VOCAB_LEN, n_embd=48, n_head=4, n_layer=3, n_positions=72, bos_token_id=1, eos_token_id=2)
    return base | over


def gpt_neox(**over):
    base = dict(
        vocab_size=VOCAB_LEN,
        hidden_size=48,
        intermediate_size=200,
        num_hidden_layers=3,
        num_attention_heads=3,
        max_position_embeddings=96,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        rope_parameters=rope(partial_rotary_factor=0.25),
    )
    return base | over


CHECKPOINTS = [
    Checkpoint("llama2", "Llama", gated(num_key_value_heads=4, rms_norm_eps=1e-5, rope_parameters=rope()), legacy=True),
    Checkpoint(
        "llama2_tied",
        "Llama",
        gated(
            hidden_size=60,
            intermediate_size=84,
            head_dim=14,
            num_attention_heads=6,
            tie_word_embeddings=True,
            attention_bias=True,
            mlp_bias=True,
            rope_parameters=rope(),
        ),
    ),
    Checkpoint(
        "llama3",
        "Llama",
        gated(
            head_dim=16,
            tie_word_embeddings=True,
            max_position_embeddings=256,
            rms_norm_eps=1e-5,
            rope_parameters=LLAMA3_ROPE,
        ),
        legacy=True,
    ),
    Checkpoint("llama3_untied", "Llama", gated(head_dim=16, max_position_embeddings=256, rope_parameters=LLAMA3_ROPE)),
    Checkpoint(
        "mistral",
        "Mistral",
        gated(num_attention_heads=6, head_dim=16, sliding_window=16, rope_parameters=rope()),
        shard="50KB",
    ),
    Checkpoint(
        "mistral_tied",
        "Mistral",
        gated(head_dim=10, sliding_window=17, tie_word_embeddings=True, rope_parameters=rope()),
    ),
    Checkpoint(
        "qwen2",
        "Qwen2",
        gated(tie_word_embeddings=True, rms_norm_eps=1e-6, rope_parameters=rope(1_000_000.0)),
        legacy=True,
    ),
    Checkpoint(
        "qwen2_untied", "Qwen2", gated(intermediate_size=100, num_key_value_heads=1, rope_parameters=rope(1_000_000.0))
    ),
    Checkpoint(
        "qwen2_window",
        "Qwen2",
        gated(use_sliding_window=True, sliding_window=16, max_window_layers=1, rope_parameters=rope(1_000_000.0)),
    ),
    Checkpoint(
        "qwen3", "Qwen3", gated(head_dim=16, tie_word_embeddings=True, rope_parameters=rope(1_000_000.0)), gains=QK_NORM
    ),
    Checkpoint(
        "qwen3_untied",
        "Qwen3",
        gated(
            hidden_size=40, num_attention_heads=5, num_key_value_heads=1, head_dim=18, rope_parameters=rope(1_000_000.0)
        ),
        gains=QK_NORM,
    ),
    Checkpoint(
        "gemma2",
        "Gemma2",
        gemma2(tie_word_embeddings=True, attn_logit_softcapping=3.0, final_logit_softcapping=12.0),
        gains={"input_layernorm.weight": 1.4, "model.norm.weight": 2.0},
    ),
    Checkpoint(
        "gemma2_untied",
        "Gemma2",
        gemma2(hidden_size=40, attn_logit_softcapping=8.0, final_logit_softcapping=30.0),
        gains={"q_proj.weight": 1.4, "k_proj.weight": 1.4, "model.norm.weight": 4.0, "lm_head.weight": 4.0},
    ),
    Checkpoint(
        "gemma3",
        "Gemma3",
        gemma3(
            hidden_size=40,
            intermediate_size=56,
            num_hidden_layers=7,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            rms_norm_eps=1e-6,
        ),
        legacy=True,
        gains=QK_NORM,
    ),
    Checkpoint(
        "gemma3_untied",
        "Gemma3",
        gemma3(num_hidden_layers=4, layer_types=["sliding_attention", "full_attention"] * 2),
        gains=QK_NORM,
    ),
    Checkpoint("phi3", "Phi3", phi3()),
    # As in Phi-3-mini-4k: a window that this length does not reach.
    Checkpoint("phi3_tied", "Phi3", phi3(hidden_size=40, tie_word_embeddings=True, sliding_window=127)),
    Checkpoint(
        "phi3_longrope",
        "Phi3",
        gated(
            num_attention_heads=3,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            max_position_embeddings=256,
            original_max_position_embeddings=32,
            sliding_window=512,
            rms_norm_eps=1e-5,
            rope_parameters=LONGROPE,
        ),
        legacy=True,
        # The scaling multiplies queries and keys alike.
        gains={"qkv_proj.weight": 0.85},
        short_count=24,
    ),
    Checkpoint(
        "smollm3",
        "SmolLM3",
        gated(num_hidden_layers=4, tie_word_embeddings=True, rope_parameters=rope(5_000_000.0)),
    ),
    Checkpoint(
        "smollm3_untied",
        "SmolLM3",
        gated(num_attention_heads=6, no_rope_layers=[0, 1, 1], rope_parameters=rope(5_000_000.0)),
    ),
    Checkpoint("gpt2", "GPT2", gpt2(n_embd=40, n_head=5), dtype="float32", legacy=True),
    Checkpoint("gpt2_untied", "GPT2", gpt2(n_inner=100, tie_word_embeddings=False, layer_norm_epsilon=LARGE_EPS)),
    Checkpoint("gpt_neox", "GPTNeoX", gpt_neox(), dtype="float16", legacy=True),
    Checkpoint(
        "gpt_neox_sequential",
        "GPTNeoX",
        gpt_neox(use_parallel_residual=False, tie_word_embeddings=True, layer_norm_eps=LARGE_EPS),
    ),
]


def randomise(model, checkpoint):
    """Fills every parameter from a stream seeded by the checkpoint's and the parameter's names.

    Matrices get a deviation of 1 / √fan_in, the head 1.4 / √fan_in, embeddings 0.6, biases 0.3; norm weights lie around
    their neutral value, which is 0 in Gemma's convention. All are larger than a trained model's start, so that attention is not uniform, and
    small enough that it is not a lookup either: there a cache in f16 alone would cost a percent of the logits.
    """
    offset_norms = checkpoint.kind.startswith("Gemma")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            seed = zlib.crc32(f"{checkpoint.name}/{name}".encode())
            normal = numpy.random.default_rng(seed).standard_normal(tuple(parameter.shape), dtype=numpy.float32)
            gain = next((g for end, g in checkpoint.gains.items() if name.endswith(end)), 1.0)
            if name.endswith("bias"):
                values = 0.3 * normal
            elif parameter.ndim == 1:
                values = gain * (1.0 + 0.25 * normal) - (1.0 if offset_norms else 0.0)
            elif any(part in name for part in ("embed_tokens", "embed_in", "wte", "wpe")):
                values = gain * 0.6 * normal
            else:
                conv1d = checkpoint.kind == "GPT2" and not name.startswith("lm_head")
                fan_in = parameter.shape[0 if conv1d else 1]
                head = name.startswith(("lm_head", "embed_out"))
                values = gain * (1.4 if head else 1.0) / fan_in**0.5 * normal
            parameter.copy_(torch.from_numpy(values))
    model.tie_weights()


def build(checkpoint):
    """The random model in f32, not yet rounded to the checkpoint's type."""
    model = checkpoint.model_class()(checkpoint.config_class()(**checkpoint.config))
    randomise(model, checkpoint)
    return model.eval()


def load(folder):
    """What `save_pretrained` left in `folder`, computed in f32 by the plain attention."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def logits(model, tokens):
    """`tokens × vocabulary`, float32."""
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()
