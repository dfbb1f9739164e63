#!/usr/bin/env python3
"""Writes quantized/NAME: a small random Llama, quantized and packed by the packages' own code, and its golden logits.

    make_quantized.py            write all (or --only NAME ...)
    make_quantized.py --check    make them again elsewhere, compare every tensor and the logits

The logits are those of `transformers` in float32 over the weights that each package's own code makes of the stored
tensors, scales taken as float32, so that `scale · (code − zero)` is not rounded. Codes are rounded to nearest: what is
tested is how checkpoints are read, not how good they are. Wants gptqmodel, autoawq and compressed-tensors beside
requirements.txt; AutoAWQ's packing modules are loaded by themselves, since the package wants an older transformers.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import types
import zlib
from pathlib import Path

import numpy
import torch
import transformers
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).parent / "quantized"
TOKENS = json.loads((Path(__file__).parent / "families/tokens.json").read_text())[:16]
TOLERANCE = 1e-5

MODEL = dict(
    vocab_size=131,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=64,
    tie_word_embeddings=True,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
    rms_norm_eps=0.01,
    rope_parameters=dict(rope_type="default", rope_theta=10000.0),
)


def normal(name, shape):
    generator = numpy.random.default_rng(zlib.crc32(name.encode()))
    return torch.from_numpy(generator.standard_normal(shape, dtype=numpy.float32))


def base_model():
    """The random model in float32, every value one of float16."""
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**MODEL, attn_implementation="eager"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = normal(name, tuple(parameter.shape))
            if parameter.ndim == 1:
                values = 1.0 + 0.25 * values
            else:
                values *= 0.6 if "embed" in name else parameter.shape[1] ** -0.5
            parameter.copy_(values.half().float())
    model.tie_weights()
    return model.eval()


def linears(model):
    return {
        name: module for name, module in model.model.named_modules(prefix="model") if isinstance(module, torch.nn.Linear)
    }


def ranges(weight, bits, group, symmetric, order=None):
    """Scales (f16 values) and zero points, outputs × groups, that span the weights of every group."""
    columns = weight if order is None else weight[:, order]
    rows, cols = weight.shape
    grouped = columns.reshape(rows, cols // group, group)
    most = 2**bits - 1
    if symmetric:
        scales = 2 * grouped.abs().amax(2) / most
        zeros = torch.full_like(scales, 2 ** (bits - 1))
    else:
        low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
        scales = (high - low) / most
        zeros = (-low / scales).round().clamp(0, most)
    return scales.half().float(), zeros


def gptq(model, bits, group, symmetric, version, desc_act=False, zero_bias=False, positive=None):
    """`positive`: a matrix whose weights are made so, which gives it zero points of 0."""
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization.config import FORMAT, METHOD, QuantizeConfig
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    tensors = {}
    for name, linear in linears(model).items():
        if positive and name.endswith(positive):
            linear.weight.data.abs_()
        rows, cols = linear.weight.shape
        size = cols if group == -1 else group
        order = torch.argsort(normal(name + " order", (cols,))) if desc_act else torch.arange(cols)
        index = torch.empty(cols, dtype=torch.int32)
        index[order] = torch.arange(cols, dtype=torch.int32) // size
        scales, zeros = ranges(linear.weight.data, bits, size, symmetric, order)
        packed = TorchLinear(
            bits=bits, group_size=group, sym=symmetric, desc_act=desc_act, in_features=cols, out_features=rows,
        )
        packed.pack_original(linear, scales, zeros, index)
        # Computed from the form in memory, which is the second; written in the one asked for.
        packed.post_init()
        packed.scales = packed.scales.float()
        with torch.no_grad():
            linear.weight.copy_(packed.dequantize_weight().T.float())
        if version == "gptq":
            config = QuantizeConfig(bits=bits, group_size=group, sym=symmetric, desc_act=desc_act)
            convert_gptq_v2_to_v1_format_module(packed, config)
        tensors |= {
            f"{name}.qweight": packed.qweight,
            f"{name}.qzeros": packed.qzeros,
            f"{name}.scales": packed.scales.half(),
            f"{name}.g_idx": packed.g_idx.to(torch.int32),
        }
        if zero_bias:
            tensors[f"{name}.bias"] = torch.zeros(rows, dtype=torch.float16)
    config = dict(
        quant_method="gptq", bits=bits, group_size=group, sym=symmetric, desc_act=desc_act, checkpoint_format=version,
        pack_dtype="int32", lm_head=False,
    )
    return tensors, config


def awq_module():
    """AutoAWQ's GEMM layer, without the `__init__` of its packages."""
    folder = Path(importlib.util.find_spec("awq").submodule_search_locations[0])
    for name in ["awq", "awq.modules", "awq.modules.linear"]:
        module = types.ModuleType(name)
        module.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = module
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    return WQLinear_GEMM, dequantize_gemm


def awq(model, group):
    layer, dequantize = awq_module()
    tensors = {}
    for name, linear in linears(model).items():
        scales, zeros = ranges(linear.weight.data, 4, group, symmetric=False)
        packed = layer.from_linear(linear, 4, group, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
        with torch.no_grad():
            weight = dequantize(packed.qweight, packed.qzeros, packed.scales.float(), 4, group)
            linear.weight.copy_(weight.T)
        tensors |= {
            f"{name}.qweight": packed.qweight, f"{name}.qzeros": packed.qzeros, f"{name}.scales": packed.scales,
        }
    config = dict(
        quant_method="awq", bits=4, group_size=group, zero_point=True, version="gemm", modules_to_not_convert=["lm_head"],
    )
    return tensors, config


def compressed(model, bits, strategy, group=None, symmetric=True, form="pack-quantized", dtype=torch.bfloat16):
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    args = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, strategy=strategy, group_size=group)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format=form)
    compressor = BaseCompressor.get_value_from_registry(form)
    tensors = {}
    for name, linear in linears(model).items():
        size = group or linear.in_features
        scales, zeros = ranges(linear.weight.data, bits, size, symmetric)
        if strategy == "tensor":
            scales, zeros = scales.amax().reshape(1), zeros[:1, 0]
        state = dict(weight=linear.weight.data, weight_scale=scales.to(dtype).float())
        if not symmetric:
            state["weight_zero_point"] = (zeros - 2 ** (bits - 1)).to(torch.int8)
        state = compressor.compress(state, scheme)
        with torch.no_grad():
            linear.weight.copy_(compressor.decompress(state, scheme)["weight"])
        state["weight_scale"] = state["weight_scale"].to(dtype)
        tensors |= {f"{name}.{key}": value for key, value in state.items()}
    config = dict(
        quant_method="compressed-tensors", format=form, quantization_status="compressed", ignore=["lm_head"],
        kv_cache_scheme=None, sparsity_config={}, transform_config={},
        config_groups=dict(group_0=json.loads(scheme.model_dump_json())),
    )
    return tensors, config


def bitnet(model, **config):
    from transformers.integrations.bitnet import pack_weights, unpack_weights

    tensors = {}
    unpack = getattr(unpack_weights, "__wrapped__", unpack_weights)
    for name, linear in linears(model).items():
        mean = linear.weight.data.abs().mean()
        divides = config.get("linear_class", "bitlinear") == "bitlinear"
        scale = (1 / mean if divides else mean).to(torch.bfloat16).reshape(1)
        packed = pack_weights((linear.weight.data / mean).round().clamp(-1, 1))
        with torch.no_grad():
            codes = unpack(packed, torch.float32)
            linear.weight.copy_(codes / scale.float() if divides else codes * scale.float())
        tensors |= {f"{name}.weight": packed, f"{name}.weight_scale": scale}
    return tensors, dict(quant_method="bitnet", modules_to_not_convert=None) | config


CHECKPOINTS = {
    "gptq": lambda model: gptq(model, 4, 32, True, "gptq", zero_bias=True),
    "gptq_row": lambda model: gptq(model, 8, -1, True, "gptq"),
    "gptq_asym": lambda model: gptq(model, 4, 64, False, "gptq", positive="o_proj"),
    "gptq_desc_act": lambda model: gptq(model, 4, 32, False, "gptq_v2", desc_act=True),
    "gptq_2bit": lambda model: gptq(model, 2, 32, False, "gptq_v2"),
    "gptq_3bit": lambda model: gptq(model, 3, 32, True, "gptq"),
    "awq": lambda model: awq(model, 32),
    "packed_4bit": lambda model: compressed(model, 4, "group", 64),
    "packed_4bit_asym": lambda model: compressed(model, 4, "group", 32, symmetric=False, dtype=torch.float16),
    "packed_8bit": lambda model: compressed(model, 8, "channel"),
    "int_8bit": lambda model: compressed(model, 8, "channel", form="int-quantized", dtype=torch.float16),
    "bitnet": lambda model: bitnet(model),
    "bitnet_auto": lambda model: bitnet(model, linear_class="autobitlinear", quantization_mode="offline"),
}


def write(name, root):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    model = base_model()
    quantized, config = CHECKPOINTS[name](model)
    with torch.no_grad():
        logits = model(torch.tensor([TOKENS]), use_cache=False).logits[0].numpy()
    replaced = {f"{linear}.weight" for linear in linears(model)}
    plain = {
        key: value.half() for key, value in model.state_dict().items() if key not in replaced and key != "lm_head.weight"
    }
    tensors = {key: value.contiguous().clone() for key, value in (plain | quantized).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads(model.config.to_json_string(use_diff=False)) | dict(MODEL, model_type="llama")
    kept = set(MODEL) | {"model_type", "hidden_act", "attention_bias", "mlp_bias"}
    settings = {key: value for key, value in sorted(settings.items()) if key in kept}
    settings |= dict(architectures=["LlamaForCausalLM"], dtype="float16", quantization_config=config)
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    numpy.save(folder / "logits.npy", logits)
    return logits


def check(name, root):
    logits = write(name, root)
    problems = []
    if json.loads((FOLDER / name / "config.json").read_text()) != json.loads((root / name / "config.json").read_text()):
        problems.append("config.json differs")
    left, right = (load_file(folder / name / "model.safetensors") for folder in (FOLDER, root))
    problems += [f"{key} differs" for key in left.keys() ^ right.keys()]
    problems += [f"{key} differs" for key in left.keys() & right.keys() if not torch.equal(left[key], right[key])]
    golden = numpy.load(FOLDER / name / "logits.npy")
    apart = numpy.abs(golden - logits).max() / numpy.abs(golden).max()
    return problems + ([f"logits are off by {apart:.1e} of the largest"] if not apart <= TOLERANCE else [])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=CHECKPOINTS, default=list(CHECKPOINTS))
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    failed = False
    with tempfile.TemporaryDirectory() as root:
        for name in options.only:
            if options.check:
                problems = check(name, Path(root))
                failed |= bool(problems)
                print(f"{name:20} {'; '.join(problems) or 'same'}")
            else:
                logits = write(name, FOLDER)
                size = sum(path.stat().st_size for path in (FOLDER / name).iterdir())
                print(f"{name:20} {size:8} bytes, logits deviate by {logits.std():.2f}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
