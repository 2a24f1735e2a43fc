#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "quant/safetensors.h"
#include "runtime/model.h"

namespace moraine::runtime {

/// Called as resident bytes arrive.
using LoadProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes)>;

/// True for a tensor of a routed expert (model.layers.L.mlp.experts.E.…).
bool is_routed_expert_tensor(const std::string& name);

/// Loads every resident tensor of the main model, as stored (F8_E4M3 stays F8_E4M3 with its scales, BF16 stays BF16,
/// F16 becomes F32). In a pack, every tensor's checksum is verified. Throws quant::Error: all missing tensors in one
/// message, wrong dtype or shape with expected and got, kChecksum for a wrong byte.
Model load_model(const quant::Checkpoint& checkpoint, const ModelConfig& config, const LoadProgress& progress = {});

/// Bytes load_model() will take, from headers alone.
uint64_t resident_bytes(const quant::Checkpoint& checkpoint, const ModelConfig& config);

}  // namespace moraine::runtime
