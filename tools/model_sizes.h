#pragma once

#include <cstdint>

#include "runtime/model_config.h"

namespace moraine::tools {

/// Bytes that the CPU backend's cache keeps per token over all layers, in f32: the latent and the rotated key, padded
/// to 16, or keys and values of all kv heads.
uint64_t kv_bytes_per_token(const runtime::ModelConfig& config);

/// Upper estimate of what a step of `rows` rows needs beside weights, cache and experts: activations, router, staging.
uint64_t scratch_bytes(const runtime::ModelConfig& config, int64_t rows);

}  // namespace moraine::tools
