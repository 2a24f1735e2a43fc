#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "quant/error.h"
#include "runtime/backend.h"
#include "runtime/model_config.h"

namespace moraine::testing {

/// A cache that keeps the tokens themselves.
struct FakeCache final : runtime::KvCache {
  std::vector<int32_t> tokens;
  int64_t token_count() const override { return static_cast<int64_t>(tokens.size()); }
  void truncate(int64_t count) override { tokens.resize(static_cast<size_t>(count)); }
  uint64_t size_bytes() const override { return tokens.size() * sizeof(int32_t); }
};

/// A twin of both ports whose arithmetic a test can follow: x[row] starts as the token id; every expert adds
/// weight × (its record's first float); logits are one-hot at what `next_token` says of the sequence so far.
class FakeBackend final : public runtime::DenseBackend, public runtime::ExpertBackend {
 public:
  explicit FakeBackend(const runtime::ModelConfig& config, int32_t max_rows = 4)
      : config_(config), max_rows_(max_rows) {}

  std::function<int32_t(const std::vector<int32_t>&)> next_token = [](const auto& tokens) { return tokens.back(); };
  std::function<float(int layer, int32_t token, int32_t expert)> affinity = [](int, int32_t token, int32_t expert) {
    return static_cast<float>((token * 7 + expert * 3) % 11);
  };
  std::vector<int32_t> step_rows;                     // rows of every step
  std::vector<int64_t> step_positions;                // first position of every step's first slice
  std::vector<int> predicted_layers, refined_layers;  // refined: with what was computed so far
  std::vector<float> refined_with;
  std::function<void()> on_refined;
  int fail_at_layer = -1;

  std::unique_ptr<runtime::KvCache> make_cache() override { return std::make_unique<FakeCache>(); }
  int32_t max_rows() const override { return max_rows_; }

  void begin_step(const runtime::StepBatch& batch) override {
    tokens_.assign(batch.token_ids.begin(), batch.token_ids.end());
    slices_.assign(batch.slices.begin(), batch.slices.end());
    step_rows.push_back(static_cast<int32_t>(tokens_.size()));
    step_positions.push_back(slices_.front().first_position);
    x_.assign(tokens_.size(), 0.0f);
    for (size_t row = 0; row < tokens_.size(); ++row) x_[row] = static_cast<float>(tokens_[row]);
    for (const auto& slice : slices_) {
      auto& cache = static_cast<FakeCache&>(*slice.cache);
      MORAINE_CHECK(cache.token_count() == slice.first_position);
      for (int32_t i = 0; i < slice.row_count; ++i)
        cache.tokens.push_back(tokens_[static_cast<size_t>(slice.first_row + i)]);
    }
  }
  void attention(int layer) override {
    if (layer == fail_at_layer) throw quant::Error(quant::ErrorKind::kIo, {.what = "injected"});
  }
  void dense_ffn(int) override {}
  void route(int layer, std::span<float> normed, std::span<float> logits) override {
    std::fill(normed.begin(), normed.end(), 0.0f);
    const auto n = static_cast<size_t>(config_.n_routed_experts);
    for (size_t row = 0; row < tokens_.size(); ++row) {
      for (size_t e = 0; e < n; ++e) logits[row * n + e] = affinity(layer, tokens_[row], static_cast<int32_t>(e));
    }
  }
  void predict_route(int layer, std::span<const float> routed, std::span<float> logits) override {
    predicted_layers.push_back(layer);
    if (!routed.empty()) {
      refined_layers.push_back(layer);
      refined_with.push_back(routed[0]);
      if (on_refined) on_refined();
    }
    for (size_t e = 0; e < logits.size(); ++e) logits[e] = affinity(layer, tokens_.back(), static_cast<int32_t>(e));
  }
  void shared_expert(int) override {}
  void combine(int, std::span<const float> routed) override {
    for (size_t row = 0; row < x_.size(); ++row) x_[row] += routed[row * static_cast<size_t>(config_.hidden_size)];
  }
  void head(std::span<const int32_t> rows, std::span<float> logits) override {
    const auto vocab = static_cast<size_t>(config_.vocab_size);
    std::fill(logits.begin(), logits.end(), 0.0f);
    for (size_t i = 0; i < rows.size(); ++i) {
      for (const auto& slice : slices_) {
        const int32_t place = rows[i] - slice.first_row;
        if (place < 0 || place >= slice.row_count) continue;
        auto tokens = static_cast<FakeCache&>(*slice.cache).tokens;
        tokens.resize(static_cast<size_t>(slice.first_position + place + 1));
        logits[i * vocab + static_cast<size_t>(next_token(tokens))] = 1.0f;
      }
    }
  }
  void read_hidden(std::span<float> hidden) override {
    for (size_t row = 0; row < x_.size(); ++row) hidden[row * static_cast<size_t>(config_.hidden_size)] = x_[row];
  }

  void begin_experts(std::span<const float>, int32_t row_count, const quant::ExpertLayout&, int32_t slots) override {
    slots_ = static_cast<size_t>(slots);
    outputs_.assign(static_cast<size_t>(row_count) * slots_, 0.0f);
  }
  void compute_expert(std::span<const std::byte> record, std::span<const runtime::ExpertUse> uses) override {
    float value = 0.0f;
    std::memcpy(&value, record.data(), sizeof(value));
    for (const auto& use : uses) {
      outputs_[static_cast<size_t>(use.row) * slots_ + static_cast<size_t>(use.slot)] += use.weight * value;
    }
  }
  void compute_experts(std::span<const offload::ExpertLease> leases,
                       std::span<const std::span<const runtime::ExpertUse>> uses) override {
    for (size_t i = 0; i < leases.size(); ++i) compute_expert(leases[i].record(), uses[i]);
  }
  void sum_so_far(std::span<float> sum) override {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (size_t slot = 0; slot < slots_; ++slot) sum[0] += outputs_[outputs_.size() - slots_ + slot];
  }
  void finish_experts(std::span<float> routed) override {
    std::fill(routed.begin(), routed.end(), 0.0f);
    for (size_t row = 0; row < outputs_.size() / slots_; ++row) {
      for (size_t slot = 0; slot < slots_; ++slot) {
        routed[row * static_cast<size_t>(config_.hidden_size)] += outputs_[row * slots_ + slot];
      }
    }
  }

 private:
  runtime::ModelConfig config_;
  int32_t max_rows_;
  std::vector<int32_t> tokens_;
  std::vector<runtime::SequenceSlice> slices_;
  std::vector<float> x_;        // [rows]: the first hidden value, the only one followed
  std::vector<float> outputs_;  // [rows, slots]
  size_t slots_ = 1;
};

}  // namespace moraine::testing
