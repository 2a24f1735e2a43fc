#include "runtime/weight_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>

#include "quant/error.h"
#include "quant/huge_pages.h"
#include "runtime/checkpoint_tensor.h"
#include "runtime/tensor_loader.h"

namespace moraine::runtime {
namespace {

constexpr int kMostThreads = 4;  // enough to keep a drive busy while tensors are packed

/// A resident tensor and where it goes: one of the two pointers.
struct Destination : ResidentTensor {
  Matrix* matrix = nullptr;
  std::vector<float>* vector = nullptr;
};

/// Lists every resident tensor of the main model with its destination, in the order of the walk through it.
class DestinationList {
 public:
  DestinationList(const ModelConfig& config, Model& model, bool stream_ffn)
      : config_(config), stream_ffn_(stream_ffn && !config.has_experts()) {
    model.layers.resize(static_cast<size_t>(config.num_hidden_layers));
    exact_matrix("model.embed_tokens", config.vocab_size, config.hidden_size, model.embed_tokens);
    for (int64_t l = 0; l < config.num_hidden_layers; ++l) add_layer(l, model.layers[static_cast<size_t>(l)]);
    vector("model.norm.weight", config.hidden_size, model.norm);
    if (!config.tie_word_embeddings) matrix("lm_head", config.vocab_size, config.hidden_size, model.lm_head);
  }

  std::vector<Destination> take() { return std::move(list_); }

 private:
  void matrix(const std::string& name, int64_t rows, int64_t cols, Matrix& to) {
    list_.push_back({{.name = name + ".weight", .rows = rows, .cols = cols, .is_projection = true}, &to, nullptr});
  }
  void exact_matrix(const std::string& name, int64_t rows, int64_t cols, Matrix& to) {
    list_.push_back({{.name = name + ".weight", .rows = rows, .cols = cols}, &to, nullptr});
  }
  void vector(const std::string& name, int64_t size, std::vector<float>& to) {
    list_.push_back({{.name = name, .rows = size}, nullptr, &to});
  }
  void add_ffn(const std::string& prefix, int64_t intermediate, FfnWeights& to) {
    matrix(prefix + "gate_proj", intermediate, config_.hidden_size, to.gate_proj);
    matrix(prefix + "up_proj", intermediate, config_.hidden_size, to.up_proj);
    matrix(prefix + "down_proj", config_.hidden_size, intermediate, to.down_proj);
  }

  void add_layer(int64_t l, LayerWeights& layer) {
    const std::string prefix = fmt::format("model.layers.{}.", l);
    vector(prefix + "input_layernorm.weight", config_.hidden_size, layer.input_layernorm);
    if (config_.is_latent()) {
      add_latent_attention(prefix + "self_attn.", layer);
    } else {
      add_grouped_attention(prefix + "self_attn.", layer);
    }
    vector(prefix + "post_attention_layernorm.weight", config_.hidden_size, layer.post_attention_layernorm);
    if (config_.is_moe_layer(l)) {
      exact_matrix(prefix + "mlp.gate", config_.n_routed_experts, config_.hidden_size, layer.gate);
      if (config_.has_correction_bias()) {
        vector(prefix + "mlp.gate.e_score_correction_bias", config_.n_routed_experts, layer.e_score_correction_bias);
      }
      add_ffn(prefix + "mlp.shared_experts.", config_.shared_intermediate_size(), layer.ffn);
    } else if (!stream_ffn_) {
      add_ffn(prefix + "mlp.", config_.intermediate_size, layer.ffn);
    }
  }

  void add_latent_attention(const std::string& prefix, LayerWeights& layer) {
    const int64_t heads = config_.num_attention_heads;
    if (config_.q_lora_rank == 0) {
      matrix(prefix + "q_proj", heads * config_.qk_head_dim(), config_.hidden_size, layer.q_proj);
    } else {
      matrix(prefix + "q_a_proj", config_.q_lora_rank, config_.hidden_size, layer.q_a_proj);
      vector(prefix + "q_a_layernorm.weight", config_.q_lora_rank, layer.q_a_layernorm);
      matrix(prefix + "q_b_proj", heads * config_.qk_head_dim(), config_.q_lora_rank, layer.q_b_proj);
    }
    matrix(prefix + "kv_a_proj_with_mqa", config_.latent_width(), config_.hidden_size, layer.kv_a_proj_with_mqa);
    vector(prefix + "kv_a_layernorm.weight", config_.kv_lora_rank, layer.kv_a_layernorm);
    matrix(prefix + "kv_b_proj", heads * (config_.qk_nope_head_dim + config_.v_head_dim), config_.kv_lora_rank,
           layer.kv_b_proj);
    matrix(prefix + "o_proj", config_.hidden_size, heads * config_.v_head_dim, layer.o_proj);
  }

  void add_grouped_attention(const std::string& prefix, LayerWeights& layer) {
    const int64_t query_width = config_.num_attention_heads * config_.head_dim;
    const int64_t key_width = config_.num_key_value_heads * config_.head_dim;
    matrix(prefix + "q_proj", query_width, config_.hidden_size, layer.q_proj);
    matrix(prefix + "k_proj", key_width, config_.hidden_size, layer.k_proj);
    matrix(prefix + "v_proj", key_width, config_.hidden_size, layer.v_proj);
    if (config_.qkv_bias) {
      vector(prefix + "q_proj.bias", query_width, layer.q_bias);
      vector(prefix + "k_proj.bias", key_width, layer.k_bias);
      vector(prefix + "v_proj.bias", key_width, layer.v_bias);
    }
    matrix(prefix + "o_proj", config_.hidden_size, query_width, layer.o_proj);
  }

  const ModelConfig& config_;
  const bool stream_ffn_;
  std::vector<Destination> list_;
};

/// Sizes `model.layers`, too.
std::vector<Destination> destinations(const ModelConfig& config, Model& model, bool stream_ffn = false) {
  return DestinationList(config, model, stream_ffn).take();
}

/// The format in which a tensor is kept.
quant::DType target_type(const Destination& to, const CheckpointTensor& tensor, std::optional<quant::DType> resident) {
  if (!resident || !to.is_projection || *resident == quant::DType::kF8E4M3) return kept_type(tensor);
  return quant::packable_type(*resident, to.cols);
}

/// Gives a destination its type and size without memory; norms are small enough to be there.
void shape_tensor(const Destination& to, quant::DType type) {
  if (to.vector != nullptr) {
    to.vector->resize(static_cast<size_t>(to.rows));
  } else {
    to.matrix->view = {.type = type, .rows = to.rows, .cols = to.cols};
  }
}

/// FP8 comes with its own scales: it can be kept, not made (that would be a lossy step of its own).
void check_wanted(std::optional<quant::DType> resident, const std::vector<Destination>& list,
                  const std::vector<CheckpointTensor>& tensors, const quant::Checkpoint& checkpoint) {
  if (resident != quant::DType::kF8E4M3) return;
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i].is_projection && tensors[i].weight->dtype == quant::DType::kF8E4M3) return;
  }
  throw quant::Error(quant::ErrorKind::kUsage,
                     {.what = "resident weights can be kept as F8_E4M3 only if they are stored so",
                      .file = checkpoint.directory(),
                      .action = "leave --resident out, or choose --resident BF16 or Q8_0"});
}

void load_tensor(const TensorLoader& loader, const CheckpointTensor& tensor, const Destination& to,
                 std::optional<quant::DType> resident) {
  if (to.vector != nullptr) {
    *to.vector = loader.load_vector(tensor);
    return;
  }
  const quant::DType type = target_type(to, tensor, resident);
  to.matrix->storage = quant::AlignedBuffer(quant::packed_bytes(type, to.rows, to.cols));
  to.matrix->view = {.type = type, .rows = to.rows, .cols = to.cols, .data = to.matrix->storage.data()};
  loader.load_matrix(tensor, type, to.rows, to.cols, to.matrix->storage.span());
}

std::vector<CheckpointTensor> find_all(const quant::Checkpoint& checkpoint, const std::vector<Destination>& list,
                                       std::optional<quant::DType> resident) {
  TensorFinder finder(checkpoint);
  std::vector<CheckpointTensor> tensors;
  for (const Destination& to : list) tensors.push_back(finder.find(to.name, to.rows, to.cols));
  finder.check_complete();
  check_wanted(resident, list, tensors, checkpoint);
  return tensors;
}

/// Hands out the tensors of a load to its threads, in order, and gathers how it goes.
class LoadQueue {
 public:
  LoadQueue(const std::vector<CheckpointTensor>& tensors, const LoadProgress& progress)
      : tensors_(tensors), progress_(progress) {
    for (const CheckpointTensor& tensor : tensors) total_bytes_ += tensor.size_bytes();
  }

  /// Calls load(index) until all are done or one has failed.
  void work(const std::function<void(size_t)>& load) {
    for (size_t index = take(); index < tensors_.size(); index = take()) {
      try {
        load(index);
        const std::lock_guard lock(mutex_);
        done_bytes_ += tensors_[index].size_bytes();
        if (progress_) progress_(done_bytes_, total_bytes_);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!fault_ || index < fault_index_) fault_ = std::current_exception();
        fault_index_ = std::min(fault_index_, index);
      }
    }
  }

  /// Rethrows what went wrong with the first bad tensor; which one that is does not depend on the threads.
  void check() const {
    if (fault_) std::rethrow_exception(fault_);
  }

 private:
  size_t take() {
    const std::lock_guard lock(mutex_);
    return fault_ ? tensors_.size() : next_++;
  }

  const std::vector<CheckpointTensor>& tensors_;
  const LoadProgress& progress_;
  std::mutex mutex_;
  size_t next_ = 0;
  uint64_t done_bytes_ = 0;
  uint64_t total_bytes_ = 0;
  std::exception_ptr fault_;
  size_t fault_index_ = SIZE_MAX;
};

}  // namespace

bool is_routed_expert_tensor(const std::string& name) {
  return name.find(".mlp.experts.") != std::string::npos;
}

std::vector<ResidentTensor> resident_tensors(const ModelConfig& config) {
  Model shape;
  const std::vector<Destination> list = destinations(config, shape);
  return {list.begin(), list.end()};
}

Model model_shape(const quant::Checkpoint& checkpoint, const ModelConfig& config, const LoadOptions& options) {
  Model shape;
  shape.config = config;
  const std::vector<Destination> list = destinations(config, shape, options.stream_ffn);
  const std::vector<CheckpointTensor> tensors = find_all(checkpoint, list, options.resident);
  for (size_t i = 0; i < list.size(); ++i) {
    shape_tensor(list[i],
                 list[i].vector != nullptr ? quant::DType::kF32 : target_type(list[i], tensors[i], options.resident));
  }
  return shape;
}

Model model_shape(const ModelConfig& config, const LoadOptions& options) {
  Model shape;
  shape.config = config;
  for (const Destination& to : destinations(config, shape, options.stream_ffn)) {
    const bool fp8 = config.fp8_weights && to.is_projection && to.matrix != &shape.lm_head;
    const bool quantized = options.resident && to.is_projection && *options.resident != quant::DType::kF8E4M3;
    shape_tensor(to, quantized ? quant::packable_type(*options.resident, to.cols)
                     : fp8     ? quant::DType::kF8E4M3
                               : quant::DType::kBF16);
  }
  return shape;
}

uint64_t resident_bytes(const quant::Checkpoint& checkpoint, const ModelConfig& config, const LoadOptions& options) {
  return model_shape(checkpoint, config, options).resident_bytes();
}

Model load_model(const quant::Checkpoint& checkpoint, const ModelConfig& config, const LoadOptions& options) {
  Model model;
  model.config = config;
  const std::vector<Destination> list = destinations(config, model, options.stream_ffn);
  const std::vector<CheckpointTensor> tensors = find_all(checkpoint, list, options.resident);
  const TensorLoader loader(checkpoint);
  LoadQueue queue(tensors, options.progress);
  const auto work = [&] {
    queue.work([&](size_t index) { load_tensor(loader, tensors[index], list[index], options.resident); });
  };
  const int all_threads = static_cast<int>(std::thread::hardware_concurrency());
  {
    std::vector<std::jthread> helpers;
    const int threads = options.threads > 0 ? options.threads : std::clamp(all_threads, 1, kMostThreads);
    for (int i = 1; i < threads; ++i) helpers.emplace_back(work);
    work();
  }
  queue.check();
  return model;
}

}  // namespace moraine::runtime
