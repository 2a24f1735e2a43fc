#include "runtime/linear_predictor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "quant/checksum.h"
#include "quant/error.h"
#include "quant/file_io.h"
#include "quant/safetensors.h"

namespace moraine::runtime {
namespace {

constexpr const char* kFingerprintName = "fingerprint";

std::string delta_name(size_t layer) {
  return fmt::format("layers.{}.delta", layer);
}

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& what) {
  throw quant::Error(quant::ErrorKind::kBadFile,
                     {.what = what, .file = file, .action = "make it anew with `moraine train-predictor`"});
}

}  // namespace

uint64_t router_fingerprint(const Model& model) {
  quant::ChecksumStream sum;
  for (const LayerWeights& layer : model.layers) {
    if (layer.gate.view.data == nullptr) continue;
    const quant::PackedView& gate = layer.gate.view;
    sum.update({gate.data, quant::packed_bytes(gate.type, gate.rows, gate.cols)});
  }
  return sum.digest();
}

LinearPredictor::LinearPredictor(const Model& model)
    : fingerprint_(router_fingerprint(model)),
      n_experts_(model.config.n_routed_experts),
      hidden_(model.config.hidden_size),
      deltas_(model.layers.size()) {}

void LinearPredictor::set(int layer, std::vector<float> delta) {
  MORAINE_CHECK(std::ssize(delta) == n_experts_ * hidden_);
  deltas_.at(static_cast<size_t>(layer)) = std::move(delta);
}

void LinearPredictor::correct(int layer, std::span<const float> normed, std::span<float> logits) const {
  MORAINE_CHECK(std::ssize(normed) == hidden_ && std::ssize(logits) == n_experts_ && corrects(layer));
  const float* row = deltas_[static_cast<size_t>(layer)].data();
  for (float& logit : logits) {
    // Eight sums, so that the compiler may use vector registers.
    float sums[8] = {};
    size_t i = 0;
    for (; i + 8 <= normed.size(); i += 8) {
      for (size_t lane = 0; lane < 8; ++lane) sums[lane] += row[i + lane] * normed[i + lane];
    }
    float sum = 0.0f;
    for (; i < normed.size(); ++i) sum += row[i] * normed[i];
    for (const float part : sums) sum += part;
    logit += sum;
    row += normed.size();
  }
}

void LinearPredictor::save(const std::filesystem::path& file) const {
  std::vector<quant::TensorInfo> tensors = {
      {.name = kFingerprintName, .dtype = quant::DType::kU8, .shape = {8}, .size_bytes = 8}};
  for (size_t layer = 0; layer < deltas_.size(); ++layer) {
    if (deltas_[layer].empty()) continue;
    tensors.push_back({.name = delta_name(layer),
                       .dtype = quant::DType::kF32,
                       .shape = {n_experts_, hidden_},
                       .size_bytes = deltas_[layer].size() * sizeof(float)});
  }
  quant::SafetensorsWriter writer(file, tensors);
  writer.write(std::as_bytes(std::span(&fingerprint_, 1)));
  for (const std::vector<float>& delta : deltas_) {
    if (!delta.empty()) writer.write(std::as_bytes(std::span(delta)));
  }
  writer.finish();
}

LinearPredictor LinearPredictor::load(const std::filesystem::path& file, const Model& model) {
  LinearPredictor predictor(model);
  const quant::UniqueFd fd = quant::open_for_read(file);
  bool belongs = false;
  for (const quant::TensorInfo& tensor : quant::read_safetensors_header(fd.get(), file)) {
    if (tensor.name == kFingerprintName && tensor.size_bytes == sizeof(uint64_t)) {
      uint64_t found = 0;
      quant::pread_exact(fd.get(), std::as_writable_bytes(std::span(&found, 1)), tensor.offset, file);
      belongs = found == predictor.fingerprint_;
      continue;
    }
    size_t layer = 0;
    while (layer < predictor.deltas_.size() && delta_name(layer) != tensor.name) ++layer;
    const bool fits = tensor.dtype == quant::DType::kF32 &&
                      tensor.shape == std::vector<int64_t>{predictor.n_experts_, predictor.hidden_};
    if (layer == predictor.deltas_.size() || !fits) refuse(file, "not a predictor of this model");
    std::vector<float> delta(static_cast<size_t>(predictor.n_experts_ * predictor.hidden_));
    quant::pread_exact(fd.get(), std::as_writable_bytes(std::span(delta)), tensor.offset, file);
    predictor.set(static_cast<int>(layer), std::move(delta));
  }
  if (!belongs) refuse(file, "the predictor belongs to another model");
  return predictor;
}

}  // namespace moraine::runtime
