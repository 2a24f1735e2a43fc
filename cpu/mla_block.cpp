#include "cpu/mla_block.h"

#include <algorithm>

#include "cpu/matmul.h"
#include "cpu/norm_rows.h"
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

MlaBlock::MlaBlock(const runtime::ModelConfig& config, Workers& workers, CacheType latents)
    : config_(config), workers_(workers), latents_type_(latents), shape_(mla_shape(config)), angles_(config) {}

std::unique_ptr<runtime::KvCache> MlaBlock::make_cache() const {
  return std::make_unique<LatentCache>(config_.num_hidden_layers, config_.latent_width(), latents_type_);
}

void MlaBlock::begin_step(const runtime::StepBatch& batch) {
  slices_.begin(batch);
  for (const auto& slice : slices_) MORAINE_CHECK(slice.cache->width() == config_.latent_width());
  angles_.place(batch);
}

const float* MlaBlock::attend(int layer, const runtime::LayerWeights& weights, const float* normed) {
  project_queries(weights, normed);
  append_latents(layer, weights, normed);
  std::vector<MlaSlice> slices;
  for (const auto& slice : slices_) {
    slices.push_back({.cache = slice.cache,
                      .first_position = slice.first_position,
                      .first_row = slice.first_row,
                      .row_count = slice.row_count,
                      .form = cheaper_form(shape_, slice.row_count, latents_type_)});
  }
  const int64_t heads = shape_.num_attention_heads;
  float* attended = attended_.get(slices_.rows() * heads * shape_.v_head_dim);  // [rows, heads, v]
  mla_attention(workers_, shape_, weights.kv_b_proj.view, layer, slices,
                queries_.get(slices_.rows() * heads * shape_.qk_head_dim()), attended);
  return attended;
}

/// queries_ := RMSNorm(normed·Wqaᵀ)·Wqbᵀ, or normed·Wqᵀ in a model without q_lora_rank, with the rope parts rotated.
void MlaBlock::project_queries(const runtime::LayerWeights& weights, const float* normed) {
  const int64_t rank = config_.q_lora_rank, width = config_.hidden_size;
  const int64_t query_width = shape_.num_attention_heads * shape_.qk_head_dim();
  float* queries = queries_.get(slices_.rows() * query_width);  // [rows, heads, nope | rope]
  if (rank == 0) {
    matmul(workers_, weights.q_proj.view, {.data = normed, .stride = width}, slices_.rows(), queries, query_width);
  } else {
    float* latents = query_latents_.get(slices_.rows() * rank);  // [rows, q_lora_rank]
    matmul(workers_, weights.q_a_proj.view, {.data = normed, .stride = width}, slices_.rows(), latents, rank);
    norm_rows(workers_, latents, rank, weights.q_a_layernorm, static_cast<float>(config_.rms_norm_eps), slices_.rows(),
              latents, rank);
    matmul(workers_, weights.q_b_proj.view, {.data = latents, .stride = rank}, slices_.rows(), queries, query_width);
  }
  workers_.parallel_for(slices_.rows(), [&](int64_t row, WorkerScratch&) {
    for (int64_t head = 0; head < shape_.num_attention_heads; ++head) {
      float* rope = queries + row * query_width + head * shape_.qk_head_dim() + shape_.qk_nope_head_dim;
      rotate_pairs(rope, angles_.cos(row), angles_.sin(row), angles_.pairs());
    }
  });
}

/// Every row's RMSNorm'd latent and rotated key, to its place in its sequence's cache.
void MlaBlock::append_latents(int layer, const runtime::LayerWeights& weights, const float* normed) {
  const int64_t width = config_.latent_width(), rank = shape_.kv_lora_rank;
  float* latents = latents_.get(slices_.rows() * width);  // [rows, kv_lora_rank | rope]
  matmul(workers_, weights.kv_a_proj_with_mqa.view, {.data = normed, .stride = config_.hidden_size}, slices_.rows(),
         latents, width);
  norm_rows(workers_, latents, width, weights.kv_a_layernorm, static_cast<float>(config_.rms_norm_eps), slices_.rows(),
            latents, width);
  for (const auto& slice : slices_) {
    for (int64_t i = 0; i < slice.row_count; ++i) {
      const int64_t row = slice.first_row + i;
      float* latent = latents + row * width;
      rotate_pairs(latent + rank, angles_.cos(row), angles_.sin(row), angles_.pairs());
      slice.cache->write(workers_.kernels(), layer, slice.first_position + i, latent);
    }
  }
}

}  // namespace moraine::cpu
