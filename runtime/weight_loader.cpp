#include "runtime/weight_loader.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "quant/checksum.h"
#include "quant/dequantize.h"
#include "quant/error.h"
#include "quant/expert_pack.h"
#include "runtime/checkpoint_tensor.h"

namespace moraine::runtime {
namespace {

/// Where a resident tensor of the checkpoint goes: a matrix [rows, cols] or a vector [rows].
struct Destination {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 0;  ///< 0 for a vector
  Matrix* matrix = nullptr;
  std::vector<float>* vector = nullptr;
};

/// Every resident tensor of the main model, in the order of the walk through it. Sizes `model.layers`.
std::vector<Destination> destinations(const ModelConfig& config, Model& model) {
  std::vector<Destination> list;
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols, Matrix& to) {
    list.push_back({.name = name + ".weight", .rows = rows, .cols = cols, .matrix = &to});
  };
  const auto vector = [&](const std::string& name, int64_t size, std::vector<float>& to) {
    list.push_back({.name = name, .rows = size, .vector = &to});
  };
  const auto ffn = [&](const std::string& prefix, int64_t intermediate, FfnWeights& to) {
    matrix(prefix + "gate_proj", intermediate, config.hidden_size, to.gate_proj);
    matrix(prefix + "up_proj", intermediate, config.hidden_size, to.up_proj);
    matrix(prefix + "down_proj", config.hidden_size, intermediate, to.down_proj);
  };
  model.layers.resize(static_cast<size_t>(config.num_hidden_layers));
  matrix("model.embed_tokens", config.vocab_size, config.hidden_size, model.embed_tokens);
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
    LayerWeights& layer = model.layers[static_cast<size_t>(l)];
    const std::string prefix = fmt::format("model.layers.{}.", l);
    const std::string attention = prefix + "self_attn.";
    const int64_t heads = config.num_attention_heads;
    vector(prefix + "input_layernorm.weight", config.hidden_size, layer.input_layernorm);
    matrix(attention + "q_a_proj", config.q_lora_rank, config.hidden_size, layer.q_a_proj);
    vector(attention + "q_a_layernorm.weight", config.q_lora_rank, layer.q_a_layernorm);
    matrix(attention + "q_b_proj", heads * config.qk_head_dim(), config.q_lora_rank, layer.q_b_proj);
    matrix(attention + "kv_a_proj_with_mqa", config.latent_width(), config.hidden_size, layer.kv_a_proj_with_mqa);
    vector(attention + "kv_a_layernorm.weight", config.kv_lora_rank, layer.kv_a_layernorm);
    matrix(attention + "kv_b_proj", heads * (config.qk_nope_head_dim + config.v_head_dim), config.kv_lora_rank,
           layer.kv_b_proj);
    matrix(attention + "o_proj", config.hidden_size, heads * config.v_head_dim, layer.o_proj);
    vector(prefix + "post_attention_layernorm.weight", config.hidden_size, layer.post_attention_layernorm);
    if (config.is_moe_layer(l)) {
      matrix(prefix + "mlp.gate", config.n_routed_experts, config.hidden_size, layer.gate);
      vector(prefix + "mlp.gate.e_score_correction_bias", config.n_routed_experts, layer.e_score_correction_bias);
      ffn(prefix + "mlp.shared_experts.", config.shared_intermediate_size(), layer.ffn);
    } else {
      ffn(prefix + "mlp.", config.intermediate_size, layer.ffn);
    }
  }
  vector("model.norm.weight", config.hidden_size, model.norm);
  matrix("lm_head", config.vocab_size, config.hidden_size, model.lm_head);
  return list;
}

uint64_t kept_bytes(const Destination& to, const CheckpointTensor& tensor) {
  return to.vector != nullptr ? static_cast<uint64_t>(to.rows) * sizeof(float)
                              : quant::packed_bytes(kept_type(tensor.weight->dtype), to.rows, to.cols);
}

/// Reads tensors and, in a pack, compares them with the checksums of its index.
class TensorReader {
 public:
  explicit TensorReader(const quant::Checkpoint& checkpoint) : checkpoint_(checkpoint) {
    if (!quant::PackIndex::present(checkpoint.directory())) return;
    for (const auto& [name, value] : quant::PackIndex::read(checkpoint.directory()).tensor_checksums) {
      checksums_.emplace(name, value);
    }
  }

  std::vector<std::byte> read(const quant::TensorInfo& tensor) const {
    std::vector<std::byte> bytes(tensor.size_bytes);
    checkpoint_.read(tensor, bytes);
    const auto expected = checksums_.find(tensor.name);
    if (expected == checksums_.end() || quant::checksum(bytes) == expected->second) return bytes;
    checkpoint_.read(tensor, bytes);  // a wrong byte may have come from the bus, not from the medium
    if (quant::checksum(bytes) == expected->second) return bytes;
    throw quant::Error(quant::ErrorKind::kChecksum,
                       {.what = "wrong checksum: the bytes are not those that were written",
                        .file = checkpoint_.files()[static_cast<size_t>(tensor.file)],
                        .item = tensor.name,
                        .offset = tensor.offset,
                        .expected = quant::checksum_text(expected->second),
                        .got = quant::checksum_text(quant::checksum(bytes)),
                        .action = "check the drive, then convert the model again"});
  }

  /// Adds the place to an error that only knows what is wrong with the numbers.
  quant::Error located(const quant::Error& error, const quant::TensorInfo& tensor) const {
    return quant::Error(error.kind(), {.what = error.what(),
                                       .file = checkpoint_.files()[static_cast<size_t>(tensor.file)],
                                       .item = tensor.name,
                                       .offset = tensor.offset});
  }

 private:
  const quant::Checkpoint& checkpoint_;
  std::map<std::string, uint64_t, std::less<>> checksums_;
};

void load_tensor(const TensorReader& reader, const CheckpointTensor& tensor, const Destination& to) {
  const std::vector<std::byte> weight = reader.read(*tensor.weight);
  if (to.vector != nullptr) {
    to.vector->resize(static_cast<size_t>(to.rows));
    quant::dequantize_row(tensor.weight->dtype, weight, *to.vector);
    for (const float value : *to.vector) {
      if (std::isfinite(value)) continue;
      throw reader.located(quant::Error(quant::ErrorKind::kBadFile, {.what = "holds NaN or infinity"}), *tensor.weight);
    }
    return;
  }
  const std::vector<std::byte> scale_inv =
      tensor.scale_inv != nullptr ? reader.read(*tensor.scale_inv) : std::vector<std::byte>{};
  const quant::DType type = kept_type(tensor.weight->dtype);
  to.matrix->storage = quant::AlignedBuffer(quant::packed_bytes(type, to.rows, to.cols));
  to.matrix->view = {.type = type, .rows = to.rows, .cols = to.cols, .data = to.matrix->storage.data()};
  try {
    pack_checkpoint_tensor(tensor.weight->dtype, weight, scale_inv, type, to.rows, to.cols, to.matrix->storage.span());
  } catch (const quant::Error& error) {
    throw reader.located(error, *tensor.weight);
  }
}

std::vector<CheckpointTensor> find_all(const quant::Checkpoint& checkpoint, const std::vector<Destination>& list) {
  TensorFinder finder(checkpoint);
  std::vector<CheckpointTensor> tensors;
  for (const Destination& to : list) tensors.push_back(finder.find(to.name, to.rows, to.cols));
  finder.check_complete();
  return tensors;
}

}  // namespace

bool is_routed_expert_tensor(const std::string& name) {
  return name.find(".mlp.experts.") != std::string::npos;
}

uint64_t resident_bytes(const quant::Checkpoint& checkpoint, const ModelConfig& config) {
  Model shape;
  const std::vector<Destination> list = destinations(config, shape);
  const std::vector<CheckpointTensor> tensors = find_all(checkpoint, list);
  uint64_t total = 0;
  for (size_t i = 0; i < list.size(); ++i) total += kept_bytes(list[i], tensors[i]);
  return total;
}

Model load_model(const quant::Checkpoint& checkpoint, const ModelConfig& config, const LoadProgress& progress) {
  Model model;
  model.config = config;
  const std::vector<Destination> list = destinations(config, model);
  const std::vector<CheckpointTensor> tensors = find_all(checkpoint, list);
  uint64_t total_bytes = 0;
  for (const CheckpointTensor& tensor : tensors) total_bytes += tensor.size_bytes();

  const TensorReader reader(checkpoint);
  uint64_t done_bytes = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    load_tensor(reader, tensors[i], list[i]);
    done_bytes += tensors[i].size_bytes();
    if (progress) progress(done_bytes, total_bytes);
  }
  return model;
}

}  // namespace moraine::runtime
