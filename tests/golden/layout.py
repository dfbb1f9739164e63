"""How llama.cpp's GGUF files lay out the weights of transformers' models, in both directions."""

import gguf
import numpy
import torch


def tensor_names(arch, network):
    """Pairs of transformers' name and GGUF's, a tied head once."""
    key = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(key, network.config.num_hidden_layers)
    for name, _ in network.named_parameters():
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise SystemExit(f"no GGUF name for {name} in {arch}")
        yield name, found


def pair_rows(rows, heads, back=False):
    """Llama's rope turns neighbours in GGUF, halves of a head in transformers: rows of q and k are interleaved."""
    split = (heads, -1, 2) if back else (heads, 2, rows.shape[0] // heads // 2)
    return rows.reshape(*split, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def split_heads(rows, heads, back=False):
    """GPT-NeoX has q, k and v of one head side by side; GGUF has all of q, then all of k, then all of v."""
    split = (3, heads) if back else (heads, 3)
    return rows.reshape(*split, -1, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def change(arch, config, name, tensor, back):
    if arch in ("llama", "smollm3") and ".q_proj." in name:
        return pair_rows(tensor, config.num_attention_heads, back)
    if arch in ("llama", "smollm3") and ".k_proj." in name:
        return pair_rows(tensor, config.num_key_value_heads, back)
    if arch in ("gemma2", "gemma3") and name.endswith("norm.weight"):
        # transformers multiplies by 1 + w.
        return tensor - numpy.float32(1) if back else tensor + numpy.float32(1)
    if arch == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return tensor.T
    if arch == "gptneox" and ".query_key_value." in name:
        return split_heads(tensor, config.num_attention_heads, back)
    return tensor


def to_gguf(arch, network):
    weights = dict(network.named_parameters())
    for name, found in tensor_names(arch, network):
        tensor = weights[name].detach().numpy()
        yield found, numpy.ascontiguousarray(change(arch, network.config, name, tensor, back=False))


def from_gguf(arch, network, tensors):
    """Overwrites every parameter; a tensor that is missing or misshapen is an error."""
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for name, found in tensor_names(arch, network):
            tensor = change(arch, network.config, name, tensors[found], back=True)
            weights[name].copy_(torch.from_numpy(tensor.copy()))
    network.tie_weights()
