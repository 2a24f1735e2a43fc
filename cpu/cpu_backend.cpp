#include "cpu/cpu_backend.h"

#include <algorithm>

#include "cpu/expert_ffn.h"
#include "cpu/matmul.h"
#include "cpu/rotate.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

MlaShape mla_shape(const runtime::ModelConfig& config) {
  return {.num_attention_heads = config.num_attention_heads,
          .qk_nope_head_dim = config.qk_nope_head_dim,
          .qk_rope_head_dim = config.qk_rope_head_dim,
          .v_head_dim = config.v_head_dim,
          .kv_lora_rank = config.kv_lora_rank,
          .softmax_scale = static_cast<float>(config.softmax_scale())};
}

}  // namespace

CpuBackend::CpuBackend(std::shared_ptr<const runtime::Model> model, const CpuOptions& options)
    : model_(std::move(model)),
      max_rows_(options.max_rows),
      workers_(options.reference ? select_kernels(Isa::kScalar) : select_kernels(), options.threads, options.precise),
      rope_(model_->config),
      shape_(mla_shape(model_->config)) {
  MORAINE_CHECK(max_rows_ > 0);
}

std::unique_ptr<runtime::KvCache> CpuBackend::make_cache() {
  return std::make_unique<LatentCache>(model_->config.num_hidden_layers, model_->config.latent_width());
}

const runtime::LayerWeights& CpuBackend::layer_weights(int layer) const {
  MORAINE_CHECK(rows_ > 0 && layer >= 0 && layer < std::ssize(model_->layers));
  return model_->layers[static_cast<size_t>(layer)];
}

void CpuBackend::begin_step(const runtime::StepBatch& batch) {
  const int64_t rows = std::ssize(batch.token_ids);
  MORAINE_CHECK(rows > 0 && rows <= max_rows_);
  slices_.clear();
  rows_ = 0;
  for (const runtime::SequenceSlice& slice : batch.slices) {
    auto* cache = dynamic_cast<LatentCache*>(slice.cache);
    MORAINE_CHECK(cache != nullptr && cache->width() == model_->config.latent_width());
    MORAINE_CHECK(slice.first_row == rows_ && slice.row_count > 0 && slice.first_position == cache->token_count());
    cache->reserve(slice.first_position + slice.row_count);
    slices_.push_back({cache, slice.first_position, slice.first_row, slice.row_count});
    rows_ += slice.row_count;
  }
  MORAINE_CHECK(rows_ == rows);
  embed(batch.token_ids);
  place_rows();
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

void CpuBackend::place_rows() {
  const auto pairs = static_cast<size_t>(shape_.qk_rope_head_dim / 2);
  cos_.resize(static_cast<size_t>(rows_) * pairs);
  sin_.resize(cos_.size());
  for (const Slice& slice : slices_) {
    for (int64_t i = 0; i < slice.row_count; ++i) {
      const size_t first = static_cast<size_t>(slice.first_row + i) * pairs;
      rope_.cos_sin(slice.first_position + i, std::span(cos_).subspan(first, pairs),
                    std::span(sin_).subspan(first, pairs));
    }
  }
}

void CpuBackend::norm_rows(const float* from, int64_t from_stride, std::span<const float> weight, int64_t rows,
                           float* to, int64_t to_stride) {
  const auto eps = static_cast<float>(model_->config.rms_norm_eps);
  workers_.parallel_for(rows, [&](int64_t row, WorkerScratch&) {
    workers_.kernels().rms_norm(from + row * from_stride, weight.data(), std::ssize(weight), eps, to + row * to_stride);
  });
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
  norm_rows(hidden_.get(rows_ * width), width, weights.input_layernorm, rows_, normed, width);
  project_queries(weights, normed);
  append_latents(layer, weights, normed);

  std::vector<MlaSlice> slices;
  for (const Slice& slice : slices_) {
    slices.push_back({.cache = slice.cache,
                      .first_position = slice.first_position,
                      .first_row = slice.first_row,
                      .row_count = slice.row_count,
                      .form = cheaper_form(shape_, slice.row_count)});
  }
  const int64_t heads = shape_.num_attention_heads;
  const int64_t attended_width = heads * shape_.v_head_dim;
  float* attended = attended_.get(rows_ * attended_width);  // [rows, heads, v]
  mla_attention(workers_, shape_, weights.kv_b_proj.view, layer, slices,
                queries_.get(rows_ * heads * shape_.qk_head_dim()), attended);
  float* delta = delta_.get(rows_ * width);  // [rows, hidden]
  matmul(workers_, weights.o_proj.view, {.data = attended, .stride = attended_width}, rows_, delta, width);
  add_to_hidden(delta);
  if (layer + 1 == model_->config.num_hidden_layers) {
    for (const Slice& slice : slices_) slice.cache->commit(slice.first_position + slice.row_count);
  }
}

/// queries_ := RMSNorm(normed·Wqaᵀ)·Wqbᵀ with the rope parts rotated.
void CpuBackend::project_queries(const runtime::LayerWeights& weights, float* normed) {
  const int64_t rank = model_->config.q_lora_rank, width = model_->config.hidden_size;
  const int64_t query_width = shape_.num_attention_heads * shape_.qk_head_dim();
  float* latents = query_latents_.get(rows_ * rank);   // [rows, q_lora_rank]
  float* queries = queries_.get(rows_ * query_width);  // [rows, heads, nope | rope]
  matmul(workers_, weights.q_a_proj.view, {.data = normed, .stride = width}, rows_, latents, rank);
  norm_rows(latents, rank, weights.q_a_layernorm, rows_, latents, rank);
  matmul(workers_, weights.q_b_proj.view, {.data = latents, .stride = rank}, rows_, queries, query_width);
  const int64_t pairs = shape_.qk_rope_head_dim / 2;
  workers_.parallel_for(rows_, [&](int64_t row, WorkerScratch&) {
    for (int64_t head = 0; head < shape_.num_attention_heads; ++head) {
      float* rope = queries + row * query_width + head * shape_.qk_head_dim() + shape_.qk_nope_head_dim;
      rotate_pairs(rope, cos_.data() + row * pairs, sin_.data() + row * pairs, pairs);
    }
  });
}

/// Every row's RMSNorm'd latent and rotated key, to its place in its sequence's cache.
void CpuBackend::append_latents(int layer, const runtime::LayerWeights& weights, const float* normed) {
  const int64_t width = model_->config.latent_width(), rank = shape_.kv_lora_rank;
  float* latents = latents_.get(rows_ * width);  // [rows, kv_lora_rank | rope]
  matmul(workers_, weights.kv_a_proj_with_mqa.view, {.data = normed, .stride = model_->config.hidden_size}, rows_,
         latents, width);
  norm_rows(latents, width, weights.kv_a_layernorm, rows_, latents, width);
  const int64_t pairs = shape_.qk_rope_head_dim / 2;
  for (const Slice& slice : slices_) {
    for (int64_t i = 0; i < slice.row_count; ++i) {
      const int64_t row = slice.first_row + i;
      float* latent = latents + row * width;
      rotate_pairs(latent + rank, cos_.data() + row * pairs, sin_.data() + row * pairs, pairs);
      std::copy_n(latent, width, slice.cache->row(layer, slice.first_position + i));
    }
  }
}

void CpuBackend::run_dense(const runtime::FfnWeights& ffn, const float* normed, float* out) {
  const int64_t width = model_->config.hidden_size;
  const FfnJob job{.gate = ffn.gate_proj.view,
                   .up = ffn.up_proj.view,
                   .down = ffn.down_proj.view,
                   .x = {.data = normed, .stride = width},
                   .token_count = rows_,
                   .inner = inner_.get(rows_ * ffn.gate_proj.view.rows),
                   .out = out,
                   .out_stride = width};
  run_ffn(workers_, {&job, 1});
}

void CpuBackend::dense_ffn(int layer) {
  const runtime::LayerWeights& weights = layer_weights(layer);
  const int64_t width = model_->config.hidden_size;
  float* normed = normed_.get(rows_ * width);  // [rows, hidden]
  norm_rows(hidden_.get(rows_ * width), width, weights.post_attention_layernorm, rows_, normed, width);
  float* delta = delta_.get(rows_ * width);  // [rows, hidden]
  run_dense(weights.ffn, normed, delta);
  add_to_hidden(delta);
}

void CpuBackend::route(int layer, std::span<float> normed, std::span<float> logits) {
  const runtime::LayerWeights& weights = layer_weights(layer);
  const int64_t width = model_->config.hidden_size, experts = weights.gate.view.rows;
  MORAINE_CHECK(std::ssize(normed) == rows_ * width && std::ssize(logits) == rows_ * experts);
  float* h = normed_.get(rows_ * width);  // [rows, hidden]
  norm_rows(hidden_.get(rows_ * width), width, weights.post_attention_layernorm, rows_, h, width);
  std::copy_n(h, rows_ * width, normed.data());
  matmul(workers_, weights.gate.view, {.data = h, .stride = width}, rows_, logits.data(), experts);
}

void CpuBackend::predict_route(int layer, std::span<float> logits) {
  const runtime::LayerWeights& weights = layer_weights(layer);
  const int64_t width = model_->config.hidden_size;
  MORAINE_CHECK(std::ssize(logits) == weights.gate.view.rows);
  float* h = delta_.get(rows_ * width);  // [1, hidden]; normed_ still serves shared_expert()
  norm_rows(hidden_.get(rows_ * width) + (rows_ - 1) * width, width, weights.post_attention_layernorm, 1, h, width);
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
  const int64_t width = model_->config.hidden_size, vocab = model_->lm_head.view.rows;
  MORAINE_CHECK(std::ssize(logits) == std::ssize(rows) * vocab);
  float* normed = delta_.get(std::max<int64_t>(std::ssize(rows), rows_) * width);  // [wanted rows, hidden]
  const float* hidden = hidden_.get(rows_ * width);
  for (size_t i = 0; i < rows.size(); ++i) {
    MORAINE_CHECK(rows[i] >= 0 && rows[i] < rows_);
    std::copy_n(hidden + rows[i] * width, width, normed + static_cast<int64_t>(i) * width);
  }
  norm_rows(normed, width, model_->norm, std::ssize(rows), normed, width);
  matmul(workers_, model_->lm_head.view, {.data = normed, .stride = width}, std::ssize(rows), logits.data(), vocab);
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
