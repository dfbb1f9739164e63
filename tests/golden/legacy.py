"""config.json and tensors as checkpoints published with transformers 4 have them.

transformers 5 writes `rope_parameters` and `dtype`; nearly every published checkpoint has `rope_theta`, `rope_scaling`
and `torch_dtype`, leaves out what was the default in its day, and some carry buffers beside the weights.
"""

import json

import torch
from safetensors.torch import load_file, save_file

COMMON = (
    "architectures model_type torch_dtype transformers_version use_cache vocab_size bos_token_id eos_token_id".split()
)
GATED = (
    COMMON
    + """hidden_size initializer_range intermediate_size max_position_embeddings num_attention_heads
    num_hidden_layers num_key_value_heads rms_norm_eps tie_word_embeddings rope_scaling rope_theta""".split()
)
KEYS = {
    # As in Llama-2-7b: neither rope_theta nor head_dim.
    "llama2": [key for key in GATED if key != "rope_theta"] + ["hidden_act", "pretraining_tp"],
    "llama3": GATED + ["hidden_act", "head_dim", "attention_bias", "attention_dropout", "mlp_bias", "pretraining_tp"],
    "qwen2": [key for key in GATED if key != "rope_scaling"]
    + ["hidden_act", "attention_dropout", "max_window_layers", "sliding_window", "use_mrope", "use_sliding_window"],
    # As in gemma-3-1b-it: the head is tied because nothing says otherwise.
    "gemma3": [key for key in GATED if key != "tie_word_embeddings"]
    + """hidden_activation head_dim attention_bias attention_dropout attn_logit_softcapping
    final_logit_softcapping cache_implementation pad_token_id query_pre_attn_scalar rope_local_base_freq
    sliding_window sliding_window_pattern""".split(),
    "phi3_longrope": GATED
    + """hidden_act attention_bias attention_dropout embd_pdrop resid_pdrop full_attn_mod interpolate_factor
    lm_head_bias mlp_bias original_max_position_embeddings pad_token_id partial_rotary_factor sliding_window""".split(),
    # As in gpt2: neither n_inner nor tie_word_embeddings.
    "gpt2": [key for key in COMMON if key not in ("torch_dtype", "transformers_version", "use_cache")]
    + """activation_function attn_pdrop embd_pdrop initializer_range layer_norm_epsilon n_ctx n_embd n_head n_layer
    n_positions resid_pdrop""".split(),
    "gpt_neox": COMMON
    + """hidden_act hidden_size initializer_range intermediate_size layer_norm_eps max_position_embeddings
    num_attention_heads num_hidden_layers rotary_emb_base rotary_pct tie_word_embeddings
    use_parallel_residual""".split(),
}
VERSIONS = {
    "llama2": "4.31.0",
    "llama3": "4.45.0",
    "qwen2": "4.40.1",
    "gemma3": "4.50.0",
    "phi3_longrope": "4.45.0",
    "gpt_neox": "4.24.0",
}


def config(name, modern):
    """The 4.x form of a configuration that transformers 5 wrote."""
    old = dict(modern)
    rope = old.pop("rope_parameters", None) or {}
    old["torch_dtype"] = old.pop("dtype")
    old["transformers_version"] = VERSIONS.get(name)
    old["rope_scaling"] = None
    old["rope_theta"] = rope.get("rope_theta")
    if name == "llama3":
        old["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    elif name == "qwen2":
        old |= dict(use_mrope=False, use_sliding_window=False, sliding_window=128, max_window_layers=3)
    elif name == "gemma3":
        wide, local = rope["full_attention"], rope["sliding_attention"]
        old["rope_scaling"] = {"factor": wide["factor"], "rope_type": "linear"}
        old |= dict(rope_theta=int(wide["rope_theta"]), rope_local_base_freq=int(local["rope_theta"]))
        old |= dict(sliding_window_pattern=6, cache_implementation="hybrid", eos_token_id=[1, 106])
    elif name == "phi3_longrope":
        factors = {key: rope[key] for key in ("long_factor", "short_factor")}
        old["rope_scaling"] = factors | {"type": "longrope"}
        old |= dict(partial_rotary_factor=rope["partial_rotary_factor"], full_attn_mod=1, interpolate_factor=1)
        old |= dict(lm_head_bias=False, mlp_bias=False, attention_bias=False)
    elif name == "gpt2":
        old["n_ctx"] = old["n_positions"]
    elif name == "gpt_neox":
        old |= dict(rotary_emb_base=int(rope["rope_theta"]), rotary_pct=rope["partial_rotary_factor"])
    return {key: old[key] for key in sorted(KEYS[name])}


def tensors(name, modern, settings):
    """Adds the buffers that old checkpoints carried and drops GPT-2's prefix, as its published file does."""
    layers = range(settings.get("num_hidden_layers") or settings["n_layer"])
    old = dict(modern)
    if name == "llama2":
        head_dim = settings["hidden_size"] // settings["num_attention_heads"]
        for layer in layers:
            powers = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
            old[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = 10000.0**-powers
    elif name == "gpt2":
        old = {key.removeprefix("transformer."): value for key, value in modern.items()}
        mask = torch.ones(settings["n_positions"], settings["n_positions"]).tril()[None, None]
        old |= {f"h.{layer}.attn.bias": mask.clone() for layer in layers}
    elif name == "gpt_neox":
        length = settings["max_position_embeddings"]
        rotary = int(settings["hidden_size"] // settings["num_attention_heads"] * settings["rotary_pct"])
        for layer in layers:
            prefix = f"gpt_neox.layers.{layer}.attention."
            old[prefix + "bias"] = torch.ones(1, 1, length, length).tril().bool()
            old[prefix + "masked_bias"] = torch.tensor(-1e9, dtype=torch.float32)
            old[prefix + "rotary_emb.inv_freq"] = 10000.0 ** -(torch.arange(0, rotary, 2, dtype=torch.float32) / rotary)
    return old


def rewrite(name, folder):
    """Turns a folder that transformers 5 wrote into its 4.x form."""
    path = folder / "config.json"
    settings = config(name, json.loads(path.read_text()))
    path.write_text(json.dumps(settings, indent=2) + "\n")
    weights = folder / "model.safetensors"
    save_file(tensors(name, load_file(weights), settings), weights, metadata={"format": "pt"})
