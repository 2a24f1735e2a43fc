#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "offload/memory_plan.h"
#include "quant/expert_layout.h"
#include "runtime/model.h"

namespace moraine::tools {

/// Bytes that the CPU backend's cache keeps per token over all layers: the latent and the rotated key, or
/// keys and values of all kv heads, padded, as bf16 or f32 (cpu::cache_type). `shape`: runtime::model_shape().
uint64_t kv_bytes_per_token(const runtime::Model& shape, bool precise = false);

/// Upper estimate of what a step of `rows` rows needs beside weights, cache and experts: activations, router, staging.
uint64_t scratch_bytes(const runtime::ModelConfig& config, int64_t rows);

/// Room for the bytes of a dense model's streamed FFNs on their way to records.
uint64_t ffn_staging_bytes(uint64_t record_bytes);

/// The resident weights by what they are for, in the order in which a GPU would take them. Their sum is
/// shape.resident_bytes().
std::vector<offload::ResidentGroup> resident_groups(const runtime::Model& shape);

/// What a plan has to find room for. `shape`: runtime::model_shape(); `layouts`: [num_hidden_layers], meaningful for
/// layers with records; `chunk_rows`: the largest step; `precise`: as in cpu::CpuOptions.
offload::MemoryNeeds memory_needs(const runtime::Model& shape, std::span<const quant::ExpertLayout> layouts,
                                  int64_t chunk_rows, bool precise = false);

}  // namespace moraine::tools
