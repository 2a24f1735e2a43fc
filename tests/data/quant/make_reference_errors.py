"""Writes reference_errors.json: how far the blocks that ggml's own quantizer makes lie from the weights.

usage: make_reference_errors.py LIBGGML_BASE_SO > reference_errors.json      (pip install gguf)

The library is in any program that is built from ggml; the wheel of pywhispercpp 1.5.1 (MIT licence) brings that of ggml 0.13.1.
The weights are those of tests/quant/quantize_test.cpp: SplitMix64, Box-Muller.
"""

import ctypes
import json
import sys

import gguf
import numpy as np

TYPES = "Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split()


class RandomValues:
    """tests/support/random_values.h"""

    def __init__(self, seed):
        self.state = np.uint64(seed)

    def uniform(self, count):
        step = np.uint64(0x9E3779B97F4A7C15)
        with np.errstate(over="ignore"):
            z = self.state + np.arange(1, count + 1, dtype=np.uint64) * step
            self.state = z[-1]
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, count):
        pairs = self.uniform(2 * count).reshape(count, 2)
        return np.sqrt(-2.0 * np.log(1.0 - pairs[:, 0])) * np.cos(2.0 * np.pi * pairs[:, 1])

    def weights(self, count, scale=0.02):
        return self.normal(count) * scale * np.where(np.arange(count) % 64 == 63, 4.0, 1.0)


def data():
    random = RandomValues(7)
    sets = {"weights": random.weights(1 << 15)}
    sets["uniform"] = random.uniform(1 << 13) * 2 - 1
    sets["one_sided"] = np.abs(random.normal(1 << 13)) * 1e-3
    sets["scaled"] = random.normal(1 << 13) * np.exp2(np.arange(1 << 13) // 32 % 8 - 4.0)
    sets["normal"] = RandomValues(1).weights(1 << 20, 1.0)
    return {name: values.astype(np.float32) for name, values in sets.items()}


def main():
    ggml = ctypes.CDLL(sys.argv[1])
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    errors = {}
    for type_name in TYPES:
        type = gguf.GGMLQuantizationType[type_name]
        block, block_bytes = gguf.GGML_QUANT_SIZES[type]
        errors[type_name] = {}
        for name, values in data().items():
            blocks = np.zeros(values.size // block * block_bytes, dtype=np.uint8)
            written = ggml.ggml_quantize_chunk(type.value, values.ctypes.data, blocks.ctypes.data, 0, 1, values.size, None)
            assert written == blocks.size
            difference = gguf.quants.dequantize(blocks, type).astype(np.float64) - values
            errors[type_name][name] = float(f"{np.sqrt(np.mean(difference**2)):.9g}")
    print(json.dumps(errors, indent=1))


if __name__ == "__main__":
    main()
