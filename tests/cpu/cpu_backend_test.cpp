#include "cpu/cpu_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "runtime/rope.h"
#include "support/random_model.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace moraine::cpu {
namespace {

using quant::DType;
using runtime::ExpertUse;
using testing::RandomModel;
using testing::same_bits;

/// A sequence's tokens of one step.
struct Part {
  runtime::KvCache* cache;
  std::vector<int32_t> tokens;
};

/// The expert in `slot` that the tests choose for a token at a layer (distinct for the two slots), and its weight. A
/// choice by logits could differ between f32 and f64.
int64_t chosen_expert(int layer, int32_t token, int32_t slot) {
  return (layer + token + slot * (1 + token % 5)) % 6;
}
float chosen_weight(int32_t token, int32_t slot) {
  return 0.4f + 0.1f * static_cast<float>(token % 3) + 0.3f * static_cast<float>(slot);
}

/// Runs the routed part of a layer, experts in descending or ascending order.
std::vector<float> run_experts(CpuBackend& backend, const RandomModel& model, int layer,
                               const std::vector<int32_t>& tokens, std::span<const float> normed, bool descending) {
  const auto rows = static_cast<int32_t>(tokens.size());
  backend.begin_experts(normed, rows, model.layout, 2);
  std::vector<float> so_far(static_cast<size_t>(model.model->config.hidden_size), 1.0f);
  backend.sum_so_far(so_far);
  EXPECT_EQ(so_far, std::vector<float>(so_far.size(), 0.0f)) << "nothing is computed yet";
  for (int64_t i = 0; i < 6; ++i) {
    const int64_t expert = descending ? 5 - i : i;
    std::vector<ExpertUse> uses;
    for (int32_t row = 0; row < rows; ++row) {
      const int32_t token = tokens[static_cast<size_t>(row)];
      for (int32_t slot = 0; slot < 2; ++slot) {
        if (chosen_expert(layer, token, slot) == expert) uses.push_back({row, slot, chosen_weight(token, slot)});
      }
    }
    if (!uses.empty()) backend.compute_expert(model.record(layer, expert), uses);
  }
  std::vector<float> routed(normed.size());
  backend.sum_so_far(so_far);
  backend.finish_experts(routed);
  EXPECT_TRUE(std::ranges::equal(so_far, std::span(routed).last(so_far.size()))) << "everything is";
  return routed;
}

/// One step of any sequences; returns logits of all rows [rows, vocab].
std::vector<float> step(CpuBackend& backend, const RandomModel& model, const std::vector<Part>& parts,
                        bool descending = false) {
  std::vector<int32_t> tokens;
  std::vector<runtime::SequenceSlice> slices;
  for (const Part& part : parts) {
    slices.push_back({part.cache, part.cache->token_count(), static_cast<int32_t>(tokens.size()),
                      static_cast<int32_t>(part.tokens.size())});
    tokens.insert(tokens.end(), part.tokens.begin(), part.tokens.end());
  }
  backend.begin_step({tokens, slices});
  const runtime::ModelConfig& config = model.model->config;
  const size_t hidden = static_cast<size_t>(config.hidden_size);
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    backend.attention(layer);
    if (!config.is_moe_layer(layer)) {
      backend.dense_ffn(layer);
      continue;
    }
    std::vector<float> normed(tokens.size() * hidden), logits(tokens.size() * 6), predicted(6);
    backend.route(layer, normed, logits);
    // The same layer's router on the present x is what route() computed for the last row.
    backend.predict_route(layer, {}, predicted);
    EXPECT_TRUE(same_bits(predicted, std::span(logits).last(6)));
    backend.shared_expert(layer);
    const std::vector<float> routed = run_experts(backend, model, layer, tokens, normed, descending);
    // What combine() makes of x can be routed before.
    std::vector<float> before(6);
    backend.predict_route(layer, std::span(routed).last(hidden), before);
    backend.combine(layer, routed);
    backend.predict_route(layer, {}, predicted);
    EXPECT_TRUE(same_bits(before, predicted));
  }
  std::vector<int32_t> rows(tokens.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  std::vector<float> logits(tokens.size() * static_cast<size_t>(config.vocab_size));
  backend.head(rows, logits);
  return logits;
}

std::vector<int32_t> some_tokens(int64_t count, int32_t vocab, int32_t salt = 0) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>((i * 11 + i * i * 3 + salt * 7 + 2) % vocab));
  return tokens;
}

/// The forward pass in f64, written from the formulas of shared/spec/deepseek-v3.md §3.1 and §4.
class Reference {
 public:
  explicit Reference(const RandomModel& model)
      : made_(model), model_(*model.model), config_(model_.config), rope_(config_) {}

  /// Hidden state of every token after all layers and the final norm, times the head: [tokens, vocab].
  std::vector<std::vector<double>> logits(const std::vector<int32_t>& tokens) {
    std::vector<Row> x;
    for (const int32_t token : tokens) {
      std::vector<float> row(static_cast<size_t>(config_.hidden_size));
      quant::dequantize_packed(model_.embed_tokens.view, token, 1, row);
      x.emplace_back(row.begin(), row.end());
    }
    for (size_t l = 0; l < model_.layers.size(); ++l) {
      const runtime::LayerWeights& weights = model_.layers[l];
      attend(weights, x);
      for (size_t t = 0; t < x.size(); ++t) {
        const Row h = norm(x[t], weights.post_attention_layernorm);
        add(x[t], ffn(view(weights.ffn), h), 1.0);
        if (!config_.is_moe_layer(static_cast<int64_t>(l))) continue;
        for (int32_t slot = 0; slot < 2; ++slot) {
          const int64_t expert = chosen_expert(static_cast<int>(l), tokens[t], slot);
          const std::span<const std::byte> record = made_.record(static_cast<int64_t>(l), expert);
          add(x[t], ffn(quant::expert_view(made_.layout, record.data()), h), double{chosen_weight(tokens[t], slot)});
        }
      }
    }
    for (Row& row : x) row = multiply(model_.lm_head.view, norm(row, model_.norm));
    return x;
  }

 private:
  using Row = std::vector<double>;

  static quant::ExpertView view(const runtime::FfnWeights& ffn) {
    return {ffn.gate_proj.view, ffn.up_proj.view, ffn.down_proj.view};
  }

  static void add(Row& to, const Row& from, double factor) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += factor * from[i];
  }

  Row norm(const Row& x, std::span<const float> gain) const {
    double sum = 0.0;
    for (size_t i = 0; i < gain.size(); ++i) sum += x[i] * x[i];
    const double r = 1.0 / std::sqrt(sum / static_cast<double>(gain.size()) + config_.rms_norm_eps);
    Row y = x;
    for (size_t i = 0; i < gain.size(); ++i) y[i] *= r * double{gain[i]};
    return y;
  }

  static Row multiply(const quant::PackedView& matrix, const Row& x) {
    std::vector<float> w(static_cast<size_t>(matrix.rows * matrix.cols));
    quant::dequantize_packed(matrix, 0, matrix.rows, w);
    Row y(static_cast<size_t>(matrix.rows));
    for (size_t r = 0; r < y.size(); ++r) {
      for (size_t k = 0; k < static_cast<size_t>(matrix.cols); ++k)
        y[r] += double{w[r * static_cast<size_t>(matrix.cols) + k]} * x[k];
    }
    return y;
  }

  static Row ffn(const quant::ExpertView& weights, const Row& x) {
    Row gate = multiply(weights.gate, x);
    const Row up = multiply(weights.up, x);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1.0 + std::exp(-gate[i])) * up[i];
    return multiply(weights.down, gate);
  }

  void rotate(std::span<double> x, int64_t position) const {
    for (size_t i = 0; i < x.size() / 2; ++i) {
      const double angle = static_cast<double>(position) * rope_.frequencies()[i];
      const double first = x[2 * i], second = x[2 * i + 1];
      x[2 * i] = first * std::cos(angle) - second * std::sin(angle);
      x[2 * i + 1] = first * std::sin(angle) + second * std::cos(angle);
    }
  }

  void attend(const runtime::LayerWeights& weights, std::vector<Row>& x) const {
    const auto heads = static_cast<size_t>(config_.num_attention_heads),
               nope = static_cast<size_t>(config_.qk_nope_head_dim);
    const auto rope = static_cast<size_t>(config_.qk_rope_head_dim), v = static_cast<size_t>(config_.v_head_dim);
    const auto rank = static_cast<size_t>(config_.kv_lora_rank);
    std::vector<Row> keys, keys_and_values;
    for (size_t t = 0; t < x.size(); ++t) {
      const Row normed = norm(x[t], weights.input_layernorm);
      Row latent = multiply(weights.kv_a_proj_with_mqa.view, normed);
      latent = norm(latent, weights.kv_a_layernorm);  // the norm leaves what lies behind its gains alone
      rotate(std::span(latent).subspan(rank, rope), static_cast<int64_t>(t));
      keys_and_values.push_back(multiply(weights.kv_b_proj.view, latent));
      keys.push_back(latent);
      Row q = multiply(weights.q_b_proj.view, norm(multiply(weights.q_a_proj.view, normed), weights.q_a_layernorm));
      Row mixed(heads * v);
      for (size_t h = 0; h < heads; ++h) {
        const std::span<double> head = std::span(q).subspan(h * (nope + rope), nope + rope);
        rotate(head.subspan(nope), static_cast<int64_t>(t));
        Row p(t + 1);
        double sum = 0.0;
        for (size_t s = 0; s <= t; ++s) {
          for (size_t i = 0; i < nope; ++i) p[s] += head[i] * keys_and_values[s][h * (nope + v) + i];
          for (size_t i = 0; i < rope; ++i) p[s] += head[nope + i] * keys[s][rank + i];
          sum += p[s] = std::exp(p[s] * config_.softmax_scale());
        }
        for (size_t s = 0; s <= t; ++s) {
          for (size_t i = 0; i < v; ++i) mixed[h * v + i] += p[s] / sum * keys_and_values[s][h * (nope + v) + nope + i];
        }
      }
      add(x[t], multiply(weights.o_proj.view, mixed), 1.0);
    }
  }

  const RandomModel& made_;
  const runtime::Model& model_;
  const runtime::ModelConfig& config_;
  runtime::RopeTable rope_;
};

TEST(CpuBackend, EqualsTheForwardPassInF64) {
  for (const auto& [config, type] :
       {std::pair{testing::odd_config(), DType::kF32}, std::pair{testing::even_config(), DType::kQ4_K},
        std::pair{testing::even_config(), DType::kF8E4M3}}) {
    const RandomModel model = testing::random_model(config, type, 1);
    const std::vector<int32_t> tokens = some_tokens(70, static_cast<int32_t>(config.vocab_size));
    const std::vector<std::vector<double>> expected = Reference(model).logits(tokens);
    CpuBackend backend(model.model, {.threads = 2, .precise = true});
    const auto cache = backend.make_cache();
    std::vector<float> logits;
    // A chunk long enough for expanded attention, single tokens, a short chunk.
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 66}, {66, 1}, {67, 3}}) {
      const std::vector<float> part =
          step(backend, model, {{cache.get(), {tokens.begin() + first, tokens.begin() + first + count}}});
      logits.insert(logits.end(), part.begin(), part.end());
    }
    // Normwise error: the roundings of the longest chain of dot products, each level of which is renormalised.
    const int64_t per_layer =
        4 * config.hidden_size + config.q_lora_rank + 2 * config.kv_lora_rank + config.intermediate_size + 70;
    const double relative = testing::gamma(config.num_hidden_layers * per_layer, testing::kUnitF32);
    for (size_t t = 0; t < tokens.size(); ++t) {
      double magnitude = 0.0;
      for (const double logit : expected[t]) magnitude = std::max(magnitude, std::abs(logit));
      for (size_t i = 0; i < expected[t].size(); ++i) {
        ASSERT_NEAR(logits[t * expected[t].size() + i], expected[t][i], relative * magnitude)
            << "token " << t << ", logit " << i;
      }
    }
  }
}

TEST(CpuBackend, ThreadsInstructionSetAndArrivalOrderChangeNoBit) {
  for (const DType type : {DType::kF32, DType::kQ8_0}) {
    const RandomModel model = testing::random_model(testing::even_config(), type, 2);
    const std::vector<int32_t> prompt = some_tokens(20, 64), next = {5};
    std::vector<float> expected;
    for (const CpuOptions& options :
         {CpuOptions{.threads = 1, .reference = true}, CpuOptions{.threads = 1}, CpuOptions{.threads = 2}}) {
      CpuBackend backend(model.model, options);
      EXPECT_EQ(backend.threads(), options.threads);
      EXPECT_STREQ(backend.isa_name(), options.reference ? "scalar" : isa_name());
      const auto cache = backend.make_cache();
      std::vector<float> logits = step(backend, model, {{cache.get(), prompt}}, options.threads == 2);
      const std::vector<float> second = step(backend, model, {{cache.get(), next}}, options.threads == 2);
      logits.insert(logits.end(), second.begin(), second.end());
      if (expected.empty()) expected = logits;
      EXPECT_TRUE(same_bits(logits, expected));
    }
  }
}

TEST(CpuBackend, PreciseChangesBlockFormatsAlone) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K,
                           DType::kQ6_K, DType::kQ2_K}) {
    const RandomModel model = testing::random_model(testing::even_config(), type, 7);
    std::vector<float> logits[2];
    for (const bool precise : {false, true}) {
      CpuBackend backend(model.model, {.threads = 1, .precise = precise});
      const auto cache = backend.make_cache();
      logits[precise ? 1 : 0] = step(backend, model, {{cache.get(), some_tokens(3, 64)}});
    }
    const bool blocks = quant::block_elements(type) > 1;
    EXPECT_EQ(!same_bits(logits[0], logits[1]), blocks) << quant::dtype_name(type);
  }
}

/// √(Σ(a − b)² / Σb²)
double relative_difference(std::span<const float> a, std::span<const float> b) {
  double error = 0.0, size = 0.0;
  for (size_t i = 0; i < b.size(); ++i) {
    error += std::pow(double{a[i]} - double{b[i]}, 2);
    size += std::pow(double{b[i]}, 2);
  }
  return std::sqrt(error / size);
}

TEST(CpuBackend, RoundedActivationsChangeLogitsAsIndependentErrorsDo) {
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    const RandomModel model = testing::random_model(testing::even_config(), type, 8);
    const std::vector<int32_t> tokens = some_tokens(90, 64);
    std::vector<float> logits[2];
    for (const bool precise : {false, true}) {
      CpuBackend backend(model.model, {.threads = 2, .precise = precise});
      const auto cache = backend.make_cache();
      // A chunk long enough for expanded attention, single tokens, a short chunk.
      for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 80}, {80, 1}, {81, 9}}) {
        const std::vector<float> part =
            step(backend, model, {{cache.get(), {tokens.begin() + first, tokens.begin() + first + count}}});
        logits[precise ? 1 : 0].insert(logits[precise ? 1 : 0].end(), part.begin(), part.end());
      }
    }
    // One rounding of 256 normal numbers to int8 is off by max/127/√12, 0.67 % of their size. A layer puts some six of
    // them in a row (and smaller ones of bf16 and of weights between), so three layers and the head add up to
    // √19 · 0.67 % = 2.9 %.
    EXPECT_LT(relative_difference(logits[0], logits[1]), 0.045) << quant::dtype_name(type);
    EXPECT_GT(relative_difference(logits[0], logits[1]), 0.005) << quant::dtype_name(type);
  }
}

TEST(CpuBackend, ABatchOfSequencesEqualsEachAlone) {
  for (const auto& [config, type] :
       {std::pair{testing::odd_config(), DType::kF32}, std::pair{testing::even_config(), DType::kQ8_0}}) {
    const RandomModel model = testing::random_model(config, type, 3);
    CpuBackend backend(model.model, {.threads = 2});
    const std::array<std::vector<int32_t>, 3> prompts = {some_tokens(80, 37, 1), some_tokens(1, 37, 2),
                                                         some_tokens(9, 37, 3)};
    std::vector<float> expected_first, expected_second;
    std::vector<std::unique_ptr<runtime::KvCache>> caches;
    for (const auto& prompt : prompts) {
      const auto cache = backend.make_cache();
      const std::vector<float> first = step(backend, model, {{cache.get(), prompt}});
      const std::vector<float> second = step(backend, model, {{cache.get(), {7}}});
      expected_first.insert(expected_first.end(), first.begin(), first.end());
      expected_second.insert(expected_second.end(), second.begin(), second.end());
      caches.push_back(backend.make_cache());
    }
    EXPECT_TRUE(
        same_bits(step(backend, model,
                       {{caches[0].get(), prompts[0]}, {caches[1].get(), prompts[1]}, {caches[2].get(), prompts[2]}}),
                  expected_first));
    EXPECT_TRUE(
        same_bits(step(backend, model, {{caches[0].get(), {7}}, {caches[1].get(), {7}}, {caches[2].get(), {7}}}),
                  expected_second));
  }
}

TEST(CpuBackend, ABlockFormatHalvesTheCache) {
  for (const bool precise : {false, true}) {
    const RandomModel model = testing::random_model(testing::even_config(), DType::kQ8_0, 9);
    CpuBackend backend(model.model, {.threads = 1, .precise = precise});
    const auto cache = backend.make_cache();
    step(backend, model, {{cache.get(), {1}}});
    // Pages of 64 tokens, 3 layers, 64 + 8 values: f32 in rows of 80, bf16 in rows of 96.
    EXPECT_EQ(cache->size_bytes(), precise ? 64u * 3 * 80 * 4 : 64u * 3 * 96 * 2);
  }
}

TEST(CpuBackend, AnAbandonedStepAndATruncatedCacheLeaveNoTrace) {
  const RandomModel model = testing::random_model(testing::odd_config(), DType::kF32, 4);
  CpuBackend backend(model.model, {.threads = 1});
  const auto cache = backend.make_cache();
  step(backend, model, {{cache.get(), {1, 2, 3}}});
  const std::vector<float> expected = step(backend, model, {{cache.get(), {4}}});
  EXPECT_EQ(cache->token_count(), 4);
  cache->truncate(3);

  const std::array<int32_t, 2> tokens = {9, 8};
  const std::array<runtime::SequenceSlice, 1> slices = {runtime::SequenceSlice{cache.get(), 3, 0, 2}};
  backend.begin_step({tokens, slices});
  backend.attention(0);
  EXPECT_EQ(cache->token_count(), 3);
  EXPECT_TRUE(same_bits(step(backend, model, {{cache.get(), {4}}}), expected));
}

TEST(CpuBackend, ReadHiddenIsTheEmbeddingAtFirst) {
  const RandomModel model = testing::random_model(testing::odd_config(), DType::kF32, 5);
  CpuBackend backend(model.model, {.threads = 1});
  const auto cache = backend.make_cache();
  const std::array<int32_t, 2> tokens = {36, 0};
  const std::array<runtime::SequenceSlice, 1> slices = {runtime::SequenceSlice{cache.get(), 0, 0, 2}};
  backend.begin_step({tokens, slices});
  std::vector<float> hidden(48), expected(48);
  backend.read_hidden(hidden);
  quant::dequantize_packed(model.model->embed_tokens.view, 36, 1, std::span(expected).first(24));
  quant::dequantize_packed(model.model->embed_tokens.view, 0, 1, std::span(expected).last(24));
  EXPECT_TRUE(same_bits(hidden, expected));
}

TEST(CpuBackendDeathTest, RefusesAStepThatMakesNoSense) {
  const RandomModel model = testing::random_model(testing::odd_config(), DType::kF32, 6);
  CpuBackend backend(model.model, {.threads = 1, .max_rows = 2});
  const auto cache = backend.make_cache();
  const std::array<int32_t, 3> tokens = {1, 2, 37};
  const auto begin = [&](size_t rows, const runtime::SequenceSlice& slice) {
    backend.begin_step({std::span(tokens).first(rows), {&slice, 1}});
  };
  EXPECT_DEATH(begin(3, {cache.get(), 0, 0, 3}), "max_rows");
  EXPECT_DEATH(begin(2, {cache.get(), 1, 0, 2}), "first_position");
  EXPECT_DEATH(begin(2, {cache.get(), 0, 0, 1}), "rows");
  EXPECT_DEATH(begin(2, {nullptr, 0, 0, 2}), "cache");
  EXPECT_DEATH(backend.attention(0), "rows_");
}

}  // namespace
}  // namespace moraine::cpu
