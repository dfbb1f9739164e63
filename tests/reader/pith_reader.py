"""Reads `.pith` files of version 2, as docs/format.md specifies them.

Needs numpy and xxhash (Debian: python3-numpy, python3-xxhash). Example:

    import pith_reader
    pith = pith_reader.read("model.pith")
    weights = pith.tensor("layers.0.ffn.up")    # float32, rows x columns
"""

import json
import mmap
import struct
from dataclasses import dataclass

import numpy as np

try:
    import xxhash
except ImportError as error:
    raise ImportError("checksums need the package xxhash (Debian: python3-xxhash)") from error

MAGIC = b"\x89PITH\r\n\x1a"
VERSION = 2
HEADER_BYTES = 128
ENTRY_BYTES = 64
MAX_GAP = 65536
NONE = 0xFFFFFFFF
MATRIX, VECTOR, BYTES = 0, 1, 2
LEN = 1 << 24
COUNT = 65536


class FormatError(ValueError):
    """The file breaks a rule of the format."""


def require(condition, message):
    if not condition:
        raise FormatError(message)


def xxh3(*runs):
    """xxh3-64, seed 0, over runs of bytes one after the other."""
    state = xxhash.xxh3_64()
    for run in runs:
        state.update(run)
    return state.intdigest()


def align8(offset):
    return (offset + 7) // 8 * 8


# --- Roles: tag -> (name, kind) -------------------------------------------------------------------

MATRICES = {
    2: "embedding.token", 3: "embedding.position", 52: "output.head", 54: "output.head.residual",
    12: "attention.query", 13: "attention.key", 14: "attention.value", 20: "attention.output",
    23: "convolution.input", 24: "convolution.kernel", 25: "convolution.output",
    60: "recurrence.input", 61: "recurrence.kernel", 62: "recurrence.gate",
    63: "recurrence.rate", 64: "recurrence.decay", 68: "recurrence.output",
    32: "ffn.gate", 34: "ffn.up", 36: "ffn.down", 40: "ffn.router", 42: "ffn.shared.gate",
    43: "ffn.shared.up", 44: "ffn.shared.down", 45: "ffn.shared.router",
}
VECTORS = {
    4: "embedding.norm", 50: "output.norm", 51: "output.norm.bias", 53: "output.head.bias",
    10: "mixer.norm", 11: "mixer.norm.bias", 22: "mixer.post_norm",
    15: "attention.query.bias", 16: "attention.key.bias", 17: "attention.value.bias",
    18: "attention.query.norm", 19: "attention.key.norm", 21: "attention.output.bias",
    26: "convolution.input.bias", 27: "convolution.kernel.bias", 28: "convolution.output.bias",
    65: "recurrence.decay.bias", 66: "recurrence.decay.log", 67: "recurrence.norm",
    30: "ffn.norm", 31: "ffn.norm.bias", 33: "ffn.gate.bias", 35: "ffn.up.bias",
    37: "ffn.down.bias", 38: "ffn.post_norm", 41: "ffn.router.bias",
}
ROLES = {1: ("tokenizer", BYTES)}
ROLES |= {tag: (name, MATRIX) for tag, name in MATRICES.items()}
ROLES |= {tag: (name, VECTOR) for tag, name in VECTORS.items()}

# --- Encodings: tiles, an array of uint8 (tiles, BYTES) -> float32 (tiles, 16, COLS) --------------


def scales(tiles, offset, groups, cols):
    """f16 scales of `groups` equal groups of columns, widened: float32 (tiles, 16, cols)."""
    raw = tiles[:, offset:offset + 32 * groups]
    values = np.ascontiguousarray(raw).view("<f2").astype(np.float32).reshape(-1, groups, 16)
    return np.repeat(values.transpose(0, 2, 1), cols // groups, axis=2)


def plane(tiles, offset, bits, cols):
    """One bit plane of codes: uint8 (tiles, 16, cols)."""
    lines = tiles[:, offset:offset + 2 * cols * bits].reshape(-1, cols // 64, 2 * bits, 16, 4)
    parts = [lines >> (bits * i) & ((1 << bits) - 1) for i in range(8 // bits)]
    codes = np.stack(parts, axis=2)             # tile, run, shift, line, row, column
    return codes.transpose(0, 4, 1, 2, 3, 5).reshape(-1, 16, cols)


def decode_plain(dtype):
    def decode(tiles):
        return tiles.view(dtype).reshape(-1, 4, 16).transpose(0, 2, 1).astype(np.float32)
    return decode


def decode_q8(tiles):
    lines = tiles[:, :1024].reshape(-1, 16, 16, 4).view(np.int8)
    levels = lines.transpose(0, 2, 1, 3).reshape(-1, 16, 64)
    return scales(tiles, 1024, 2, 64) * levels.astype(np.float32)


def levels_of_q4(group):
    def levels(tiles):
        lines = tiles[:, :16 * group].reshape(-1, 2, group // 8, 16, 4)
        codes = np.stack([lines & 15, lines >> 4], axis=2)  # tile, group, half, line, row, column
        codes = codes.transpose(0, 4, 1, 2, 3, 5).reshape(-1, 16, 2 * group)
        return codes.astype(np.float32) - np.float32(8), 16 * group
    return levels


def decode_q4(group):
    def decode(tiles):
        levels, scale_offset = levels_of_q4(group)(tiles)
        return scales(tiles, scale_offset, 2, 2 * group) * levels
    return decode


def codes_of(tiles, planes, cols):
    """`planes`: (bits, offset) each, lowest bits first."""
    codes, low = np.uint8(0), 0
    for bits, offset in planes:
        codes = codes | plane(tiles, offset, bits, cols) << low
        low += bits
    return codes


def decode_planes(planes, levels, scale_offset, groups, factor_offset=None):
    """128 columns. `levels`: the level of each code."""
    levels = np.array(levels, np.float32)

    def decode(tiles):
        scale = scales(tiles, scale_offset, groups, 128)
        if factor_offset is not None:
            nibbles = integers(tiles, factor_offset, 4, 4)
            values = (nibbles % 8 + 1).astype(np.float32)
            scale = scale * np.repeat(np.where(nibbles >= 8, -values, values), 32, axis=2)
        return scale * levels[codes_of(tiles, planes, 128)]
    return decode


def levels_of_q3(tiles):
    """Of q3-g32."""
    return codes_of(tiles, [(2, 0), (1, 512)], 128).astype(np.float32) - np.float32(4), 768


def integers(tiles, offset, bits, groups):
    """The integers of 4, 6 or 8 bits of all groups: (tiles, 16, groups)."""
    if bits == 8:
        values = tiles[:, offset:offset + 16 * groups].view(np.int8).reshape(-1, groups, 16)
        return values.transpose(0, 2, 1)
    pairs = tiles[:, offset:offset + 8 * groups].reshape(-1, groups // 2, 1, 16)
    values = (pairs >> np.array([0, 4], np.uint8)[:, None] & 15).reshape(-1, groups, 16)
    if bits == 6:
        quads = tiles[:, offset + 8 * groups:offset + 12 * groups].reshape(-1, groups // 4, 1, 16)
        high = (quads >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3).reshape(-1, groups, 16)
        values = values | high << 4
    return values.transpose(0, 2, 1)


def decode_ggml(cols, planes, group, levels, scale, minimum=None, factor=None, min_factor=None):
    """`scale`, `minimum`: offsets of f16. `factor`: (bits, offset, what is subtracted)."""
    levels, groups = np.array(levels, np.float32), cols // group

    def multiplier(tiles, offset, factor, sign):
        if factor is None:
            return scales(tiles, offset, groups, cols)
        bits, at, less = factor
        values = integers(tiles, at, bits, groups).astype(np.float32) - np.float32(less)
        return scales(tiles, offset, 1, cols) * np.repeat(np.float32(sign) * values, group, axis=2)

    def decode(tiles):
        values = multiplier(tiles, scale, factor, 1) * levels[codes_of(tiles, planes, cols)]
        if minimum is not None:
            values = values + multiplier(tiles, minimum, min_factor, -1)
        return values
    return decode


def decode_mxfp4(tiles):
    powers = tiles[:, 512:544].reshape(-1, 2, 16).astype(np.int32) - 128
    powers = np.repeat(np.ldexp(np.float32(1), powers).transpose(0, 2, 1), 32, axis=2)
    return powers * np.array(FP4, np.float32)[codes_of(tiles, [(4, 0)], 64)]


def decode_affine(planes, words, unit):
    def decode(tiles):
        word = tiles[:, words:words + 64].view("<u2").reshape(-1, 2, 16).astype(np.int32)
        exponent, fraction, zero = word >> 11, word >> 7 & 15, word & 127
        scale = np.ldexp(np.float32(1) + fraction.astype(np.float32) / np.float32(16), exponent - 20)
        minimum = -(scale * zero.astype(np.float32)) * np.float32(unit)
        scale, minimum = (np.repeat(part.transpose(0, 2, 1), 32, axis=2) for part in (scale, minimum))
        return scale * codes_of(tiles, planes, 64).astype(np.float32) + minimum
    return decode


def decode_nested(cols, first_levels, planes, low_bits, groups):
    """Tiles of both parts side by side. `first_levels`: the levels of the first part, and the offset
    of its scales. `planes`: those of the low bits."""
    def decode(tiles):
        levels, scale_offset = first_levels(tiles)
        whole, half = np.float32(1 << low_bits), np.float32(1 << low_bits >> 1)
        low = codes_of(tiles, planes, cols).astype(np.float32) - half
        codes = np.maximum(levels * whole + low, np.float32(-128))
        return scales(tiles, scale_offset, groups, cols) / whole * codes
    return decode


def decode_tq1(tiles):
    lines = tiles[:, :832].reshape(-1, 13, 1, 16, 4)
    shifted = lines * np.array([1, 3, 9, 27, 81], np.uint8)[:, None, None]      # modulo 256
    digits = (shifted.astype(np.uint16) * 3 >> 8).reshape(-1, 65, 16, 4)[:, :64]
    levels = digits.transpose(0, 2, 1, 3).reshape(-1, 16, 256).astype(np.float32) - np.float32(1)
    return scales(tiles, 832, 1, 256) * levels


Q4_NL = [-64, -52, -42, -33, -25, -18, -11, -5, 1, 7, 13, 19, 27, 35, 45, 57]
Q3 = [-63, -40, -23, -10, 1, 13, 28, 47]
Q2 = [-31, -13, 1, 17]

IQ4 = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
FP4 = [-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12, 0]

# tag -> (name, COLS, BYTES, decoder)
ENCODINGS = {
    0: ("f32", 4, 256, decode_plain("<f4")),
    1: ("f16", 4, 128, decode_plain("<f2")),
    8: ("q8", 64, 1088, decode_q8),
    6: ("q6", 128, 1600, decode_planes([(4, 0), (2, 1024)], range(-32, 32), 1536, 2)),
    9: ("q5", 128, 1344, decode_planes([(4, 0), (1, 1024)], range(-16, 16), 1280, 2)),
    4: ("q4", 64, 576, decode_q4(32)),
    5: ("q4-g64", 128, 1088, decode_q4(64)),
    10: ("q4-nl", 128, 1088, decode_planes([(4, 0)], Q4_NL, 1024, 2)),
    3: ("q3", 128, 832, decode_planes([(2, 0), (1, 512)], Q3, 768, 1, 800)),
    2: ("q2", 128, 576, decode_planes([(2, 0)], Q2, 512, 1, 544)),
    29: ("q3-g32", 128, 896, decode_planes([(2, 0), (1, 512)], range(-4, 4), 768, 4)),
    11: ("ternary", 128, 544, decode_planes([(2, 0)], range(-1, 3), 512, 1)),
    12: ("q4-1", 64, 640, decode_ggml(64, [(4, 0)], 32, range(16), 512, 576)),
    13: ("q5-0", 64, 704, decode_ggml(64, [(4, 0), (1, 512)], 32, range(-16, 16), 640)),
    14: ("q5-1", 64, 768, decode_ggml(64, [(4, 0), (1, 512)], 32, range(32), 640, 704)),
    15: ("iq4-nl", 64, 576, decode_ggml(64, [(4, 0)], 32, IQ4, 512)),
    16: ("mxfp4", 64, 544, decode_mxfp4),
    17: ("q2-k", 256, 1344,
         decode_ggml(256, [(2, 0)], 16, range(4), 1024, 1056, (4, 1088, 0), (4, 1216, 0))),
    18: ("q3-k", 256, 1760,
         decode_ggml(256, [(2, 0), (1, 1024)], 16, range(-4, 4), 1536, None, (6, 1568, 32))),
    19: ("q4-k", 256, 2304,
         decode_ggml(256, [(4, 0)], 32, range(16), 2048, 2080, (6, 2112, 0), (6, 2208, 0))),
    20: ("q5-k", 256, 2816,
         decode_ggml(256, [(4, 0), (1, 2048)], 32, range(32), 2560, 2592, (6, 2624, 0), (6, 2720, 0))),
    21: ("q6-k", 256, 3360,
         decode_ggml(256, [(4, 0), (2, 2048)], 16, range(-32, 32), 3072, None, (8, 3104, 0))),
    22: ("iq4-xs", 256, 2176, decode_ggml(256, [(4, 0)], 32, IQ4, 2048, None, (6, 2080, 32))),
    23: ("tq1", 256, 864, decode_tq1),
    24: ("tq2", 256, 1056, decode_ggml(256, [(2, 0)], 256, range(-1, 3), 1024)),
    25: ("q6-a", 64, 832, decode_affine([(4, 0), (2, 512)], 768, 1 / 2)),
    26: ("q5-a", 64, 704, decode_affine([(4, 0), (1, 512)], 640, 1 / 4)),
    27: ("q4-a", 64, 576, decode_affine([(4, 0)], 512, 1 / 8)),
    28: ("q3-a", 64, 448, decode_affine([(2, 0), (1, 256)], 384, 1 / 16)),
    30: ("q8-n4", 64, 1088, decode_nested(64, levels_of_q4(32), [(4, 576)], 4, 2)),
    31: ("q8-n3", 128, 2176, decode_nested(128, levels_of_q3, [(4, 896), (1, 1920)], 5, 4)),
}

# tag -> bytes of the tile of the first part; the others have one part
FIRST_BYTES = {30: 576, 31: 896}


def matrix_bytes(rows, cols, encoding):
    _, tile_cols, tile_bytes, _ = ENCODINGS[encoding]
    return -(-rows // 16) * -(-cols // tile_cols) * tile_bytes


def decode_matrix(data, rows, cols, encoding):
    """`data`: bytes of a matrix. Gives float32 (rows, cols), without padding."""
    _, tile_cols, tile_bytes, decode = ENCODINGS[encoding]
    blocks, across = -(-rows // 16), -(-cols // tile_cols)
    first_bytes = FIRST_BYTES.get(encoding, tile_bytes)
    parts = np.split(np.frombuffer(data, np.uint8), [blocks * across * first_bytes])
    tiles = np.concatenate([part.reshape(blocks * across, -1) for part in parts], axis=1)
    values = decode(tiles).reshape(blocks, across, 16, tile_cols).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(values.reshape(blocks * 16, across * tile_cols)[:rows, :cols])


# --- Metadata -------------------------------------------------------------------------------------


def load_json(data, where):
    def unique(pairs):
        keys = [key for key, _ in pairs]
        require(len(set(keys)) == len(keys), f"{where}: a field is there twice")
        return dict(pairs)

    def refuse(constant):
        raise FormatError(f"{where}: {constant} is not a number")

    try:
        text = bytes(data).decode()
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: {error}") from error


def text(value, where):
    require(isinstance(value, str), f"{where} is not a string")


def boolean(value, where):
    require(isinstance(value, bool), f"{where} is not a bool")


def integer(low=0, high=(1 << 64) - 1):
    def check(value, where):
        require(type(value) is int and low <= value <= high,
                f"{where} is not an integer from {low} to {high}")
    return check


def real(value, where):
    require(type(value) in (int, float) and abs(value) < 3.5e38 and np.isfinite(np.float32(value)),
            f"{where} is not a finite f32")


def positive(value, where):
    real(value, where)
    require(np.float32(value) > 0, f"{where} is not greater than 0")


def not_negative(value, where):
    real(value, where)
    require(np.float32(value) >= 0, f"{where} is less than 0")


def share(value, where):
    not_negative(value, where)
    require(np.float32(value) <= 1, f"{where} is greater than 1")


def part(value, where):
    positive(value, where)
    share(value, where)


def not_zero(value, where):
    real(value, where)
    require(np.float32(value) != 0, f"{where} is 0")


def choice(*names):
    def check(value, where):
        require(value in names, f"{where}: {value!r} is unknown")
    return check


def optional(check):
    """Checks what may be null."""
    return lambda value, where: None if value is None else check(value, where)


def list_of(check_item, low=0, high=None):
    def check(value, where):
        require(isinstance(value, list), f"{where} is not a list")
        require(low <= len(value) and (high is None or len(value) <= high),
                f"{where} has {len(value)} elements")
        for i, item in enumerate(value):
            check_item(item, f"{where}[{i}]")
    return check


def record(checks, ignore_unknown=False):
    """Checks an object. A field whose name ends with `?` may be absent."""
    known = {name.rstrip("?"): check for name, check in checks.items()}
    needed = [name for name in checks if not name.endswith("?")]

    def check(value, where):
        require(isinstance(value, dict), f"{where} is not an object")
        for name in needed:
            require(name in value, f"{where} lacks {name}")
        for name, item in value.items():
            if name in known:
                known[name](item, f"{where}.{name}")
            else:
                require(ignore_unknown, f"{where} has the unknown field {name}")
    return check


def tagged(kinds):
    """Checks an object whose `kind` selects the checks of its other fields."""
    def check(value, where):
        require(isinstance(value, dict) and "kind" in value, f"{where} has no kind")
        kind = value["kind"]
        require(isinstance(kind, str) and kind in kinds, f"{where}: the kind {kind!r} is unknown")
        record({"kind": text} | kinds[kind])(value, where)
    return check


WIDTH, COUNTS = integer(1, LEN), integer(1, COUNT)
INNER = {"len": WIDTH, "activation": choice("silu", "gelu", "gelu_tanh")}
MIXER = tagged({
    "attention": {
        "query_heads": list_of(COUNTS, 1, COUNT), "head_dim": COUNTS, "scale": not_zero,
        "softcap?": positive, "qk_norm?": boolean, "window?": integer(1), "rope?": integer()},
    "short_convolution": {"channels": integer(1, LEN // 3), "kernel_len": COUNTS},
    "gated_linear_recurrence": {
        "key_heads": COUNTS, "value_heads": COUNTS, "key_dim": COUNTS, "value_dim": COUNTS,
        "kernel_len": COUNTS},
    "none": {},
})
FEED_FORWARD = tagged({
    "gated": INNER,
    "plain": INNER,
    "none": {},
    "experts": {
        "count": COUNTS, "per_token": COUNTS, "expert": record(INNER), "gated": boolean,
        "score": choice("softmax", "sigmoid"), "normalized": boolean, "scale": positive,
        "shared?": record(INNER)},
})
ROPE = record({
    "dim": integer(2), "inv_freq": list_of(real, 1), "magnitude": positive,
    "long_inv_freq?": list_of(real, 1), "long_from?": integer()})
MODEL = record({
    "name": text, "family": text, "vocab_len": WIDTH, "hidden_len": WIDTH, "context_len": WIDTH,
    "norm": choice("rms", "layer"), "norm_epsilon": positive, "embedding_scale": positive,
    "tied_head": boolean, "logit_softcap?": positive, "bos?": integer(),
    "eos?": list_of(integer()), "rope?": list_of(ROPE, 0, 16),
    "layers": list_of(record(
        {"mixer": MIXER, "feed_forward": FEED_FORWARD, "parallel?": boolean}), 1, 4096),
})
PROVENANCE = record({
    "converter": text, "recipe": text, "recipe_file?": text,
    "source": record({"kind": choice("huggingface", "gguf"), "name": text,
                      "tensor_bytes": integer(), "checksum": text}),
    "passes?": list_of(record({"name": text, "zeros": integer(),
                               "bytes_saved": integer(-(1 << 63), (1 << 63) - 1)})),
})
SAMPLING = record({
    "temperature?": not_negative, "top_k?": integer(), "top_p?": part, "min_p?": share,
    "repeat_penalty?": positive, "repeat_window?": integer()})
METADATA = record({
    "model": MODEL, "chat_template?": text, "sampling?": SAMPLING, "provenance": PROVENANCE})


def check_metadata(metadata):
    METADATA(metadata, "metadata")
    model = metadata["model"]
    for token in [model.get("bos", 0)] + model.get("eos", []):
        require(token < model["vocab_len"], f"the token id {token} is not below vocab_len")
    tables = model.get("rope", [])
    for i, table in enumerate(tables):
        where = f"model.rope[{i}]"
        require(table["dim"] % 2 == 0, f"{where}.dim is odd")
        for name in ("inv_freq", "long_inv_freq"):
            require(2 * len(table.get(name, table["inv_freq"])) == table["dim"],
                    f"{where}.{name} does not have dim/2 elements")
        require(("long_inv_freq" in table) == ("long_from" in table),
                f"{where} has one of long_inv_freq and long_from")
    for i, layer in enumerate(model["layers"]):
        check_layer(layer, tables, f"model.layers[{i}]")


def check_layer(layer, tables, where):
    mixer, block = layer["mixer"], layer["feed_forward"]
    if layer.get("parallel"):
        require("none" not in (mixer["kind"], block["kind"]), f"{where}: half of it is none")
    if "rope" in mixer:
        require(mixer["rope"] < len(tables), f"{where}: the rotary table does not exist")
        require(tables[mixer["rope"]]["dim"] <= mixer["head_dim"],
                f"{where}: the rotary table is wider than a head")
    if mixer["kind"] == "gated_linear_recurrence":
        require(mixer["value_heads"] % mixer["key_heads"] == 0,
                f"{where}: value_heads is not a multiple of key_heads")
    if block["kind"] == "experts":
        require(block["per_token"] <= block["count"], f"{where}: per_token exceeds count")


# --- Tensors of a configuration -------------------------------------------------------------------


def model_tensors(model):
    """{role name: shape} of the tensors outside of layers. `?` marks those that may be absent."""
    hidden, vocab = model["hidden_len"], model["vocab_len"]
    tensors = {
        "tokenizer?": None, "embedding.token": (vocab, hidden),
        "embedding.position?": (model["context_len"], hidden), "embedding.norm?": (hidden,),
        "output.norm": (hidden,), "output.head.bias?": (vocab,),
        "output.head.residual?": (vocab, hidden)}
    if model["norm"] == "layer":
        tensors["output.norm.bias?"] = (hidden,)
    if not model["tied_head"]:
        tensors["output.head"] = (vocab, hidden)
    return tensors


def mixer_tensors(mixer, hidden):
    if mixer["kind"] == "attention":
        dim = mixer["head_dim"]
        q, k = sum(mixer["query_heads"]) * dim, len(mixer["query_heads"]) * dim
        norms = {"attention.query.norm": (dim,), "attention.key.norm": (dim,)}
        return (norms if mixer.get("qk_norm") else {}) | {
            "attention.query": (q, hidden), "attention.query.bias?": (q,),
            "attention.key": (k, hidden), "attention.key.bias?": (k,),
            "attention.value": (k, hidden), "attention.value.bias?": (k,),
            "attention.output": (hidden, q), "attention.output.bias?": (hidden,)}
    if mixer["kind"] == "short_convolution":
        c = mixer["channels"]
        return {
            "convolution.input": (3 * c, hidden), "convolution.input.bias?": (3 * c,),
            "convolution.kernel": (c, mixer["kernel_len"]), "convolution.kernel.bias?": (c,),
            "convolution.output": (hidden, c), "convolution.output.bias?": (hidden,)}
    if mixer["kind"] == "gated_linear_recurrence":
        heads = mixer["value_heads"]
        m = heads * mixer["value_dim"]
        width = 2 * mixer["key_heads"] * mixer["key_dim"] + m
        return {
            "recurrence.input": (width, hidden),
            "recurrence.kernel": (width, mixer["kernel_len"]),
            "recurrence.gate": (m, hidden), "recurrence.rate": (heads, hidden),
            "recurrence.decay": (heads, hidden), "recurrence.decay.bias": (heads,),
            "recurrence.decay.log": (heads,), "recurrence.norm": (mixer["value_dim"],),
            "recurrence.output": (hidden, m)}
    return {}


def block_tensors(length, gated, hidden):
    """Tensors of a gated or plain block, or of one expert."""
    tensors = {
        "ffn.up": (length, hidden), "ffn.up.bias?": (length,),
        "ffn.down": (hidden, length), "ffn.down.bias?": (hidden,)}
    if gated:
        tensors |= {"ffn.gate": (length, hidden), "ffn.gate.bias?": (length,)}
    return tensors


def router_tensors(block, hidden):
    tensors = {"ffn.router": (block["count"], hidden), "ffn.router.bias?": (block["count"],)}
    if "shared" in block:
        length = block["shared"]["len"]
        tensors |= {"ffn.shared.up": (length, hidden), "ffn.shared.down": (hidden, length),
                    "ffn.shared.router?": (1, hidden)}
        if block["gated"]:
            tensors["ffn.shared.gate"] = (length, hidden)
    return tensors


def layer_tensors(layer, model):
    """Yields (expert, {role name: shape}) of a layer's tensors."""
    hidden, bias = model["hidden_len"], model["norm"] == "layer"
    mixer, block = layer["mixer"], layer["feed_forward"]
    tensors = mixer_tensors(mixer, hidden)
    if mixer["kind"] != "none":
        tensors |= {"mixer.norm": (hidden,), "mixer.post_norm?": (hidden,)}
        tensors |= {"mixer.norm.bias?": (hidden,)} if bias else {}
    if block["kind"] != "none":
        norm = "ffn.norm?" if layer.get("parallel") else "ffn.norm"
        tensors |= {norm: (hidden,), "ffn.post_norm?": (hidden,)}
        tensors |= {"ffn.norm.bias?": (hidden,)} if bias else {}
    if block["kind"] in ("gated", "plain"):
        tensors |= block_tensors(block["len"], block["kind"] == "gated", hidden)
    if block["kind"] == "experts":
        tensors |= router_tensors(block, hidden)
        expert = block_tensors(block["expert"]["len"], block["gated"], hidden)
        for i in range(block["count"]):
            yield i, expert
    yield NONE, tensors


def expected_tensors(model):
    """{(role name, layer, expert): (shape, whether it must be there)}; shape None is any."""
    groups = [(NONE, NONE, model_tensors(model))]
    for i, layer in enumerate(model["layers"]):
        groups += [(i, expert, tensors) for expert, tensors in layer_tensors(layer, model)]
    return {
        (name.rstrip("?"), layer, expert): (shape, not name.endswith("?"))
        for layer, expert, tensors in groups for name, shape in tensors.items()}


# --- Directory ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One tensor. `encoding` is a tag, 255 for vectors and bytes; offsets and sizes in bytes."""
    name: str
    role: str
    kind: int
    encoding: int
    layer: int
    expert: int
    rows: int
    cols: int
    offset: int
    bytes: int
    checksum: int


def parse_entry(data):
    (role, kind, encoding, layer, expert, zero, rows, cols, offset, size, checksum,
     zeros) = struct.unpack("<HBBIIIQQQQQQ", data)
    require(role in ROLES, f"the role {role} is unknown")
    role, role_kind = ROLES[role]
    name = role if expert == NONE else f"experts.{expert}.{role}"
    name = name if layer == NONE else f"layers.{layer}.{name}"
    require(kind in (MATRIX, VECTOR, BYTES), f"{name}: the kind {kind} is unknown")
    require(kind == role_kind, f"{name}: the kind {kind} is not its role's")
    if kind == MATRIX:
        require(encoding in ENCODINGS, f"{name}: the encoding {encoding} is unknown")
    else:
        require(encoding == 255, f"{name}: it has the encoding {encoding}")
        require(cols == 1, f"{name}: it has {cols} columns")
    require(zero == 0 and zeros == 0, f"{name}: a reserved field is not 0")
    return Entry(name, role, kind, encoding, layer, expert, rows, cols, offset, size, checksum)


def check_entry(entry, expected):
    key = (entry.role, entry.layer, entry.expert)
    require(key in expected, f"{entry.name}: the configuration gives it no place")
    shape, _ = expected[key]
    found = (entry.rows, entry.cols) if entry.kind == MATRIX else (entry.rows,)
    require(shape in (None, found), f"{entry.name}: its shape is {found}, not {shape}")
    if entry.kind == MATRIX:
        size = matrix_bytes(entry.rows, entry.cols, entry.encoding)
    else:
        size = entry.rows * (4 if entry.kind == VECTOR else 1)
    require(entry.bytes == size > 0, f"{entry.name}: it has {entry.bytes} bytes, not {size}")


def check_directory(entries, model, header):
    expected = expected_tensors(model)
    seen, end = set(), HEADER_BYTES
    for entry in entries:
        check_entry(entry, expected)
        key = (entry.role, entry.layer, entry.expert)
        require(key not in seen, f"{entry.name} is there twice")
        seen.add(key)
        require(entry.offset % 64 == 0, f"{entry.name}: its offset is no multiple of 64")
        require(end <= entry.offset < end + MAX_GAP and entry.offset >= header.data_offset,
                f"{entry.name}: its offset is out of place")
        end = entry.offset + entry.bytes
    require(end == header.data_offset + header.data_bytes, "the data does not end with a tensor")
    for key, (_, needed) in expected.items():
        require(not needed or key in seen, f"a tensor is missing: {key[0]} of layer {key[1]}, "
                f"expert {key[2]}")


# --- Header ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """Offsets and sizes in bytes, but for `entry_count`."""
    file_bytes: int
    data_offset: int
    data_bytes: int
    metadata_offset: int
    metadata_bytes: int
    index_offset: int
    index_bytes: int
    directory_offset: int
    entry_count: int
    checksum: int


def parse_header(data):
    require(data[:8] == MAGIC, "it is not a .pith file")
    require(len(data) >= 16, "the file ends in its header")
    version, header_bytes = struct.unpack_from("<II", data, 8)
    require(version == VERSION, f"the version {version} is not supported")
    require(header_bytes == HEADER_BYTES, f"the header has {header_bytes} bytes")
    require(len(data) >= HEADER_BYTES, "the file ends in its header")
    header = Header(*struct.unpack_from("<9Q", data, 16), *struct.unpack_from("<Q", data, 120))
    require(header.file_bytes == len(data),
            f"the file has {len(data)} bytes, not {header.file_bytes}")
    require(header.data_offset % 64 == 0 and HEADER_BYTES <= header.data_offset <= MAX_GAP,
            "data_offset is out of place")
    require(header.metadata_offset == align8(header.data_offset + header.data_bytes),
            "metadata_offset is out of place")
    require(header.index_offset == align8(header.metadata_offset + header.metadata_bytes),
            "index_offset is out of place")
    require(header.directory_offset == align8(header.index_offset + header.index_bytes),
            "directory_offset is out of place")
    require(header.directory_offset + ENTRY_BYTES * header.entry_count == len(data),
            "entry_count does not fit the file")
    checksum = xxh3(data[:120], *sections(data, header))
    require(checksum == header.checksum, "the checksum of the header differs")
    require(not any(data[88:120]), "the reserved bytes of the header are not zeros")
    return header


def sections(data, header):
    """The bytes of metadata, block index and directory."""
    starts = (header.metadata_offset, header.index_offset, header.directory_offset)
    sizes = (header.metadata_bytes, header.index_bytes, ENTRY_BYTES * header.entry_count)
    return [data[start:start + size] for start, size in zip(starts, sizes, strict=True)]


# --- Tokenizer ------------------------------------------------------------------------------------

TEXT, LITERAL, BYTE, ABSENT = range(4)


@dataclass(frozen=True)
class Vocabulary:
    """`tokens[id]` is (kind, text); `merges` are (left, right, result), the best rank first.

    `scores` is an array of f32 or f64, one a token, or None. `settings` is the JSON object.
    """
    tokens: list
    merges: list
    scores: np.ndarray | None
    settings: dict

    def piece(self, token):
        """The bytes that an id stands for within a text."""
        kind, part = self.tokens[token]
        replace = self.settings.get("decoding", {}).get("replace", [])
        return part if kind == BYTE else replaced(part, replace)

    def decode(self, ids):
        """The text of a sequence of ids."""
        decoding = self.settings.get("decoding", {})
        leading = decoding.get("leading", "Keep")
        parts = [self.piece(token) for token in ids]
        if parts and "FirstToken" in leading:
            parts[0] = parts[0].replace(leading["FirstToken"]["character"].encode(), b"")
        joined = decoding.get("separator", "").encode().join(parts)
        if "Strip" in leading:
            strip = leading["Strip"]
            for _ in range(min(strip["count"], len(joined))):
                joined = joined.removeprefix(strip["character"].encode())
        return joined.decode("utf-8", "replace")


def replaced(part, pairs):
    try:
        string = part.decode()
    except UnicodeDecodeError:
        return part
    for old, new in pairs:
        string = string.replace(old, new)
    return string.encode()


class Cursor:
    """Reads the tokenizer's blob from front to back."""

    def __init__(self, data, at):
        self.data, self.at = data, at

    def take(self, size):
        part = self.data[self.at:self.at + size]
        require(len(part) == size, "tokenizer: it ends too early")
        self.at += size
        return part

    def varint(self):
        value = 0
        for i in range(9):
            byte = self.take(1)[0]
            value |= (byte & 127) << (7 * i)
            if byte < 128:
                return value
        raise FormatError("tokenizer: a number has more than 9 bytes")


def parse_tokenizer(data):
    require(data[:8] == b"PITHTOK\0" and len(data) >= 40, "tokenizer: it has no header")
    (version, settings_bytes, token_count, text_bytes, merge_count, score_bytes,
     checksum) = struct.unpack_from("<6IQ", data, 8)
    require(version == 1, f"tokenizer: the version {version} is not supported")
    require(score_bytes in (0, 4, 8), f"tokenizer: scores of {score_bytes} bytes")
    require(xxh3(data[:32], data[40:]) == checksum, "tokenizer: its checksum differs")
    cursor = Cursor(data, 40)
    settings = load_json(cursor.take(settings_bytes), "tokenizer: the settings")
    codes = [cursor.varint() for _ in range(token_count)]
    require(sum(code // 4 for code in codes) == text_bytes, "tokenizer: text_bytes is wrong")
    tokens = [(code % 4, cursor.take(code // 4)) for code in codes]
    merges = parse_merges(cursor, merge_count)
    scores = None
    if score_bytes:
        raw = cursor.take(score_bytes * token_count)
        scores = np.frombuffer(raw, f"<f{score_bytes}")
    require(cursor.at == len(data), "tokenizer: something follows the scores")
    vocabulary = Vocabulary(tokens, merges, scores, settings)
    check_vocabulary(vocabulary)
    return vocabulary


def parse_merges(cursor, count):
    merges, result = [], 0
    for _ in range(count):
        left, right, code = cursor.varint(), cursor.varint(), cursor.varint()
        result += -(code + 1) // 2 if code % 2 else code // 2
        merges.append((left, right, result))
    return merges


def check_vocabulary(vocabulary):
    tokens, scores, settings = vocabulary.tokens, vocabulary.scores, vocabulary.settings
    for i, (kind, token) in enumerate(tokens):
        require(len(token) <= 65535, f"tokenizer: the text of token {i} is too long")
        require(kind != BYTE or len(token) == 1, f"tokenizer: token {i} is not one byte")
        require(kind != ABSENT or not token, f"tokenizer: the absent token {i} has a text")
    require(scores is None or np.isfinite(scores).all(), "tokenizer: a score is not finite")
    SETTINGS(settings, "tokenizer: the settings")
    model = settings["model"]
    require((scores is None) == (model["type"] == "Bpe"), "tokenizer: are there scores?")
    require(model["type"] == "Bpe" or not vocabulary.merges, "tokenizer: merges without Bpe")
    ids = [token["id"] for token in settings.get("added", [])]
    ids += settings.get("prefix", []) + settings.get("suffix", [])
    ids += [model["unk"]] if model.get("unk") is not None else []
    ids += [i for merge in vocabulary.merges for i in merge]
    for i in ids:
        require(0 <= i < len(tokens), f"tokenizer: there is no token {i}")


def content(value, where):
    text(value, where)
    require(1 <= len(value.encode()) <= 4096, f"{where} does not have 1 to 4096 bytes")


def character(value, where):
    text(value, where)
    require(len(value) == 1, f"{where} is not one character")


def steps(types, members):
    """Checks the types of a normalizer or pre-tokenizer and of all that it consists of."""
    def check(value, where):
        count, left = 0, [value]
        while left:
            step = left.pop()
            require(isinstance(step, dict), f"{where} is not an object")
            choice(*types)(step.get("type"), f"{where}: a type")
            if step["type"] == "Sequence":
                require(isinstance(step.get(members), list), f"{where}: {members} is no list")
                left += step[members]
            else:
                count += 1
        require(count <= 64, f"{where} has {count} members")
    return check


def replacement(value, where):
    list_of(text, 2, 2)(value, where)
    old, new = (part.encode() for part in value)
    require(0 < len(old) >= len(new), f"{where}: the replacement is longer, or of nothing")


def leading(value, where):
    if value != "Keep":
        record({"Strip?": record({"character": character, "count": integer()}),
                "FirstToken?": record({"character": character})})(value, where)
        require(len(value) == 1, f"{where} is not one of its kinds")


NORMALIZERS = (
    "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "Strip", "BertNormalizer",
    "Prepend", "Replace", "Precompiled", "Sequence", "SentencePiece")
PRE_TOKENIZERS = (
    "ByteLevel", "Split", "Digits", "Metaspace", "Punctuation", "CharDelimiterSplit", "Whitespace",
    "WhitespaceSplit", "BertPreTokenizer", "UnicodeScripts", "Sequence")
SETTINGS = record({
    "model": record({
        "type": choice("Bpe", "Spm", "Unigram"), "unk?": optional(integer()),
        "byte_level?": boolean, "ignore_merges?": boolean, "byte_fallback?": boolean,
        "fuse_unk?": boolean, "single_precision?": boolean}, True),
    "normalizer?": optional(steps(NORMALIZERS, "normalizers")),
    "pre_tokenizer?": optional(steps(PRE_TOKENIZERS, "pretokenizers")),
    "added?": list_of(record({
        "id": integer(), "content": content, "single_word?": boolean, "lstrip?": boolean,
        "rstrip?": boolean, "special?": boolean,
        "stage?": choice("Raw", "Normalized", "Frozen")}, True)),
    "prefix?": list_of(integer()),
    "suffix?": list_of(integer()),
    "decoding?": record(
        {"separator?": text, "replace?": list_of(replacement), "leading?": leading}, True),
}, True)


# --- The file -------------------------------------------------------------------------------------


class Pith:
    """One file. `metadata` is its JSON object, `entries` a list of Entry in the file's order."""

    def __init__(self, data):
        self.data = data
        self.header = parse_header(data)
        metadata, index, directory = sections(data, self.header)
        self.metadata = load_json(metadata, "metadata")
        check_metadata(self.metadata)
        self.entries = [parse_entry(directory[at:at + ENTRY_BYTES])
                        for at in range(0, len(directory), ENTRY_BYTES)]
        check_directory(self.entries, self.metadata["model"], self.header)
        # No encoding of version 2 has blocks of different sizes.
        require(len(index) == 0, f"the block index has {len(index)} bytes, not 0")
        self.by_name = {entry.name: entry for entry in self.entries}

    def raw(self, name):
        """The bytes of a tensor, compared with its checksum."""
        entry = self.by_name[name]
        data = self.data[entry.offset:entry.offset + entry.bytes]
        require(xxh3(data) == entry.checksum, f"{name}: its checksum differs")
        return data

    def tensor(self, name):
        """A matrix as float32 (rows, cols), a vector as float32 (rows,)."""
        entry, data = self.by_name[name], self.raw(name)
        if entry.kind == MATRIX:
            return decode_matrix(data, entry.rows, entry.cols, entry.encoding)
        if entry.kind == VECTOR:
            return np.frombuffer(data, "<f4").astype(np.float32)
        raise KeyError(f"{name} is neither a matrix nor a vector")

    def vocabulary(self):
        """The tokenizer as a Vocabulary, or None where the file has none."""
        return parse_tokenizer(self.raw("tokenizer")) if "tokenizer" in self.by_name else None

    def verify(self):
        """Compares the checksums of all tensors and looks at all gaps."""
        for entry in self.entries:
            self.raw(entry.name)
        header = self.header
        runs = [(entry.offset, entry.bytes) for entry in self.entries]
        runs += [(header.metadata_offset, header.metadata_bytes),
                 (header.index_offset, header.index_bytes), (header.directory_offset, 0)]
        end = HEADER_BYTES
        for offset, size in runs:
            require(not any(self.data[end:offset]), f"the gap at {end} does not hold zeros")
            end = offset + size


def read(path, verify=True):
    """Opens a file and checks it. Without `verify`, gaps are not read, and the checksum of a
    tensor is compared only when it is asked for."""
    with open(path, "rb") as file:
        require(file.seek(0, 2) > 0, "the file is empty")
        pith = Pith(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if verify:
        pith.verify()
    return pith
