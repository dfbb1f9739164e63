#!/usr/bin/env python3
"""Writes one file for each block format: stored bytes and the exact f32 values that they stand for.

    python make.py        # needs `gguf` and `numpy`; rewrites *.bin beside this script, always the same

Layout, little-endian: u32 bytes of storage, u32 number of values, the storage, the values as f32.
Blocks begin with edge cases of their scales (zero, subnormal, largest, negative) over codes that are all zeros, all
ones, or random; the others have random codes and scales between 2^-14 and 2^-2.
"""
import pathlib
import struct

import gguf
import numpy as np

# Bytes of a block, offsets of its f16 scales, number of blocks.
FORMATS = {
    "F32": (4, [], 64),
    "F16": (2, [0], 256),
    "BF16": (2, [], 256),
    "Q4_0": (18, [0], 20),
    "Q4_1": (20, [0, 2], 20),
    "Q5_0": (22, [0], 20),
    "Q5_1": (24, [0, 2], 20),
    "Q8_0": (34, [0], 20),
    "IQ4_NL": (18, [0], 20),
    "Q2_K": (84, [80, 82], 12),
    "Q3_K": (110, [108], 12),
    "Q4_K": (144, [0, 2], 12),
    "Q5_K": (176, [0, 2], 12),
    "Q6_K": (210, [208], 12),
    "IQ4_XS": (136, [0], 12),
    "TQ1_0": (54, [52], 12),
    "TQ2_0": (66, [64], 12),
    "MXFP4": (17, [], 20),
    "NVFP4": (36, [], 20),
    "Q1_0": (18, [0], 15),
    "Q2_0": (18, [0], 15),
    "IQ2_XXS": (66, [0], 12),
    "IQ2_XS": (74, [0], 12),
    "IQ2_S": (82, [0], 12),
    "IQ3_XXS": (98, [0], 12),
    "IQ3_S": (110, [0], 12),
    "IQ1_S": (50, [0], 12),
    "IQ1_M": (56, [], 12),
}

# Pairs: the second value goes to the second scale of formats that have a minimum. No infinities, no NaN.
EDGES = [
    (0x0000, 0x0000),  # zero
    (0x8000, 0x3C00),  # -0, 1
    (0x0001, 0x8001),  # smallest subnormals
    (0x03FF, 0x0400),  # largest subnormal, smallest normal
    (0x83FF, 0x83FF),  # its negative
    (0x7BFF, 0x7BFF),  # largest
    (0xFBFF, 0x7BFF),  # its negative
    (0x3C01, 0xBC01),  # 1 + ulp: all mantissa bits matter
]


# Edges of the scales of NVFP4: zero, subnormal, smallest normal, largest, what is not a number, the eighth bit.
E4M3_EDGES = [0x00, 0x01, 0x07, 0x08, 0x7E, 0x7F, 0x80, 0xFF]


def dequantize(name: str, stored: np.ndarray) -> np.ndarray:
    """The values by `gguf`; by ggml's definition for the two types that `gguf` cannot decode."""
    if name not in ("Q1_0", "Q2_0"):
        return gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[name])
    scales = stored[:, :2].copy().view(np.float16).astype(np.float32)
    if name == "Q1_0":
        bits = np.unpackbits(stored[:, 2:], axis=1, bitorder="little").astype(np.float32)
        return scales * (2 * bits - 1)
    codes = stored[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8) & 3
    return scales * (codes.reshape(len(stored), -1).astype(np.float32) - 1)


def storage(name: str, block_bytes: int, scales: list[int], count: int) -> np.ndarray:
    random = np.random.default_rng(list(name.encode()))
    blocks = random.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    if name in ("F32", "BF16"):
        # Any finite value: clear one bit of the exponent, in the last byte.
        blocks[:, -1] &= 0xBF
        return blocks
    blocks[0], blocks[5, :], blocks[6, :] = 0, 0xFF, 0xFF
    if name == "MXFP4":
        # Powers of two that the levels do not carry beyond f32; the smallest are subnormal.
        blocks[:, 0] %= 251
        blocks[1:4, 0] = [1, 2, 250]
    if name == "NVFP4":
        blocks[: len(E4M3_EDGES), :4] = np.array(E4M3_EDGES, np.uint8)[:, None]
    for column, offset in enumerate(scales):
        values = np.exp2(random.uniform(-14, -2, count)) * random.choice([-1, 1], count)
        halves = values.astype(np.float16)
        halves[: len(EDGES)] = np.array([edge[column] for edge in EDGES], np.uint16).view(np.float16)
        blocks[:, offset : offset + 2] = halves.view(np.uint8).reshape(count, 2)
    if name == "IQ1_M":
        # The scale lies in the upper nibbles of four words. The edges, then any that are finite.
        halves = random.integers(0, 0x7C00, count, dtype=np.uint16)
        halves[: len(EDGES)] = [edge[0] for edge in EDGES]
        for word in range(4):
            blocks[:, 49 + 2 * word] &= 0x0F
            blocks[:, 49 + 2 * word] |= ((halves >> (4 * word) & 15) << 4).astype(np.uint8)
    return blocks


def main() -> None:
    folder = pathlib.Path(__file__).parent
    for name, (block_bytes, scales, count) in FORMATS.items():
        stored = storage(name, block_bytes, scales, count)
        values = dequantize(name, stored).astype("<f4").ravel()
        assert np.isfinite(values).all(), name
        head = struct.pack("<II", stored.size, values.size)
        (folder / f"{name.lower()}.bin").write_bytes(head + stored.tobytes() + values.tobytes())


if __name__ == "__main__":
    main()
