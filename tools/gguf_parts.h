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

namespace moraine::tools {

/// One tensor of a GGUF file that is to be written: a resident one, or a stack of a layer's experts.
struct GgufEntry {
  quant::TensorInfo info;            ///< GGUF's name, type, shape
  runtime::ResidentTensor resident;  ///< what the checkpoint calls it; empty for a stack
};

/// The type of a resident matrix in the file. kv_b_proj is asked for as its halves k_b_proj [heads × kv_lora_rank,
/// nope] and v_b_proj [heads × v, kv_lora_rank], which newer programs want. Vectors and the router are F32, which other
/// programs expect.
using GgufTypeOf = std::function<quant::DType(const runtime::ResidentTensor& tensor)>;

/// A tensor of Llama 3 that no checkpoint has.
constexpr const char* kRopeFactors = "rope_freqs.weight";
/// What Llama 3's scaling divides the frequency of each pair by.
std::vector<float> gguf_rope_factors(const runtime::ModelConfig& config);  // [head_dim / 2]

/// Where a row of q_proj or k_proj lies in the file. Llama's converter puts the two rows that rope turns together side
/// by side; all other matrices stay as they are.
int64_t gguf_row(const runtime::ModelConfig& config, const runtime::ResidentTensor& tensor, int64_t row);

/// All tensors of a GGUF file that is to be written: the resident ones, then for every MoE layer the stacks of its
/// experts' gate, up and down.
struct GgufPlan {
  std::vector<GgufEntry> entries;
  size_t resident_count = 0;
  uint64_t total_bytes = 0;
};

/// How the experts of a MoE layer lie in the records that will be given.
using GgufLayoutOf = std::function<quant::ExpertLayout(int64_t layer)>;
GgufPlan plan_gguf(const runtime::ModelConfig& config, const GgufTypeOf& type_of, const GgufLayoutOf& layout_of);

/// Where the numbers come from.
struct GgufContent {
  std::function<void(size_t index, quant::GgufWriter& writer)> write_resident;  ///< all of plan.entries[index]
  GgufLayoutOf layout_of;
  /// The record of an expert; called from several threads.
  std::function<quant::AlignedBuffer(int64_t layer, int32_t expert)> make_expert;
  int records_in_memory = 1;  ///< that are being made, one thread each, or wait to be written
  std::string identity;       ///< a line that tells these numbers from others of the same types and shapes
};

using GgufProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes, const std::string& note)>;

/// Writes the whole file, going on where an earlier run stood. Throws quant::Error; the file has its name only if all
/// went well, and what is written is kept.
void write_gguf(const std::filesystem::path& file, const quant::GgufWriter::Metadata& metadata, const GgufPlan& plan,
                const runtime::ModelConfig& config, const GgufContent& content, const GgufProgress& progress);

/// Refuses a destination that exists (quant::Error kUsage) or has no room for what an interrupted run has not written
/// yet (kNotEnough). `free_bytes` is for tests; empty: statvfs.
void check_gguf_destination(const std::filesystem::path& file, uint64_t size_bytes, const FreeBytes& free_bytes);

}  // namespace moraine::tools
