#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace moraine::quant {

/// Every number format that a file can hold. Names are those of safetensors and GGUF.
enum class DType : uint8_t {
  // Computed with
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kIQ3_XXS,
  kIQ3_S,
  kIQ2_XXS,
  kIQ2_XS,
  kIQ2_S,
  kIQ1_S,
  kIQ1_M,
  // Valid in a safetensors file, refused where a weight is needed
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kI32,
  kU32,
  kI64,
  kU64,
  kF64,
  kC64,
  kF4,
  kF6E2M3,
  kF6E3M2,
};

/// The name as files write it: "F32", "F8_E4M3", "Q4_K", …
std::string_view dtype_name(DType type);

/// The dtype of that name, or nothing.
std::optional<DType> dtype_from_name(std::string_view name);

/// Elements per block: 1 for plain numbers, 32 or 256 for block formats.
int64_t block_elements(DType type);

/// Bits per block (sub-byte plain types: bits per element).
int64_t block_bits(DType type);

/// True if `type` can be a weight matrix (the first part of the enum).
bool is_weight_dtype(DType type);

/// The dtype that GGUF files write as number `ggml_type`, or nothing (types of run time, removed ones, unknown ones).
std::optional<DType> dtype_from_ggml_type(uint32_t ggml_type);

/// The number that GGUF files write for `type`, or nothing if they have none.
std::optional<uint32_t> ggml_type(DType type);

}  // namespace moraine::quant
