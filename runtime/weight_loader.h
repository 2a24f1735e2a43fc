#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "quant/dtype.h"
#include "quant/safetensors.h"
#include "runtime/model.h"

namespace moraine::runtime {

/// Called as resident bytes arrive: by one thread at a time, not always the same.
using LoadProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes)>;

/// How resident tensors are loaded.
struct LoadOptions {
  /// Quantize the projections of attention, dense FFN, shared experts and head to this type (BF16, Q8_0, …;
  /// packable_type() where rows do not fit); F8_E4M3 or nothing: as stored. Router, embedding and norms always stay as
  /// they are stored.
  std::optional<quant::DType> resident = {};
  /// Leave out the FFNs of a dense model: they are records (open_streamed_ffn()).
  bool stream_ffn = false;
  LoadProgress progress = {};
  int threads = 0;  ///< that read and pack; 0: all cores, at most 4. The result does not depend on it
};

/// A resident tensor of the main model, under its name in a checkpoint: a matrix [rows, cols] or a vector [rows].
struct ResidentTensor {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 0;            ///< 0 for a vector
  bool is_projection = false;  ///< one of the matrices that LoadOptions::resident is about
};

/// All of them, in the order of the walk through the model.
std::vector<ResidentTensor> resident_tensors(const ModelConfig& config);

/// True for a tensor of a routed expert (model.layers.L.mlp.experts.E.…).
bool is_routed_expert_tensor(const std::string& name);

/// Loads every resident tensor of the main model. As stored means that F8_E4M3 stays F8_E4M3 with its scales, BF16
/// stays BF16, F16 becomes F32. In a pack, every tensor's checksum is verified. Beside the model it needs some 30 MB
/// per thread, or the bytes of one F8_E4M3 matrix that is kept so. Throws quant::Error: all missing tensors in one
/// message, wrong dtype or shape with expected and got, kChecksum for a wrong byte, kUsage if F8_E4M3 is wanted and
/// nothing is stored so.
Model load_model(const quant::Checkpoint& checkpoint, const ModelConfig& config, const LoadOptions& options = {});

/// The model that load_model() with the same options makes, without its weights: every matrix has its type and size and
/// no memory. From headers alone; throws as load_model().
Model model_shape(const quant::Checkpoint& checkpoint, const ModelConfig& config, const LoadOptions& options = {});
/// The same for a model that is not here yet, in the types in which DeepSeek publishes: projections but the head in
/// F8_E4M3 if the config says so, everything else BF16.
Model model_shape(const ModelConfig& config, const LoadOptions& options = {});

/// Bytes that load_model() with the same options will take, from headers alone.
uint64_t resident_bytes(const quant::Checkpoint& checkpoint, const ModelConfig& config,
                        const LoadOptions& options = {});

}  // namespace moraine::runtime
