// GGUF files whose experts are in the formats of 1.6 to 3.4 bits that no quantizer of ours makes: random valid blocks,
// run in place against the same model with those blocks' weights as F32.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include "quant/dequantize.h"
#include "quant/gguf.h"
#include "runtime/weight_loader.h"
#include "support/captured_console.h"
#include "support/model_run.h"
#include "support/random_matrix.h"
#include "support/small_checkpoint.h"
#include "support/small_tokenizer.h"
#include "support/temp_dir.h"
#include "tools/converter.h"
#include "tools/engine_setup.h"
#include "tools/gguf_exporter.h"
#include "tools/random_weights.h"
#include "tools/synthesizer.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using quant::DType;
using testing::RandomValues;

constexpr int64_t kVocab = 300;

/// Of int8 activations, as a share of the range of all logits. A row's numbers are rounded to 1/127 of its largest,
/// some 3 deviations: an error of 3 / 127 / √12 = 0.7 % of their deviation, in the inputs of gate and up and again in
/// down's. A routed sum is at most all of the residual in two layers: 0.7 % · √(3 · 2) = 1.7 % of a logit's deviation,
/// whose range over 24 · 300 logits is 7 to 8 deviations and whose largest error 4 of its own: 4 · 1.7 % / 7.5 = 0.9 %.
constexpr double kMostOfRange = 0.01;

/// Widths that are multiples of 256, and every token takes all experts: nothing flips where numbers differ a little.
quant::Json wide_config() {
  quant::Json config = testing::SmallCheckpoint().config;
  config.update(quant::Json::parse(R"({
    "vocab_size": 300, "hidden_size": 256, "intermediate_size": 256, "moe_intermediate_size": 256, "kv_lora_rank": 32,
    "q_lora_rank": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "qk_nope_head_dim": 32, "n_group": 1,
    "num_experts_per_tok": 4})"));
  return config;
}

/// A directory with that config and random F32 weights.
void write_model(const fs::path& directory) {
  fs::create_directory(directory);
  std::ofstream(directory / "config.json") << wide_config().dump();
  std::ofstream(directory / "tokenizer.json")
      << testing::small_tokenizer_json(runtime::PreTokenizerKind::kDeepSeekV3).dump();
  const auto config = runtime::ModelConfig::from_directory(directory);
  std::vector<runtime::ResidentTensor> all = runtime::resident_tensors(config);
  for (int64_t layer = config.first_k_dense_replace; layer < config.num_hidden_layers; ++layer) {
    for (int64_t expert = 0; expert < config.n_routed_experts; ++expert) {
      for (const char* name : {"gate_proj", "up_proj", "down_proj"}) {
        all.push_back({.name = fmt::format("model.layers.{}.mlp.experts.{}.{}.weight", layer, expert, name),
                       .rows = 256,
                       .cols = 256});
      }
    }
  }
  std::vector<quant::TensorInfo> infos;
  for (const runtime::ResidentTensor& tensor : all) {
    const std::vector<int64_t> shape =
        tensor.cols == 0 ? std::vector{tensor.rows} : std::vector{tensor.rows, tensor.cols};
    infos.push_back({.name = tensor.name,
                     .shape = shape,
                     .size_bytes = static_cast<uint64_t>(tensor.rows * std::max<int64_t>(1, tensor.cols)) * 4});
  }
  quant::SafetensorsWriter writer(directory / "model.safetensors", infos);
  for (size_t i = 0; i < all.size(); ++i) {
    std::vector<std::byte> bytes(infos[i].size_bytes);
    LaneRandom random(1, all[i].name);
    fill_tensor(random, DType::kF32, synth_spread(all[i]), bytes);
    writer.write(bytes);
  }
  writer.finish();
}

/// Sets the f16 scale of a block.
void set_scale(DType type, std::span<std::byte> block, float d) {
  const uint16_t half = quant::f16_from_f32(d);
  if (type != DType::kIQ1_M) {
    std::memcpy(block.data() + testing::f16_fields(type).front(), &half, sizeof half);
    return;
  }
  for (size_t i = 0; i < 4; ++i) {  // the top nibbles of the last four 16-bit numbers
    std::byte& top = block[48 + 2 * i + 1];
    top = (top & std::byte{0x0f}) | static_cast<std::byte>(((half >> (4 * i)) & 15) << 4);
  }
}

/// `count` numbers as blocks of random codes whose weights deviate by about 1/16, as those of rows of 256 do.
std::vector<std::byte> random_blocks(DType type, int64_t count, RandomValues& random) {
  std::vector<std::byte> bytes(quant::row_bytes(type, count));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.bits());
  const int64_t elements = quant::block_elements(type);
  const size_t block_bytes = quant::row_bytes(type, elements);
  std::vector<float> values(static_cast<size_t>(elements));
  for (size_t at = 0; at < bytes.size(); at += block_bytes) {
    const auto block = std::span(bytes).subspan(at, block_bytes);
    set_scale(type, block, 1.0f);
    quant::dequantize_row(type, block, values);
    double squares = 1e-6;
    for (const float value : values) squares += static_cast<double>(value) * value;
    const double deviation = std::sqrt(squares / static_cast<double>(elements));
    set_scale(type, block, static_cast<float>(0.0625 * (0.7 + 0.6 * random.uniform()) / deviation));
  }
  return bytes;
}

class GgufGridExperts : public ::testing::TestWithParam<DType> {
 protected:
  GgufGridExperts() {
    write_model(directory_ / "model");
    GgufExportOptions options;
    options.source = directory_ / "model";
    options.destination = directory_ / "f32.gguf";
    GgufExporter(options).run({});
    write_twins();
  }

  /// Replaces the experts: by blocks in one file, by what they mean in the other.
  void write_twins() {
    const quant::Gguf base = quant::Gguf::open(directory_ / "f32.gguf");
    const std::string bytes = testing::file_content(directory_ / "f32.gguf");
    const quant::GgufWriter::Metadata metadata(base.metadata().begin(), base.metadata().end());
    std::vector<quant::TensorInfo> infos(base.tensors().begin(), base.tensors().end());
    quant::GgufWriter meant(directory_ / "meant.gguf", metadata, infos);
    const auto is_expert = [](const quant::TensorInfo& info) { return info.name.find("_exps.") != std::string::npos; };
    for (quant::TensorInfo& info : infos) {
      if (!is_expert(info)) continue;
      info.dtype = GetParam();
      info.size_bytes = quant::row_bytes(GetParam(), static_cast<int64_t>(info.size_bytes / 4));
    }
    quant::GgufWriter blocks(directory_ / "blocks.gguf", metadata, infos);
    RandomValues random(7);
    int experts = 0;
    for (size_t i = 0; i < infos.size(); ++i) {
      const quant::TensorInfo& info = base.tensors()[i];
      const auto stored = std::as_bytes(std::span(bytes).subspan(info.offset, info.size_bytes));
      if (!is_expert(info)) {
        blocks.write(i, 0, stored);
        meant.write(i, 0, stored);
        continue;
      }
      ++experts;
      const std::vector<std::byte> made = random_blocks(GetParam(), static_cast<int64_t>(info.size_bytes / 4), random);
      std::vector<float> values(info.size_bytes / 4);
      quant::dequantize_row(GetParam(), made, values);
      blocks.write(i, 0, made);
      meant.write(i, 0, std::as_bytes(std::span(values)));
    }
    ASSERT_EQ(experts, 2 * 3);
    blocks.finish();
    meant.finish();
  }

  std::vector<float> logits(const fs::path& model, bool precise) const {
    EngineOptions options;
    options.model = model;
    options.threads = 2;
    options.precise = precise;
    testing::CapturedConsole console;
    const auto engine = open_engine(options, console.console());
    runtime::Session session = engine->new_session();
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < 24; ++i) ids.push_back(static_cast<int32_t>((i * 37 + 11) % kVocab));
    return testing::run_ids(engine->transformer(), session.cache(), ids, 5).logits;
  }

  const testing::TempDir directory_;
};

TEST_P(GgufGridExperts, WithoutRoundingActivationsEveryBitIsThatOfTheirWeightsAsF32) {
  const std::vector<float> expected = logits(directory_ / "meant.gguf", false);
  ASSERT_TRUE(std::all_of(expected.begin(), expected.end(), [](float value) { return std::isfinite(value); }));
  EXPECT_EQ(logits(directory_ / "blocks.gguf", true), expected);
  EXPECT_NE(logits(directory_ / "f32.gguf", false), expected);
}

TEST_P(GgufGridExperts, WithInt8ActivationsTheyStayNearAndThePackSaysTheSame) {
  const std::vector<float> expected = logits(directory_ / "meant.gguf", false);
  const std::vector<float> got = logits(directory_ / "blocks.gguf", false);
  EXPECT_NE(got, expected);
  ASSERT_EQ(got.size(), expected.size());
  const auto [low, high] = std::minmax_element(expected.begin(), expected.end());
  double worst = 0.0;
  for (size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(got[i]) - expected[i]));
  RecordProperty("worst_delta_of_range", fmt::format("{:.3e}", worst / (*high - *low)));
  EXPECT_LE(worst / (*high - *low), kMostOfRange);
  ConvertOptions options;
  options.source = directory_ / "blocks.gguf";
  options.destination = directory_ / "pack";
  options.threads = 2;
  Converter(options).run({});
  EXPECT_EQ(logits(directory_ / "pack", false), got);
}

INSTANTIATE_TEST_SUITE_P(Formats, GgufGridExperts,
                         ::testing::Values(DType::kIQ3_XXS, DType::kIQ3_S, DType::kIQ2_XXS, DType::kIQ2_XS,
                                           DType::kIQ2_S, DType::kIQ1_S, DType::kIQ1_M),
                         [](const auto& param) { return std::string(quant::dtype_name(param.param)); });

}  // namespace
}  // namespace moraine::tools
