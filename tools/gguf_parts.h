#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "quant/aligned_buffer.h"
#include "quant/expert_layout.h"
#include "quant/gguf.h"
#include "runtime/weight_loader.h"
#include "tools/pack_destination.h"
#include "tools/pack_parts.h"

namespace moraine::tools {

/// One tensor of a GGUF file that is to be written: a resident one, or a stack of a layer's experts.
struct GgufEntry {
  quant::TensorInfo info;            ///< GGUF's name, type, shape
  runtime::ResidentTensor resident;  ///< what the checkpoint calls it; empty for a stack
};

/// The type of a resident matrix in the file. kv_b_proj is asked for as its halves k_b_proj [heads × kv_lora_rank,
/// nope] and v_b_proj [heads × v, kv_lora_rank], which newer programs want.
using GgufTypeOf = std::function<quant::DType(const runtime::ResidentTensor& tensor)>;

/// All resident tensors of a model in the order of the walk through it. Vectors and the router are F32, which other
/// programs expect. A Llama 3 has kRopeFactors, too, which no checkpoint has.
std::vector<GgufEntry> gguf_resident_entries(const runtime::ModelConfig& config, const GgufTypeOf& type_of);

constexpr const char* kRopeFactors = "rope_freqs.weight";
/// What Llama 3's scaling divides the frequency of each pair by.
std::vector<float> gguf_rope_factors(const runtime::ModelConfig& config);  // [head_dim / 2]

/// Where a row of q_proj or k_proj lies in the file. Llama's converter puts the two rows that rope turns together side
/// by side; all other matrices stay as they are.
int64_t gguf_row(const runtime::ModelConfig& config, const runtime::ResidentTensor& tensor, int64_t row);

/// gate, up and down of all experts of a layer, as three stacks.
std::vector<GgufEntry> gguf_expert_entries(int layer, int64_t n_experts, const quant::ExpertLayout& layout);

/// The places in the file of what gguf_expert_entries() listed: the first of three, and how to fill them.
struct GgufExpertTask {
  size_t first_tensor = 0;
  quant::ExpertLayout layout;
  int n_experts = 0;
  int threads = 1;   ///< that make records; no more than as many are in memory
  std::string note;  ///< for `advance`
};

/// Writes a layer's experts. `make` gives the record of an expert; it is called from several threads. Throws
/// quant::Error.
void write_gguf_experts(quant::GgufWriter& writer, const GgufExpertTask& task,
                        const std::function<quant::AlignedBuffer(int32_t expert)>& make, const PackAdvance& advance);

/// Refuses a destination that exists (quant::Error kUsage) or has no room for the file (kNotEnough). `free_bytes` is
/// for tests; empty: statvfs.
void check_gguf_destination(const std::filesystem::path& file, uint64_t size_bytes, const FreeBytes& free_bytes);

}  // namespace moraine::tools
