#include "cpu/cpu_backend.h"

#include <algorithm>

#include "cpu/expert_ffn.h"
#include "cpu/gqa_block.h"
#include "cpu/matmul.h"
#include "cpu/mla_attention.h"
#include "cpu/mla_block.h"
#include "cpu/norm_rows.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

std::unique_ptr<AttentionBlock> make_attention(const runtime::Model& model, Workers& workers) {
  const CacheType type = cache_type(model, workers.precise());
  if (!model.config.is_latent()) return std::make_unique<GqaBlock>(model.config, workers, type);
  return std::make_unique<MlaBlock>(model.config, workers, type);
}

}  // namespace

CacheType cache_type(const runtime::Model& model, bool precise) {
  std::vector<quant::DType> types;
  for (const runtime::LayerWeights& layer : model.layers) {
    if (model.config.is_latent()) {
      types.push_back(layer.kv_b_proj.view.type);
    } else {
      types.insert(types.end(), {layer.q_proj.view.type, layer.k_proj.view.type, layer.v_proj.view.type});
    }
  }
  return model.config.is_latent() ? latent_type(types, precise) : head_cache_type(types, precise);
}

CpuBackend::CpuBackend(std::shared_ptr<const runtime::Model> model, const CpuOptions& options)
    : model_(std::move(model)),
      max_rows_(options.max_rows),
      workers_(options.reference ? select_kernels(Isa::kScalar) : select_kernels(), options.threads, options.precise,
               options.cpus),
      attention_(make_attention(*model_, workers_)) {
  MORAINE_CHECK(max_rows_ > 0);
}

std::unique_ptr<runtime::KvCache> CpuBackend::make_cache() {
  return attention_->make_cache();
}

const runtime::LayerWeights& CpuBackend::layer_weights(int layer) const {
  MORAINE_CHECK(rows_ > 0 && layer >= 0 && layer < std::ssize(model_->layers));
  return model_->layers[static_cast<size_t>(layer)];
}

void CpuBackend::begin_step(const runtime::StepBatch& batch) {
  rows_ = 0;
  for (const runtime::SequenceSlice& slice : batch.slices) {
    MORAINE_CHECK(slice.first_row == rows_ && slice.row_count > 0);
    rows_ += slice.row_count;
  }
  MORAINE_CHECK(rows_ > 0 && rows_ <= max_rows_ && rows_ == std::ssize(batch.token_ids));
  attention_->begin_step(batch);
  embed(batch.token_ids);
}

void CpuBackend::embed(std::span<const int32_t> token_ids) {
  const int64_t width = model_->config.hidden_size;
  const quant::PackedView& table = model_->embed_tokens.view;
  float* hidden = hidden_.get(rows_ * width);  // [rows, hidden]
  for (const int32_t token : token_ids) {
    MORAINE_CHECK(token >= 0 && token < table.rows);
    quant::dequantize_packed(table, token, 1, {hidden, static_cast<size_t>(width)});
    hidden += width;
  }
}

void CpuBackend::norm(const float* from, std::span<const float> weight, int64_t row_count, float* to) {
  const int64_t width = model_->config.hidden_size;
  norm_rows(workers_, from, width, weight, static_cast<float>(model_->config.rms_norm_eps), row_count, to, width);
}

void CpuBackend::add_to_hidden(const float* delta) {
  const int64_t count = rows_ * model_->config.hidden_size;
  float* hidden = hidden_.get(count);
  for (int64_t i = 0; i < count; ++i) hidden[i] += delta[i];
}

void CpuBackend::attention(int layer) {
  const runtime::LayerWeights& weights = layer_weights(layer);
  const int64_t width = model_->config.hidden_size;
  float* normed = normed_.get(rows_ * width);  // [rows, hidden]
  norm(hidden_.get(rows_ * width), weights.input_layernorm, rows_, normed);
  const float* attended = attention_->attend(layer, weights, normed);  // [rows, o_proj.cols]
  float* delta = delta_.get(rows_ * width);                            // [rows, hidden]
  matmul(workers_, weights.o_proj.view, {.data = attended, .stride = weights.o_proj.view.cols}, rows_, delta, width);
  add_to_hidden(delta);
  if (layer + 1 == model_->config.num_hidden_layers) attention_->commit();
}

void CpuBackend::run_dense(const runtime::FfnWeights& ffn, const float* normed, float* out) {
  const int64_t width = model_->config.hidden_size;
  for (int64_t row = 0; row < rows_; row += kDenseTokens) {
    const int64_t count = std::min(kDenseTokens, rows_ - row);
    const FfnJob job{.gate = ffn.gate_proj.view,
                     .up = ffn.up_proj.view,
                     .down = ffn.down_proj.view,
                     .x = {.data = normed + row * width, .stride = width},
                     .token_count = count,
                     .inner = inner_.get(count * ffn.gate_proj.view.rows),
                     .out = out + row * width,
                     .out_stride = width};
    run_ffn(workers_, {&job, 1});
  }
}

void CpuBackend::dense_ffn(int layer) {
  const runtime::LayerWeights& weights = layer_weights(layer);
  const int64_t width = model_->config.hidden_size;
  float* normed = normed_.get(rows_ * width);  // [rows, hidden]
  norm(hidden_.get(rows_ * width), weights.post_attention_layernorm, rows_, normed);
  float* delta = delta_.get(rows_ * width);  // [rows, hidden]
  run_dense(weights.ffn, normed, delta);
  add_to_hidden(delta);
}

void CpuBackend::route(int layer, std::span<float> normed, std::span<float> logits) {
  const runtime::LayerWeights& weights = layer_weights(layer);
  const int64_t width = model_->config.hidden_size, experts = weights.gate.view.rows;
  MORAINE_CHECK(std::ssize(normed) == rows_ * width && std::ssize(logits) == rows_ * experts);
  float* h = normed_.get(rows_ * width);  // [rows, hidden]
  norm(hidden_.get(rows_ * width), weights.post_attention_layernorm, rows_, h);
  std::copy_n(h, rows_ * width, normed.data());
  if (experts > 0) matmul(workers_, weights.gate.view, {.data = h, .stride = width}, rows_, logits.data(), experts);
}

void CpuBackend::predict_route(int layer, std::span<const float> routed, std::span<float> logits) {
  const runtime::LayerWeights& weights = layer_weights(layer);
  const int64_t width = model_->config.hidden_size;
  MORAINE_CHECK(std::ssize(logits) == weights.gate.view.rows && (routed.empty() || std::ssize(routed) == width));
  float* h = delta_.get(rows_ * width);  // [1, hidden]; normed_ still serves shared_expert()
  const int64_t last = (rows_ - 1) * width;
  const float* x = hidden_.get(rows_ * width) + last;
  if (!routed.empty()) {
    const float* shared = shared_.get(rows_ * width) + last;
    for (int64_t i = 0; i < width; ++i) h[i] = x[i] + (shared[i] + routed[static_cast<size_t>(i)]);
    x = h;
  }
  norm(x, weights.post_attention_layernorm, 1, h);
  matmul(workers_, weights.gate.view, {.data = h, .stride = width}, 1, logits.data(), weights.gate.view.rows);
}

void CpuBackend::shared_expert(int layer) {
  const runtime::LayerWeights& weights = layer_weights(layer);
  const int64_t count = rows_ * model_->config.hidden_size;
  float* shared = shared_.get(count);  // [rows, hidden]
  if (weights.ffn.gate_proj.empty()) {
    std::fill_n(shared, count, 0.0f);
    return;
  }
  run_dense(weights.ffn, normed_.get(count), shared);
}

void CpuBackend::combine(int layer, std::span<const float> routed) {
  layer_weights(layer);
  const int64_t count = rows_ * model_->config.hidden_size;
  MORAINE_CHECK(std::ssize(routed) == count);
  float* shared = shared_.get(count);
  for (int64_t i = 0; i < count; ++i) shared[i] += routed[static_cast<size_t>(i)];
  add_to_hidden(shared);
}

void CpuBackend::head(std::span<const int32_t> rows, std::span<float> logits) {
  const int64_t width = model_->config.hidden_size, vocab = model_->head().view.rows;
  MORAINE_CHECK(std::ssize(logits) == std::ssize(rows) * vocab);
  float* normed = delta_.get(std::max<int64_t>(std::ssize(rows), rows_) * width);  // [wanted rows, hidden]
  const float* hidden = hidden_.get(rows_ * width);
  for (size_t i = 0; i < rows.size(); ++i) {
    MORAINE_CHECK(rows[i] >= 0 && rows[i] < rows_);
    std::copy_n(hidden + rows[i] * width, width, normed + static_cast<int64_t>(i) * width);
  }
  norm(normed, model_->norm, std::ssize(rows), normed);
  matmul(workers_, model_->head().view, {.data = normed, .stride = width}, std::ssize(rows), logits.data(), vocab);
}

void CpuBackend::read_hidden(std::span<float> hidden) {
  const int64_t count = rows_ * model_->config.hidden_size;
  MORAINE_CHECK(std::ssize(hidden) == count);
  std::copy_n(hidden_.get(count), count, hidden.data());
}

void CpuBackend::begin_experts(std::span<const float> normed, int32_t row_count, const quant::ExpertLayout& layout,
                               int32_t slots_per_row) {
  layout_ = layout;
  expert_rows_ = row_count;
  slots_per_row_ = slots_per_row;
  const int64_t width = layout.gate.cols;
  MORAINE_CHECK(row_count > 0 && slots_per_row > 0 && std::ssize(normed) == row_count * width);
  std::copy_n(normed.data(), normed.size(), expert_input_.get(row_count * width));
  expert_output_.get(row_count * slots_per_row * width);
  slot_filled_.assign(static_cast<size_t>(row_count * slots_per_row), 0);
}

void CpuBackend::compute_expert(std::span<const std::byte> record, std::span<const runtime::ExpertUse> uses) {
  MORAINE_CHECK(record.size() >= layout_.record_bytes);
  const ExpertWork work{record.data(), uses};
  compute_records({&work, 1});
}

void CpuBackend::compute_experts(std::span<const offload::ExpertLease> leases,
                                 std::span<const std::span<const runtime::ExpertUse>> uses) {
  MORAINE_CHECK(leases.size() == uses.size());
  std::vector<ExpertWork> work;
  for (size_t i = 0; i < leases.size(); ++i) {
    MORAINE_CHECK(leases[i].record().size() >= layout_.record_bytes);
    work.push_back({leases[i].record().data(), uses[i]});
  }
  compute_records(work);
}

void CpuBackend::compute_records(std::span<const ExpertWork> work) {
  use_rows_.clear();
  use_outputs_.clear();
  use_weights_.clear();
  for (const ExpertWork& expert : work) {
    for (const runtime::ExpertUse& use : expert.uses) {
      MORAINE_CHECK(use.row >= 0 && use.row < expert_rows_ && use.slot >= 0 && use.slot < slots_per_row_);
      const int64_t output = use.row * slots_per_row_ + use.slot;
      MORAINE_CHECK(slot_filled_[static_cast<size_t>(output)] == 0);
      slot_filled_[static_cast<size_t>(output)] = 1;
      use_rows_.push_back(use.row);
      use_outputs_.push_back(output);
      use_weights_.push_back(use.weight);
    }
  }
  const int64_t width = layout_.gate.cols, inner_width = layout_.gate.rows;
  float* inner = expert_inner_.get(std::ssize(use_rows_) * inner_width);  // [uses, moe_intermediate]
  std::vector<FfnJob> jobs;
  int64_t first = 0;
  for (const ExpertWork& expert : work) {
    const quant::ExpertView view = quant::expert_view(layout_, expert.record);
    jobs.push_back(
        {.gate = view.gate,
         .up = view.up,
         .down = view.down,
         .x = {.data = expert_input_.get(expert_rows_ * width), .stride = width, .index = use_rows_.data() + first},
         .token_count = std::ssize(expert.uses),
         .inner = inner + first * inner_width,
         .out = expert_output_.get(expert_rows_ * slots_per_row_ * width),
         .out_stride = width,
         .out_row = use_outputs_.data() + first,
         .weight = use_weights_.data() + first});
    first += std::ssize(expert.uses);
  }
  run_ffn(workers_, jobs);
}

void CpuBackend::sum_so_far(std::span<float> sum) {
  const int64_t width = layout_.gate.cols, first = (expert_rows_ - 1) * slots_per_row_;
  MORAINE_CHECK(std::ssize(sum) == width);
  const float* outputs = expert_output_.get(expert_rows_ * slots_per_row_ * width);
  std::ranges::fill(sum, 0.0f);
  for (int64_t slot = first; slot < first + slots_per_row_; ++slot) {
    if (slot_filled_[static_cast<size_t>(slot)] == 0) continue;
    for (int64_t i = 0; i < width; ++i) sum[static_cast<size_t>(i)] += outputs[slot * width + i];
  }
}

void CpuBackend::finish_experts(std::span<float> routed) {
  const int64_t width = layout_.gate.cols;
  MORAINE_CHECK(std::ssize(routed) == expert_rows_ * width);
  MORAINE_CHECK(std::ranges::find(slot_filled_, 0) == slot_filled_.end());
  const float* outputs = expert_output_.get(expert_rows_ * slots_per_row_ * width);
  workers_.parallel_for(expert_rows_, [&](int64_t row, WorkerScratch&) {
    float* sum = routed.data() + row * width;
    std::copy_n(outputs + row * slots_per_row_ * width, width, sum);
    for (int64_t slot = 1; slot < slots_per_row_; ++slot) {
      const float* output = outputs + (row * slots_per_row_ + slot) * width;
      for (int64_t i = 0; i < width; ++i) sum[i] += output[i];
    }
  });
}

}  // namespace moraine::cpu
