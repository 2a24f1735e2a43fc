#include "runtime/checkpoint_experts.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <utility>

#include "quant/checksum.h"
#include "quant/error.h"

namespace moraine::runtime {
namespace {

/// The type a matrix gets: as wanted if its rows allow it, else the format that stands in.
quant::DType target_type(std::optional<quant::DType> wanted, quant::DType stored, int64_t cols) {
  return quant::packable_type(wanted.value_or(kept_type(stored)), cols);
}

quant::ExpertLayout layout_of(const CheckpointTensor (&matrices)[3], std::optional<quant::DType> wanted, int64_t hidden,
                              int64_t intermediate) {
  return quant::ExpertLayout::make(
      {target_type(wanted, matrices[0].weight->dtype, hidden), intermediate, hidden},
      {target_type(wanted, matrices[1].weight->dtype, hidden), intermediate, hidden},
      {target_type(wanted, matrices[2].weight->dtype, intermediate), hidden, intermediate});
}

/// FP8 comes with its own scales: it can be kept, not made (that would be a lossy step of its own).
void check_wanted(std::optional<quant::DType> wanted, const CheckpointTensor& tensor,
                  const quant::Checkpoint& checkpoint) {
  if (wanted != quant::DType::kF8E4M3 || tensor.weight->dtype == quant::DType::kF8E4M3) return;
  throw quant::Error(quant::ErrorKind::kUsage, {.what = "experts can be kept as F8_E4M3 only if they are stored so",
                                                .file = checkpoint.directory(),
                                                .item = tensor.weight->name,
                                                .got = std::string(quant::dtype_name(tensor.weight->dtype)),
                                                .action = "choose --experts BF16, Q8_0 or Q4_K"});
}

/// Matrices of this are finished side by side. Smaller ones are of routed experts, of which several are finished at
/// once.
constexpr uint64_t kParallelBytes = 32u << 20;

/// pack_checkpoint_tensor() in pieces of rows, so that numbers on their way through f32 take little memory.
void pack_in_pieces(quant::DType stored, std::span<const std::byte> weight, std::span<const std::byte> scale_inv,
                    const quant::MatrixDesc& desc, std::span<std::byte> out) {
  constexpr int64_t kPieceNumbers = 4 << 20;
  const int64_t rows = std::max(int64_t{1}, kPieceNumbers / desc.cols / quant::kRowGroup) * quant::kRowGroup;
  if (!scale_inv.empty() || rows >= desc.rows) {
    return pack_checkpoint_tensor(stored, weight, scale_inv, desc.type, desc.rows, desc.cols, out);
  }
  const uint64_t row_bytes = weight.size() / static_cast<uint64_t>(desc.rows);
  for (int64_t row = 0; row < desc.rows; row += rows) {
    const int64_t count = std::min(rows, desc.rows - row);
    const uint64_t out_bytes = quant::packed_bytes(desc.type, count, desc.cols);
    pack_checkpoint_tensor(
        stored, weight.subspan(static_cast<uint64_t>(row) * row_bytes, static_cast<uint64_t>(count) * row_bytes), {},
        desc.type, count, desc.cols, out.first(out_bytes));
    out = out.subspan(out_bytes);
  }
}

}  // namespace

std::string CheckpointExperts::Records::prefix(int64_t layer, int64_t expert) const {
  return are_routed ? fmt::format("model.layers.{}.mlp.experts.{}.", layer, expert)
                    : fmt::format("model.layers.{}.mlp.", layer);
}

CheckpointExperts::Records CheckpointExperts::routed_records(const ModelConfig& config, int64_t layer_count) {
  return {.first_layer = std::min(config.first_k_dense_replace, layer_count),
          .layer_count = layer_count,
          .per_layer = config.n_routed_experts,
          .hidden = config.hidden_size,
          .intermediate = config.moe_intermediate_size};
}

CheckpointExperts CheckpointExperts::dense_ffns(const quant::Checkpoint& checkpoint, const ModelConfig& config,
                                                std::optional<quant::DType> type) {
  MORAINE_CHECK(!config.has_experts());
  if (type == quant::DType::kF8E4M3) type.reset();
  return {checkpoint,
          Records{.layer_count = config.num_hidden_layers,
                  .per_layer = 1,
                  .hidden = config.hidden_size,
                  .intermediate = config.intermediate_size,
                  .are_routed = false},
          type};
}

CheckpointExperts::CheckpointExperts(const quant::Checkpoint& checkpoint, const Records& records,
                                     std::optional<quant::DType> type)
    : checkpoint_(checkpoint), files_(checkpoint.files()), records_(records) {
  if (quant::PackIndex::present(checkpoint.directory())) {
    for (const auto& [name, sum] : quant::PackIndex::read(checkpoint.directory()).tensor_checksums) {
      checksums_.emplace(name, sum);
    }
  }
  TensorFinder finder(checkpoint_);
  const char* const names[3] = {"gate_proj", "up_proj", "down_proj"};
  for (int64_t layer = records.first_layer; layer < records.layer_count; ++layer) {
    for (int64_t e = 0; e < records.per_layer; ++e) {
      Expert found;
      for (int m = 0; m < 3; ++m) {
        const bool down = m == 2;
        found.matrices[m] =
            finder.find(records.prefix(layer, e) + names[m] + ".weight", down ? records.hidden : records.intermediate,
                        down ? records.intermediate : records.hidden);
      }
      experts_.push_back(found);
      ids_.push_back({static_cast<int32_t>(layer), static_cast<int32_t>(e)});
    }
  }
  finder.check_complete();

  layouts_.resize(static_cast<size_t>(records.layer_count));
  for (const offload::ExpertId id : ids_) {
    const Expert& found = expert(id);
    for (const CheckpointTensor& matrix : found.matrices) check_wanted(type, matrix, checkpoint_);
    const quant::ExpertLayout layout = layout_of(found.matrices, type, records.hidden, records.intermediate);
    quant::ExpertLayout& of_layer = layouts_[static_cast<size_t>(id.layer)];
    if (id.expert == 0) of_layer = layout;
    if (!(layout == of_layer)) {
      throw quant::Error(
          quant::ErrorKind::kBadFile,
          {.what = fmt::format("the experts of layer {} are not all stored alike: expert {} differs from expert 0",
                               id.layer, id.expert),
           .file = checkpoint_.directory(),
           .item = found.matrices[0].weight->name,
           .action = "choose one format for all with --experts"});
    }
    max_record_bytes_ = std::max(max_record_bytes_, layout.record_bytes);
  }
}

const CheckpointExperts::Expert& CheckpointExperts::expert(offload::ExpertId id) const {
  const auto index = static_cast<size_t>((id.layer - records_.first_layer) * records_.per_layer + id.expert);
  MORAINE_CHECK(id.layer >= records_.first_layer && id.expert >= 0 && id.expert < records_.per_layer &&
                index < experts_.size());
  return experts_[index];
}

std::vector<offload::Extent> CheckpointExperts::extents(offload::ExpertId id) const {
  std::vector<offload::Extent> list;
  const auto add = [&](const quant::TensorInfo& tensor) {
    list.push_back({tensor.file, tensor.offset, tensor.size_bytes});
  };
  for (const CheckpointTensor& matrix : expert(id).matrices) {
    add(*matrix.weight);
    if (matrix.scale_inv != nullptr) add(*matrix.scale_inv);
  }
  return list;
}

void CheckpointExperts::check_sum(const quant::TensorInfo& tensor, std::span<const std::byte> bytes) const {
  const auto expected = checksums_.find(tensor.name);
  if (expected == checksums_.end()) return;
  const uint64_t got = quant::checksum(bytes);
  if (got == expected->second) return;
  throw quant::Error(quant::ErrorKind::kChecksum, {.what = "wrong checksum: the bytes are not those that were written",
                                                   .file = files_[static_cast<size_t>(tensor.file)],
                                                   .item = tensor.name,
                                                   .offset = tensor.offset,
                                                   .expected = quant::checksum_text(expected->second),
                                                   .got = quant::checksum_text(got),
                                                   .action = "check the drive, then convert the model again"});
}

void CheckpointExperts::finish(offload::ExpertId id, std::span<const std::byte> raw,
                               std::span<std::byte> record) const {
  const quant::ExpertLayout& layout = layouts_[static_cast<size_t>(id.layer)];
  const std::pair<const quant::MatrixDesc*, uint64_t> targets[3] = {
      {&layout.gate, 0}, {&layout.up, layout.up_offset_bytes}, {&layout.down, layout.down_offset_bytes}};
  const Expert& stored = expert(id);
  const auto bytes_of = [](const quant::TensorInfo* tensor) { return tensor != nullptr ? tensor->size_bytes : 0; };
  const auto make = [&](int m, std::span<const std::byte> bytes) {
    const CheckpointTensor& matrix = stored.matrices[m];
    const auto& [desc, offset_bytes] = targets[m];
    const auto weight = bytes.first(matrix.weight->size_bytes);
    const auto scale_inv = bytes.subspan(weight.size());
    check_sum(*matrix.weight, weight);
    if (matrix.scale_inv != nullptr) check_sum(*matrix.scale_inv, scale_inv);
    const auto out = record.subspan(offset_bytes, quant::packed_bytes(desc->type, desc->rows, desc->cols));
    try {
      pack_in_pieces(matrix.weight->dtype, weight, scale_inv, *desc, out);
    } catch (const quant::Error& error) {
      throw quant::Error(error.kind(), {.what = error.what(),
                                        .file = files_[static_cast<size_t>(matrix.weight->file)],
                                        .item = matrix.weight->name,
                                        .offset = matrix.weight->offset});
    }
  };
  std::future<void> others[2];
  for (int m = 0; m < 3; ++m) {
    const uint64_t size_bytes = bytes_of(stored.matrices[m].weight) + bytes_of(stored.matrices[m].scale_inv);
    const auto bytes = raw.first(size_bytes);
    raw = raw.subspan(size_bytes);
    // The FFN of a dense layer is waited for by all cores, and to re-lay it out takes longer than to read it.
    if (m < 2 && size_bytes >= kParallelBytes) {
      others[m] = std::async(std::launch::async, make, m, bytes);
    } else {
      make(m, bytes);
    }
  }
  for (std::future<void>& other : others) {
    if (other.valid()) other.get();
  }
}

}  // namespace moraine::runtime
