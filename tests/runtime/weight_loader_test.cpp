#include "runtime/weight_loader.h"

#include <gtest/gtest.h>

#include <fstream>

#include "quant/error.h"
#include "support/expect_error.h"
#include "support/small_checkpoint.h"
#include "support/temp_dir.h"
#include "support/test_data.h"

namespace moraine::runtime {
namespace {

using testing::SmallCheckpoint;
using testing::TempDir;

std::vector<float> values_of(const Matrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.view.rows * matrix.view.cols));
  quant::dequantize_packed(matrix.view, 0, matrix.view.rows, values);
  return values;
}

Model load(const TempDir& dir) {
  return load_model(quant::Checkpoint::open(dir.path()), ModelConfig::from_directory(dir.path()));
}

TEST(WeightLoader, EveryResidentTensorArrivesWithItsNumbers) {
  TempDir dir;
  const SmallCheckpoint source;
  source.write(dir.path());
  uint64_t reported = 0;
  uint64_t expected_total = 0;
  const Model model = load_model(quant::Checkpoint::open(dir.path()), ModelConfig::from_directory(dir.path()),
                                 [&](uint64_t done, uint64_t total) {
                                   EXPECT_GT(done, reported);
                                   reported = done;
                                   expected_total = total;
                                 });
  EXPECT_EQ(reported, expected_total);
  EXPECT_EQ(values_of(model.embed_tokens), source.values("model.embed_tokens.weight"));
  EXPECT_EQ(values_of(model.lm_head), source.values("lm_head.weight"));
  EXPECT_EQ(model.norm, source.values("model.norm.weight"));
  ASSERT_EQ(model.layers.size(), 3u);
  for (size_t l = 0; l < 3; ++l) {
    const std::string prefix = fmt::format("model.layers.{}.", l);
    const std::string attention = prefix + "self_attn.";
    const LayerWeights& layer = model.layers[l];
    EXPECT_EQ(layer.input_layernorm, source.values(prefix + "input_layernorm.weight"));
    EXPECT_EQ(layer.post_attention_layernorm, source.values(prefix + "post_attention_layernorm.weight"));
    EXPECT_EQ(layer.q_a_layernorm, source.values(attention + "q_a_layernorm.weight"));
    EXPECT_EQ(layer.kv_a_layernorm, source.values(attention + "kv_a_layernorm.weight"));
    EXPECT_EQ(values_of(layer.q_a_proj), source.values(attention + "q_a_proj.weight"));
    EXPECT_EQ(values_of(layer.q_b_proj), source.values(attention + "q_b_proj.weight"));
    EXPECT_EQ(values_of(layer.kv_a_proj_with_mqa), source.values(attention + "kv_a_proj_with_mqa.weight"));
    EXPECT_EQ(values_of(layer.kv_b_proj), source.values(attention + "kv_b_proj.weight"));
    EXPECT_EQ(values_of(layer.o_proj), source.values(attention + "o_proj.weight"));
    const std::string ffn = prefix + (l == 0 ? "mlp." : "mlp.shared_experts.");
    EXPECT_EQ(values_of(layer.ffn.gate_proj), source.values(ffn + "gate_proj.weight"));
    EXPECT_EQ(values_of(layer.ffn.up_proj), source.values(ffn + "up_proj.weight"));
    EXPECT_EQ(values_of(layer.ffn.down_proj), source.values(ffn + "down_proj.weight"));
    EXPECT_EQ(layer.gate.empty(), l == 0);
    if (l == 0) continue;
    EXPECT_EQ(values_of(layer.gate), source.values(prefix + "mlp.gate.weight"));
    EXPECT_EQ(layer.e_score_correction_bias, source.values(prefix + "mlp.gate.e_score_correction_bias"));
  }
}

TEST(WeightLoader, TheBytesPromisedAreTheBytesTaken) {
  const quant::Checkpoint checkpoint = quant::Checkpoint::open(testing::tiny_r1());
  const ModelConfig config = ModelConfig::from_directory(testing::tiny_r1());
  const Model model = load_model(checkpoint, config);
  EXPECT_EQ(resident_bytes(checkpoint, config), model.resident_bytes());
  EXPECT_EQ(model.layers[0].q_a_proj.view.type, quant::DType::kF8E4M3);
  EXPECT_EQ(model.embed_tokens.view.type, quant::DType::kBF16);
}

TEST(WeightLoader, Fp8WeightsMeanTheReleasesOwnNumbers) {
  const quant::Checkpoint checkpoint = quant::Checkpoint::open(testing::tiny_r1());
  const Model model = load_model(checkpoint, ModelConfig::from_directory(testing::tiny_r1()));
  const std::string name = "model.layers.3.self_attn.kv_b_proj.weight";
  const quant::TensorInfo& weight = checkpoint.at(name);
  const quant::TensorInfo& scale = checkpoint.at(name + "_scale_inv");
  std::vector<std::byte> bytes(weight.size_bytes), scale_bytes(scale.size_bytes);
  checkpoint.read(weight, bytes);
  checkpoint.read(scale, scale_bytes);
  std::vector<float> scales(scale_bytes.size() / 4);
  std::memcpy(scales.data(), scale_bytes.data(), scale_bytes.size());
  std::vector<float> expected(static_cast<size_t>(weight.shape[0] * weight.shape[1]));
  quant::dequantize_fp8(bytes, scales, weight.shape[0], weight.shape[1], expected);
  EXPECT_EQ(values_of(model.layers[3].kv_b_proj), expected);
}

TEST(WeightLoader, NamesAllMissingTensorsAtOnce) {
  TempDir dir;
  SmallCheckpoint source;
  source.tensors.erase("model.norm.weight");
  source.tensors.erase("model.layers.1.self_attn.o_proj.weight");
  source.write(dir.path());
  testing::expect_error(quant::ErrorKind::kBadFile,
                        {"2 tensors are missing", "model.norm.weight", "model.layers.1.self_attn.o_proj.weight"},
                        [&] { load(dir); });
}

TEST(WeightLoader, RefusesWrongShapesAndDtypes) {
  TempDir dir;
  SmallCheckpoint shape;
  std::swap(shape.tensors["model.layers.0.self_attn.q_a_proj.weight"].shape[0],
            shape.tensors["model.layers.0.self_attn.q_a_proj.weight"].shape[1]);
  shape.write(dir.path());
  testing::expect_error(quant::ErrorKind::kBadFile, {"q_a_proj", "wrong shape", "[24, 32]", "[32, 24]"},
                        [&] { load(dir); });
  SmallCheckpoint dtype;
  dtype.tensors["model.norm.weight"].dtype = quant::DType::kI16;
  dtype.write(dir.path());
  testing::expect_error(quant::ErrorKind::kBadFile, {"model.norm.weight", "wrong dtype", "I16"}, [&] { load(dir); });
}

TEST(WeightLoader, RefusesNumbersThatAreNone) {
  TempDir dir;
  SmallCheckpoint source;
  const uint16_t infinity = 0x7f80;
  std::memcpy(source.tensors["model.layers.2.input_layernorm.weight"].bytes.data(), &infinity, 2);
  source.write(dir.path());
  testing::expect_error(quant::ErrorKind::kBadFile, {"model.layers.2.input_layernorm.weight", "NaN or infinity"},
                        [&] { load(dir); });
}

TEST(WeightLoader, TellsRoutedExpertsFromResidentTensors) {
  EXPECT_TRUE(is_routed_expert_tensor("model.layers.3.mlp.experts.12.gate_proj.weight"));
  EXPECT_FALSE(is_routed_expert_tensor("model.layers.3.mlp.shared_experts.gate_proj.weight"));
  EXPECT_FALSE(is_routed_expert_tensor("model.layers.3.mlp.gate.weight"));
}

}  // namespace
}  // namespace moraine::runtime
