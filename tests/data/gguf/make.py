"""Writes small.gguf and the split model parts-0000N-of-00002.gguf with the PyPI package gguf: python3 make.py"""
import gguf
import numpy as np

Q8_0 = gguf.GGMLQuantizationType.Q8_0


def matrix(rows, cols):
    return (np.arange(rows * cols, dtype=np.float32) / 8 - 10).reshape(rows, cols)


def add_tensors(writer):
    writer.add_tensor("vector", np.array([0.5, -1.25, 3.0], dtype=np.float32))
    writer.add_tensor("half", matrix(2, 3).astype(np.float16))
    writer.add_tensor("blocks", gguf.quants.quantize(matrix(4, 64), Q8_0), raw_dtype=Q8_0)
    writer.add_tensor("stacked", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    writer.add_tensor("bytes", np.array([1, -2, 3], dtype=np.int8))


writer = gguf.GGUFWriter("small.gguf", "deepseek2")
writer.add_uint8("test.u8", 200)
writer.add_int8("test.i8", -100)
writer.add_uint16("test.u16", 60000)
writer.add_int16("test.i16", -30000)
writer.add_uint32("test.u32", 4000000000)
writer.add_int32("test.i32", -2000000000)
writer.add_uint64("test.u64", 1 << 40)
writer.add_int64("test.i64", -(1 << 40))
writer.add_float32("test.f32", 0.1)
writer.add_float64("test.f64", 0.1)
writer.add_bool("test.bool", True)
writer.add_string("test.string", "Ġthe\n")
writer.add_array("test.strings", ["a", "", "<｜User｜>"])
writer.add_array("test.integers", [1, -2, 3])
writer.add_array("test.floats", [0.5, 0.25])
writer.add_custom_alignment(64)
add_tensors(writer)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

writer = gguf.GGUFWriter("parts.gguf", "deepseek2", split_max_tensors=3)
add_tensors(writer)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
