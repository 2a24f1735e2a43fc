#include "runtime/checkpoint_experts.h"

#include <fmt/format.h>

#include <algorithm>

#include "quant/error.h"

namespace moraine::runtime {
namespace {

/// The type a matrix gets: as wanted if its rows allow it, else the format that stands in.
quant::DType target_type(std::optional<quant::DType> wanted, quant::DType stored, int64_t cols) {
  return quant::packable_type(wanted.value_or(kept_type(stored)), cols);
}

quant::ExpertLayout layout_of(const CheckpointTensor (&matrices)[3], std::optional<quant::DType> wanted,
                              const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.moe_intermediate_size;
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

}  // namespace

CheckpointExperts::CheckpointExperts(const quant::Checkpoint& checkpoint, const ModelConfig& config,
                                     int64_t layer_count, std::optional<quant::DType> type)
    : checkpoint_(checkpoint),
      files_(checkpoint.files()),
      first_layer_(std::min(config.first_k_dense_replace, layer_count)),
      n_routed_experts_(config.n_routed_experts) {
  TensorFinder finder(checkpoint_);
  const char* const names[3] = {"gate_proj", "up_proj", "down_proj"};
  for (int64_t layer = first_layer_; layer < layer_count; ++layer) {
    for (int64_t e = 0; e < n_routed_experts_; ++e) {
      Expert found;
      for (int m = 0; m < 3; ++m) {
        const bool down = m == 2;
        found.matrices[m] = finder.find(fmt::format("model.layers.{}.mlp.experts.{}.{}.weight", layer, e, names[m]),
                                        down ? config.hidden_size : config.moe_intermediate_size,
                                        down ? config.moe_intermediate_size : config.hidden_size);
      }
      experts_.push_back(found);
      ids_.push_back({static_cast<int32_t>(layer), static_cast<int32_t>(e)});
    }
  }
  finder.check_complete();

  layouts_.resize(static_cast<size_t>(layer_count));
  for (const offload::ExpertId id : ids_) {
    const Expert& found = expert(id);
    for (const CheckpointTensor& matrix : found.matrices) check_wanted(type, matrix, checkpoint_);
    const quant::ExpertLayout layout = layout_of(found.matrices, type, config);
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
  const auto index = static_cast<size_t>((id.layer - first_layer_) * n_routed_experts_ + id.expert);
  MORAINE_CHECK(id.layer >= first_layer_ && id.expert >= 0 && id.expert < n_routed_experts_ && index < experts_.size());
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

void CheckpointExperts::finish(offload::ExpertId id, std::span<const std::byte> raw,
                               std::span<std::byte> record) const {
  const quant::ExpertLayout& layout = layouts_[static_cast<size_t>(id.layer)];
  const struct {
    const quant::MatrixDesc& desc;
    uint64_t offset_bytes;
  } targets[3] = {{layout.gate, 0}, {layout.up, layout.up_offset_bytes}, {layout.down, layout.down_offset_bytes}};
  const Expert& stored = expert(id);
  size_t at = 0;
  for (int m = 0; m < 3; ++m) {
    const CheckpointTensor& matrix = stored.matrices[m];
    const quant::MatrixDesc& desc = targets[m].desc;
    const auto weight = raw.subspan(at, matrix.weight->size_bytes);
    at += weight.size();
    const auto scale_inv =
        matrix.scale_inv != nullptr ? raw.subspan(at, matrix.scale_inv->size_bytes) : std::span<const std::byte>();
    at += scale_inv.size();
    const auto out = record.subspan(targets[m].offset_bytes, quant::packed_bytes(desc.type, desc.rows, desc.cols));
    try {
      pack_checkpoint_tensor(matrix.weight->dtype, weight, scale_inv, desc.type, desc.rows, desc.cols, out);
    } catch (const quant::Error& error) {
      throw quant::Error(error.kind(), {.what = error.what(),
                                        .file = files_[static_cast<size_t>(matrix.weight->file)],
                                        .item = matrix.weight->name,
                                        .offset = matrix.weight->offset});
    }
  }
}

}  // namespace moraine::runtime
