// Attention over as long a context as the models know, by position alone: a query rotated to some depth must find the
// token at exactly that depth among all others, whose keys differ from it by their rotation only.

#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "cpu/gqa_attention.h"
#include "cpu/isa.h"
#include "cpu/mla_attention.h"
#include "cpu/rotate.h"
#include "quant/json.h"
#include "runtime/rope.h"
#include "support/random_matrix.h"
#include "support/test_data.h"

namespace moraine::cpu {
namespace {

/// Scores fall by some 1.5 · kSharpness² from the needle to its neighbours, and every weight but the needle's vanishes.
constexpr float kSharpness = 12.0f;

runtime::ModelConfig config_of(const std::string& name) {
  const std::string file = "configs/" + name + ".json";
  return runtime::ModelConfig::parse(quant::read_text(testing::test_data(file), 1 << 20), file);
}

/// The same vector at every position, turned by the model's rope.
class Turned {
 public:
  explicit Turned(const runtime::ModelConfig& config)
      : table_(config), pairs_(config.rope_pairs), cos_(table_.frequencies().size()), sin_(cos_.size()) {}

  void write(int64_t position, float length, float* to) {
    const auto pairs = std::ssize(cos_);
    table_.cos_sin(position, cos_, sin_);
    std::fill_n(to, 2 * pairs, length);
    const auto turn = pairs_ == runtime::RopePairs::kHalves ? rotate_halves : rotate_pairs;
    turn(to, cos_.data(), sin_.data(), pairs);
  }

 private:
  runtime::RopeTable table_;
  runtime::RopePairs pairs_;
  std::vector<float> cos_, sin_;
};

/// What the token at a position says of itself: ±1, 20 binary digits over and over.
void sign_position(int64_t position, std::span<float> to) {
  for (size_t i = 0; i < to.size(); ++i) to[i] = (position >> (i % 20) & 1) != 0 ? 1.0f : -1.0f;
}

std::vector<int64_t> depths(int64_t tokens) {
  return {0, 1, 63, 64, 4095, 4096, 5000, tokens / 4, tokens / 2, tokens / 4 * 3, tokens - 2, tokens - 1};
}

TEST(PositionNeedleSlow, LatentAttentionFindsItAtEveryDepthOf163840) {
  const runtime::ModelConfig config = config_of("deepseek-r1");
  const int64_t tokens = config.max_position_embeddings, rope = config.qk_rope_head_dim;
  ASSERT_EQ(tokens, 163840);
  const MlaShape shape{.num_attention_heads = 1,
                       .qk_nope_head_dim = 16,
                       .qk_rope_head_dim = rope,
                       .v_head_dim = 32,
                       .kv_lora_rank = 32,
                       .softmax_scale = static_cast<float>(config.softmax_scale())};
  // W_UV is the identity (W_UK meets queries of zeros), so the output is the needle's latent.
  std::vector<float> weights(static_cast<size_t>(shape.kv_head_rows() * shape.kv_lora_rank), 0.0f);
  for (int64_t i = 0; i < 32; ++i) weights[static_cast<size_t>((16 + i) * 32 + i)] = 1.0f;
  for (const auto& [type, cache_type] :
       {std::pair{quant::DType::kF32, CacheType::kF32}, {quant::DType::kQ8_0, CacheType::kBf16}}) {
    testing::RandomMatrix kv_b_proj = testing::make_matrix(type, shape.kv_head_rows(), shape.kv_lora_rank);
    quant::quantize_packed(type, weights, shape.kv_head_rows(), shape.kv_lora_rank, kv_b_proj.storage.span());
    LatentCache cache(1, shape.kv_lora_rank + rope, cache_type);
    cache.reserve(tokens);
    Turned turned(config);
    std::vector<float> row(static_cast<size_t>(cache.width()));
    for (int64_t s = 0; s < tokens; ++s) {
      sign_position(s, std::span(row).first(32));
      turned.write(s, kSharpness, row.data() + 32);
      cache.write(select_kernels(), 0, s, row.data());
    }
    Workers workers(select_kernels(), 2);
    for (const int64_t depth : depths(tokens)) {
      std::vector<float> query(static_cast<size_t>(shape.qk_head_dim()), 0.0f), expected(32);
      turned.write(depth, kSharpness, query.data() + shape.qk_nope_head_dim);
      sign_position(depth, expected);
      for (const MlaForm form : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
        std::vector<float> out(32);
        const MlaSlice slice{&cache, tokens - 1, 0, 1, form};
        mla_attention(workers, shape, kv_b_proj.view, 0, {&slice, 1}, query.data(), out.data());
        for (size_t i = 0; i < 32; ++i) ASSERT_NEAR(out[i], expected[i], 0.02f) << "depth " << depth << " digit " << i;
      }
    }
  }
}

class PositionNeedleGroupedSlow : public ::testing::TestWithParam<const char*> {};

TEST_P(PositionNeedleGroupedSlow, FindsItAtEveryDepthOf131072) {
  const runtime::ModelConfig config = config_of(GetParam());
  const int64_t tokens = config.max_position_embeddings, dim = config.head_dim;
  ASSERT_EQ(tokens, 131072);
  const GqaShape shape{.num_attention_heads = 2,
                       .num_key_value_heads = 1,
                       .head_dim = dim,
                       .softmax_scale = static_cast<float>(config.softmax_scale())};
  for (const CacheType type : {CacheType::kF32, CacheType::kBf16}) {
    HeadCache cache(1, 1, dim, type);
    cache.reserve(tokens);
    Turned turned(config);
    std::vector<float> key(static_cast<size_t>(dim)), value(key.size());
    for (int64_t s = 0; s < tokens; ++s) {
      turned.write(s, kSharpness, key.data());
      sign_position(s, value);
      cache.put(select_kernels(), 0, 0, s, key.data(), value.data());
    }
    Workers workers(select_kernels(), 2);
    FloatBuffer partials;
    // The two heads look for different depths.
    const std::vector<int64_t> wanted = depths(tokens);
    for (size_t first = 0; first < wanted.size(); ++first) {
      const int64_t depth[2] = {wanted[first], wanted[wanted.size() - 1 - first]};
      std::vector<float> queries(static_cast<size_t>(2 * dim)), out(queries.size()), expected(static_cast<size_t>(dim));
      for (int64_t head = 0; head < 2; ++head) turned.write(depth[head], kSharpness, queries.data() + head * dim);
      const GqaSlice slice{&cache, tokens - 1, 0, 1};
      gqa_attention(workers, shape, 0, {&slice, 1}, partials, queries.data(), out.data());
      for (size_t head = 0; head < 2; ++head) {
        sign_position(depth[head], expected);
        for (size_t i = 0; i < expected.size(); ++i) {
          ASSERT_NEAR(out[head * expected.size() + i], expected[i], 0.02f) << "depth " << depth[head] << " digit " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Distilled, PositionNeedleGroupedSlow,
                         ::testing::Values("r1-distill-qwen-7b", "r1-distill-llama-8b"), [](const auto& param) {
                           return std::string(param.param).find("qwen") != std::string::npos ? "qwen" : "llama";
                         });

}  // namespace
}  // namespace moraine::cpu
