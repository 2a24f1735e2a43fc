#include "cpu/gqa_block.h"

#include "cpu/matmul.h"
#include "cpu/rotate.h"
#include "quant/error.h"

namespace moraine::cpu {

GqaBlock::GqaBlock(const runtime::ModelConfig& config, Workers& workers, CacheType cache)
    : config_(config),
      workers_(workers),
      cache_type_(cache),
      shape_({.num_attention_heads = config.num_attention_heads,
              .num_key_value_heads = config.num_key_value_heads,
              .head_dim = config.head_dim,
              .softmax_scale = static_cast<float>(config.softmax_scale())}),
      angles_(config) {}

std::unique_ptr<runtime::KvCache> GqaBlock::make_cache() const {
  return std::make_unique<HeadCache>(config_.num_hidden_layers, shape_.num_key_value_heads, shape_.head_dim,
                                     cache_type_);
}

void GqaBlock::begin_step(const runtime::StepBatch& batch) {
  slices_.begin(batch);
  angles_.place(batch);
}

const float* GqaBlock::attend(int layer, const runtime::LayerWeights& weights, const float* normed) {
  const int64_t query_width = shape_.num_attention_heads * shape_.head_dim;
  const int64_t key_width = shape_.num_key_value_heads * shape_.head_dim;
  float* queries = queries_.get(slices_.rows() * query_width);  // [rows, heads, head_dim]
  float* keys = keys_.get(slices_.rows() * key_width);          // [rows, kv heads, head_dim]
  float* values = values_.get(slices_.rows() * key_width);      // [rows, kv heads, head_dim]
  project(weights.q_proj, weights.q_bias, normed, queries);
  project(weights.k_proj, weights.k_bias, normed, keys);
  project(weights.v_proj, weights.v_bias, normed, values);
  rotate(queries, shape_.num_attention_heads);
  rotate(keys, shape_.num_key_value_heads);

  std::vector<GqaSlice> slices;
  for (const auto& slice : slices_) {
    slices.push_back({slice.cache, slice.first_position, slice.first_row, slice.row_count});
    workers_.parallel_for(slice.row_count, [&](int64_t i, WorkerScratch&) {
      const int64_t from = (slice.first_row + i) * key_width;
      for (int64_t head = 0; head < shape_.num_key_value_heads; ++head) {
        slice.cache->put(workers_.kernels(), layer, head, slice.first_position + i,
                         keys + from + head * shape_.head_dim, values + from + head * shape_.head_dim);
      }
    });
  }
  float* attended = attended_.get(slices_.rows() * query_width);  // [rows, heads, head_dim]
  gqa_attention(workers_, shape_, layer, slices, partials_, queries, attended);
  return attended;
}

void GqaBlock::project(const runtime::Matrix& weight, const std::vector<float>& bias, const float* normed, float* to) {
  const int64_t width = weight.view.rows;
  matmul(workers_, weight.view, {.data = normed, .stride = config_.hidden_size}, slices_.rows(), to, width);
  if (bias.empty()) return;
  workers_.parallel_for(slices_.rows(), [&](int64_t row, WorkerScratch&) {
    float* y = to + row * width;
    for (int64_t i = 0; i < width; ++i) y[i] += bias[static_cast<size_t>(i)];
  });
}

void GqaBlock::rotate(float* x, int64_t heads) {
  const auto turn = config_.rope_pairs == runtime::RopePairs::kHalves ? rotate_halves : rotate_pairs;
  workers_.parallel_for(slices_.rows(), [&](int64_t row, WorkerScratch&) {
    for (int64_t head = 0; head < heads; ++head) {
      turn(x + (row * heads + head) * shape_.head_dim, angles_.cos(row), angles_.sin(row), angles_.pairs());
    }
  });
}

}  // namespace moraine::cpu
