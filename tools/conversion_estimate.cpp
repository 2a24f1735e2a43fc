#include "tools/conversion_estimate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <vector>

#include "offload/disk_speed.h"
#include "quant/dequantize.h"
#include "quant/packed_matrix.h"
#include "quant/quantize.h"
#include "runtime/checkpoint_tensor.h"
#include "runtime/weight_loader.h"
#include "tools/byte_size.h"
#include "tools/pack_parts.h"
#include "tools/progress_bar.h"
#include "tools/random_weights.h"
#include "tools/record_reader.h"

namespace moraine::tools {
namespace {

constexpr double kGb = 1e9;

/// Bytes per second that one core takes of a matrix stored as `stored` to pack it as `type`. Random weights, because a
/// matrix of zeros is made faster.
double measure_packing(quant::DType stored, quant::DType type, int64_t cols) {
  constexpr int64_t kRows = quant::kFp8Block;
  constexpr double kMeasureS = 0.3;
  LaneRandom random(1, "estimate");
  std::vector<std::byte> weight(static_cast<size_t>(kRows) * quant::row_bytes(stored, cols)), scales;
  fill_tensor(random, stored, {.deviation = 0.02f}, weight);
  if (stored == quant::DType::kF8E4M3) {
    scales.resize(static_cast<size_t>((cols + quant::kFp8Block - 1) / quant::kFp8Block) * sizeof(float));
    fill_tensor(random, quant::DType::kF32, {.mean = 1e-4f}, scales);
  }
  std::vector<std::byte> packed(quant::packed_bytes(type, kRows, cols));
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  double elapsed_s = 0.0;
  uint64_t bytes = 0;
  do {
    runtime::pack_checkpoint_tensor(stored, weight, scales, type, kRows, cols, packed);
    bytes += weight.size() + scales.size();
    elapsed_s = std::chrono::duration<double>(Clock::now() - start).count();
  } while (elapsed_s < kMeasureS);
  return static_cast<double>(bytes) / elapsed_s;
}

/// The measured speed of making records, in GB per second and core; 0 where nothing is made of single tensors (a pack's
/// records are copied) or of types that are not measured.
double core_gb_per_s(const quant::Checkpoint& checkpoint, const runtime::ExpertSource& experts) {
  const offload::ExpertId id = experts.records->experts().front();
  const quant::MatrixDesc& gate = experts.layouts[static_cast<size_t>(id.layer)].gate;
  const quant::TensorInfo* stored =
      checkpoint.find(fmt::format("model.layers.{}.mlp.experts.{}.gate_proj.weight", id.layer, id.expert));
  if (stored == nullptr) return 0.0;
  const quant::DType type = stored->dtype;
  if (type != quant::DType::kF8E4M3 && type != quant::DType::kBF16 && type != quant::DType::kF32) return 0.0;
  return measure_packing(type, gate.type, gate.cols) / kGb;
}

}  // namespace

double ConversionEstimate::duration_s() const {
  const double make_s = make_gb_per_s > 0.0 ? static_cast<double>(expert_source_bytes) / kGb / make_gb_per_s : 0.0;
  const double disk_s = disk_gb_per_s.value_or(0.0) > 0.0
                            ? static_cast<double>(source_bytes + expert_bytes + resident_bytes) / kGb / *disk_gb_per_s
                            : 0.0;
  return std::max(make_s, disk_s);
}

ConversionEstimate estimate_conversion(const quant::Checkpoint& checkpoint, const runtime::ExpertSource& experts,
                                       const ConversionTarget& target) {
  ConversionEstimate estimate;
  estimate.source_files = checkpoint.files().size();
  estimate.source_tensors = checkpoint.tensors().size();
  estimate.expert_type = experts.type_name;
  estimate.threads = target.threads;
  uint64_t largest_resident_bytes = 0;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    estimate.source_bytes += tensor.size_bytes;
    if (!runtime::is_routed_expert_tensor(name)) {
      largest_resident_bytes = std::max(largest_resident_bytes, tensor.size_bytes);
    }
  }
  std::set<int32_t> layers;
  for (const offload::ExpertId id : experts.records->experts()) {
    layers.insert(id.layer);
    estimate.expert_bytes += experts.records->record_bytes(id);
    for (const offload::Extent& extent : experts.records->extents(id)) {
      estimate.expert_source_bytes += extent.size_bytes;
    }
  }
  estimate.expert_layers = layers.size();
  estimate.resident_bytes = target.total_bytes - std::min(target.total_bytes, estimate.expert_bytes);
  const uint64_t record_bytes = most_bytes_per_record(*experts.records);
  constexpr uint64_t kBytesPerTensor = 2048;  // its entry in the tables of checkpoint and experts, and the index's text
  estimate.memory_bytes =
      std::max(2 * largest_resident_bytes,
               static_cast<uint64_t>(records_in_memory(target.threads, record_bytes)) * record_bytes) +
      estimate.source_tensors * kBytesPerTensor + (64u << 20);
  if (!layers.empty()) estimate.make_gb_per_s = core_gb_per_s(checkpoint, experts) * target.threads;
  estimate.disk_gb_per_s = offload::measure_disk_gb_per_s(checkpoint.files());
  return estimate;
}

std::string estimate_text(const ConversionEstimate& estimate) {
  std::string text = fmt::format("reads      {} tensors in {} files, {}\n", estimate.source_tensors,
                                 estimate.source_files, byte_size_text(estimate.source_bytes));
  text += fmt::format("experts    {} in {} layers as {}\n", byte_size_text(estimate.expert_bytes),
                      estimate.expert_layers, estimate.expert_type);
  text += fmt::format("resident   {}\n", byte_size_text(estimate.resident_bytes));
  text +=
      fmt::format("memory     at most {} with {} threads\n", byte_size_text(estimate.memory_bytes), estimate.threads);
  text += fmt::format("time       about {}: ", duration_text(estimate.duration_s()));
  text += estimate.make_gb_per_s > 0.0
              ? fmt::format("{} threads take {:.2f} GB/s of the source, ", estimate.threads, estimate.make_gb_per_s)
              : std::string("nothing is quantized, ");
  text += estimate.disk_gb_per_s ? fmt::format("its drive gives {:.2f} GB/s\n", *estimate.disk_gb_per_s)
                                 : std::string("its drive could not be measured\n");
  return text;
}

}  // namespace moraine::tools
