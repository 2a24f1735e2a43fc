#include "tools/gguf_exporter.h"

#include <fmt/format.h>

#include <algorithm>

#include "quant/dequantize.h"
#include "quant/error.h"
#include "quant/packed_matrix.h"
#include "quant/quantize.h"
#include "runtime/gguf_metadata.h"
#include "runtime/weight_loader.h"
#include "tools/engine_setup.h"
#include "tools/pack_parts.h"
#include "tools/record_reader.h"
#include "tools/source_fingerprint.h"

namespace moraine::tools {
namespace {

using quant::DType;

constexpr int64_t kPieceElements = int64_t{4} << 20;  // that are converted at a time
constexpr std::string_view kKeyHalf = "k_b_proj.weight", kValueHalf = "v_b_proj.weight", kKvB = "kv_b_proj.weight";

bool is_plain(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

/// Rows [first_row, first_row + rows) of a matrix as f32, from their bytes and all its FP8 scales.
std::vector<float> values_of(DType stored, std::span<const std::byte> bytes, std::span<const float> scale_inv,
                             int64_t first_row, int64_t rows, int64_t cols) {
  std::vector<float> values(static_cast<size_t>(rows * cols));
  if (stored != DType::kF8E4M3) {
    quant::dequantize_row(stored, bytes, values);
    return values;
  }
  MORAINE_CHECK(first_row % quant::kFp8Block == 0);
  const int64_t squares = (cols + quant::kFp8Block - 1) / quant::kFp8Block;
  const int64_t square_rows = (rows + quant::kFp8Block - 1) / quant::kFp8Block;
  quant::dequantize_fp8(bytes,
                        scale_inv.subspan(static_cast<size_t>(first_row / quant::kFp8Block * squares),
                                          static_cast<size_t>(square_rows * squares)),
                        rows, cols, values);
  return values;
}

std::vector<std::byte> quantized(DType type, std::span<const float> values, int64_t cols) {
  std::vector<std::byte> bytes(quant::row_bytes(type, cols) * (values.size() / static_cast<size_t>(cols)));
  quant::quantize_row(type, values, bytes);
  return bytes;
}

}  // namespace

GgufExporter::GgufExporter(GgufExportOptions options)
    : options_(std::move(options)),
      source_(runtime::ModelSource::open(options_.source)),
      config_(source_->config()),
      checkpoint_(source_->checkpoint()),
      loader_(checkpoint_),
      experts_(runtime::open_expert_source(checkpoint_, config_, options_.experts)) {
  const bool is_fp8 = std::any_of(experts_.layouts.begin(), experts_.layouts.end(), [](const auto& layout) {
    return layout.record_bytes > 0 && layout.gate.type == DType::kF8E4M3;
  });
  if (options_.experts == DType::kF8E4M3 || options_.resident == DType::kF8E4M3) {
    throw quant::Error(quant::ErrorKind::kUsage, {.what = "GGUF has no F8_E4M3", .action = "choose Q8_0 or BF16"});
  }
  if (is_fp8) experts_ = runtime::open_expert_source(checkpoint_, config_, DType::kQ8_0);
  find_sources();
  plan_ = plan_gguf(
      config_, [&](const runtime::ResidentTensor& tensor) { return type_of(tensor); },
      [&](int64_t layer) { return layout_of(layer); });
  check_gguf_destination(options_.destination, plan_.total_bytes, options_.free_bytes);
}

void GgufExporter::find_sources() {
  runtime::TensorFinder finder(checkpoint_);
  for (const runtime::ResidentTensor& tensor : runtime::resident_tensors(config_)) {
    const runtime::CheckpointTensor found = finder.find(tensor.name, tensor.rows, tensor.cols);
    if (!tensor.name.ends_with(kKvB)) {
      sources_[tensor.name] = found;
      continue;
    }
    const std::string prefix = tensor.name.substr(0, tensor.name.size() - kKvB.size());
    const bool in_halves = found.value_weight != nullptr;
    sources_[prefix + std::string(kKeyHalf)] = in_halves ? runtime::CheckpointTensor{.weight = found.weight} : found;
    sources_[prefix + std::string(kValueHalf)] =
        in_halves ? runtime::CheckpointTensor{.weight = found.value_weight} : found;
  }
  finder.check_complete();
}

DType GgufExporter::type_of(const runtime::ResidentTensor& tensor) const {
  const DType stored = sources_.at(tensor.name).weight->dtype;
  if (options_.resident && tensor.is_projection) return quant::packable_type(*options_.resident, tensor.cols);
  const bool is_combined_half = sources_.at(tensor.name).weight->name.ends_with(kKvB);
  if (stored == DType::kF8E4M3 || (is_combined_half && !is_plain(stored))) {
    return quant::packable_type(DType::kQ8_0, tensor.cols);
  }
  return stored;
}

const quant::ExpertLayout& GgufExporter::layout_of(int64_t layer) const {
  return experts_.layouts[static_cast<size_t>(layer)];
}

void GgufExporter::run(const GgufProgress& progress) {
  // Most of the weights: the experts, or in a dense model the feed-forward.
  DType most = DType::kF32;
  for (const GgufEntry& entry : plan_.entries) {
    if (entry.info.name.ends_with(config_.has_experts() ? ".ffn_up_exps.weight" : ".ffn_up.weight")) {
      most = entry.info.dtype;
    }
  }
  const RecordReader reader(*experts_.records);
  write_gguf(options_.destination, runtime::gguf_metadata(*source_, model_name(options_.source), most), plan_, config_,
             {.write_resident = [&](size_t index, quant::GgufWriter& writer) { write_resident(index, writer); },
              .layout_of = [&](int64_t layer) { return layout_of(layer); },
              .make_expert =
                  [&](int64_t layer, int32_t expert) {
                    return reader.read({.layer = static_cast<int32_t>(layer), .expert = expert});
                  },
              .records_in_memory = records_in_memory(options_.threads, 2 * most_bytes_per_record(*experts_.records)),
              .identity = identity()},
             progress);
}

std::string GgufExporter::identity() const {
  const auto name_of = [](std::optional<DType> type) { return type ? quant::dtype_name(*type) : "as stored"; };
  return fmt::format("moraine-export 1 source {} experts {} resident {}", source_fingerprint(*source_, checkpoint_),
                     name_of(options_.experts), name_of(options_.resident));
}

void GgufExporter::write_resident(size_t index, quant::GgufWriter& writer) const {
  const runtime::ResidentTensor& tensor = plan_.entries[index].resident;
  if (tensor.name == kRopeFactors) {
    const std::vector<float> factors = gguf_rope_factors(config_);
    return writer.write(index, 0, std::as_bytes(std::span(factors)));
  }
  const runtime::CheckpointTensor& source = sources_.at(tensor.name);
  if (tensor.cols == 0) {
    const std::vector<float> values = loader_.load_vector(source);
    writer.write(index, 0, std::as_bytes(std::span(values)));
  } else if (source.weight->name.ends_with(kKvB)) {
    write_half_of_kv_b(index, source, writer);
  } else {
    write_rows(index, source, writer);
  }
}

void GgufExporter::write_rows(size_t index, const runtime::CheckpointTensor& source, quant::GgufWriter& writer) const {
  const int64_t rows = plan_.entries[index].resident.rows, cols = plan_.entries[index].resident.cols;
  const DType stored = source.weight->dtype, type = plan_.entries[index].info.dtype;
  std::vector<float> scale_inv;
  if (source.scale_inv != nullptr) scale_inv = loader_.load_vector({.weight = source.scale_inv});
  const uint64_t stored_row_bytes = quant::row_bytes(stored, cols);
  const int64_t piece_rows =
      std::min(rows, std::max<int64_t>(1, kPieceElements / cols / quant::kFp8Block) * quant::kFp8Block);
  loader_.read(*source.weight, static_cast<uint64_t>(piece_rows) * stored_row_bytes,
               [&](uint64_t first_byte, std::span<const std::byte> piece) {
                 const auto first_row = static_cast<int64_t>(first_byte / stored_row_bytes);
                 const auto count = static_cast<int64_t>(piece.size() / stored_row_bytes);
                 if (stored == type) return put_rows(index, first_row, count, piece, writer);
                 const std::vector<float> values = values_of(stored, piece, scale_inv, first_row, count, cols);
                 put_rows(index, first_row, count, quantized(type, values, cols), writer);
               });
}

void GgufExporter::put_rows(size_t index, int64_t first_row, int64_t count, std::span<const std::byte> bytes,
                            quant::GgufWriter& writer) const {
  const runtime::ResidentTensor& tensor = plan_.entries[index].resident;
  const uint64_t row_bytes = quant::row_bytes(plan_.entries[index].info.dtype, tensor.cols);
  for (int64_t done = 0; done < count;) {
    // Rows that stay neighbours go together.
    const int64_t to = gguf_row(config_, tensor, first_row + done);
    int64_t run = 1;
    while (done + run < count && gguf_row(config_, tensor, first_row + done + run) == to + run) ++run;
    writer.write(index, static_cast<uint64_t>(to) * row_bytes,
                 bytes.subspan(static_cast<size_t>(done) * row_bytes, static_cast<size_t>(run) * row_bytes));
    done += run;
  }
}

void GgufExporter::write_half_of_kv_b(size_t index, const runtime::CheckpointTensor& source,
                                      quant::GgufWriter& writer) const {
  const int64_t heads = config_.num_attention_heads, nope = config_.qk_nope_head_dim, v = config_.v_head_dim;
  const int64_t latent = config_.kv_lora_rank, head_rows = nope + v, rows = heads * head_rows;
  std::vector<float> scale_inv;
  if (source.scale_inv != nullptr) scale_inv = loader_.load_vector({.weight = source.scale_inv});
  std::vector<float> all;  // [heads, nope | v, kv_lora_rank]
  loader_.read(*source.weight, source.weight->size_bytes, [&](uint64_t, std::span<const std::byte> bytes) {
    all = values_of(source.weight->dtype, bytes, scale_inv, 0, rows, latent);
  });
  const bool is_key = plan_.entries[index].resident.name.ends_with(kKeyHalf);
  std::vector<float> half;  // keys [heads, kv_lora_rank, nope], values [heads, v, kv_lora_rank]
  half.reserve(static_cast<size_t>(heads * latent * (is_key ? nope : v)));
  for (int64_t head = 0; head < heads; ++head) {
    const float* const first = all.data() + head * head_rows * latent;
    if (!is_key) {
      half.insert(half.end(), first + nope * latent, first + head_rows * latent);
      continue;
    }
    for (int64_t col = 0; col < latent; ++col) {
      for (int64_t row = 0; row < nope; ++row) half.push_back(first[row * latent + col]);
    }
  }
  writer.write(index, 0, quantized(plan_.entries[index].info.dtype, half, plan_.entries[index].resident.cols));
}

}  // namespace moraine::tools
