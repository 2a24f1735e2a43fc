#include "runtime/weight_loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "quant/checksum.h"
#include "quant/error.h"
#include "quant/expert_pack.h"
#include "quant/quantize.h"
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
  const LoadOptions options = {.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GT(done, reported);
    reported = done;
    expected_total = total;
  }};
  const Model model = load_model(quant::Checkpoint::open(dir.path()), ModelConfig::from_directory(dir.path()), options);
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

TEST(WeightLoader, AConfigAloneTellsThePublishedSizes) {
  const quant::Checkpoint checkpoint = quant::Checkpoint::open(testing::tiny_r1());
  const ModelConfig config = ModelConfig::from_directory(testing::tiny_r1());
  EXPECT_EQ(model_shape(config).resident_bytes(), resident_bytes(checkpoint, config));
  const LoadOptions q8{.resident = quant::DType::kQ8_0};
  EXPECT_EQ(model_shape(config, q8).resident_bytes(), resident_bytes(checkpoint, config, q8));
  EXPECT_EQ(model_shape(config).lm_head.view.data, nullptr) << "no memory";
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

/// What quantizing the tensor's numbers row by row to `type` gives.
std::vector<float> quantized(const SmallCheckpoint& source, const std::string& name, quant::DType type) {
  std::vector<float> values = source.values(name);
  std::vector<std::byte> blocks(quant::row_bytes(type, static_cast<int64_t>(values.size())));
  quant::quantize_row(type, values, blocks);
  quant::dequantize_row(type, blocks, values);
  return values;
}

TEST(WeightLoader, QuantizesProjectionsOnLoadAndNothingElse) {
  TempDir dir;
  const SmallCheckpoint source;
  source.write(dir.path());
  const quant::Checkpoint checkpoint = quant::Checkpoint::open(dir.path());
  const ModelConfig config = ModelConfig::from_directory(dir.path());
  const LoadOptions options{.resident = quant::DType::kQ8_0};
  const Model model = load_model(checkpoint, config, options);
  EXPECT_EQ(resident_bytes(checkpoint, config, options), model.resident_bytes());
  const LayerWeights& dense = model.layers[0];
  const LayerWeights& moe = model.layers[2];
  const auto expect_q8_0 = [&](const Matrix& matrix, const std::string& name) {
    EXPECT_EQ(matrix.view.type, quant::DType::kQ8_0) << name;
    EXPECT_EQ(values_of(matrix), quantized(source, name, quant::DType::kQ8_0)) << name;
    EXPECT_NE(values_of(matrix), source.values(name)) << name;
  };
  const auto expect_kept = [&](const Matrix& matrix, const std::string& name) {
    EXPECT_EQ(matrix.view.type, quant::DType::kBF16) << name;
    EXPECT_EQ(values_of(matrix), source.values(name)) << name;
  };
  expect_q8_0(dense.q_a_proj, "model.layers.0.self_attn.q_a_proj.weight");
  expect_q8_0(dense.kv_a_proj_with_mqa, "model.layers.0.self_attn.kv_a_proj_with_mqa.weight");
  expect_q8_0(dense.ffn.gate_proj, "model.layers.0.mlp.gate_proj.weight");
  expect_q8_0(moe.ffn.up_proj, "model.layers.2.mlp.shared_experts.up_proj.weight");
  expect_q8_0(moe.ffn.down_proj, "model.layers.2.mlp.shared_experts.down_proj.weight");
  expect_q8_0(model.lm_head, "lm_head.weight");
  // Rows of 24, 16 and 48 are no multiple of a block.
  expect_kept(dense.q_b_proj, "model.layers.0.self_attn.q_b_proj.weight");
  expect_kept(dense.kv_b_proj, "model.layers.0.self_attn.kv_b_proj.weight");
  expect_kept(dense.o_proj, "model.layers.0.self_attn.o_proj.weight");
  expect_kept(dense.ffn.down_proj, "model.layers.0.mlp.down_proj.weight");
  expect_kept(moe.gate, "model.layers.2.mlp.gate.weight");
  expect_kept(model.embed_tokens, "model.embed_tokens.weight");
  EXPECT_EQ(moe.e_score_correction_bias, source.values("model.layers.2.mlp.gate.e_score_correction_bias"));
}

TEST(WeightLoader, Fp8CanBeKeptOrWidenedNotMade) {
  const quant::Checkpoint checkpoint = quant::Checkpoint::open(testing::tiny_r1());
  const ModelConfig config = ModelConfig::from_directory(testing::tiny_r1());
  const Model kept = load_model(checkpoint, config, {.resident = quant::DType::kF8E4M3});
  EXPECT_EQ(kept.layers[2].o_proj.view.type, quant::DType::kF8E4M3);
  EXPECT_EQ(kept.lm_head.view.type, quant::DType::kBF16);
  const Model wide = load_model(checkpoint, config, {.resident = quant::DType::kBF16});
  EXPECT_EQ(wide.layers[2].o_proj.view.type, quant::DType::kBF16);
  const std::vector<float> expected = values_of(kept.layers[2].o_proj);
  const std::vector<float> rounded = values_of(wide.layers[2].o_proj);
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(rounded[i], quant::f32_from_bf16(quant::bf16_from_f32(expected[i]))) << i;
  }
  TempDir dir;
  SmallCheckpoint().write(dir.path());
  testing::expect_error(quant::ErrorKind::kUsage, {"F8_E4M3", "--resident"}, [&] {
    load_model(quant::Checkpoint::open(dir.path()), ModelConfig::from_directory(dir.path()),
               {.resident = quant::DType::kF8E4M3});
  });
}

TEST(WeightLoader, ThreadsChangeNothing) {
  const quant::Checkpoint checkpoint = quant::Checkpoint::open(testing::tiny_r1());
  const ModelConfig config = ModelConfig::from_directory(testing::tiny_r1());
  const Model one = load_model(checkpoint, config, {.resident = quant::DType::kQ8_0, .threads = 1});
  const Model many = load_model(checkpoint, config, {.resident = quant::DType::kQ8_0, .threads = 7});
  for (size_t l = 0; l < one.layers.size(); ++l) {
    EXPECT_TRUE(std::ranges::equal(one.layers[l].o_proj.storage.span(), many.layers[l].o_proj.storage.span())) << l;
    EXPECT_EQ(one.layers[l].input_layernorm, many.layers[l].input_layernorm);
  }
  EXPECT_TRUE(std::ranges::equal(one.lm_head.storage.span(), many.lm_head.storage.span()));
}

TEST(WeightLoader, TheFirstBadTensorIsNamedWhateverTheThreadsDo) {
  TempDir dir;
  SmallCheckpoint source;
  const uint16_t nan = 0x7fc0;
  for (const char* name : {"model.layers.1.self_attn.o_proj.weight", "model.layers.2.self_attn.q_a_proj.weight",
                           "model.norm.weight", "lm_head.weight"}) {
    std::memcpy(source.tensors[name].bytes.data(), &nan, 2);
  }
  source.write(dir.path());
  for (int run = 0; run < 20; ++run) {
    testing::expect_error(quant::ErrorKind::kBadFile, {"model.layers.1.self_attn.o_proj.weight"}, [&] {
      load_model(quant::Checkpoint::open(dir.path()), ModelConfig::from_directory(dir.path()), {.threads = 4});
    });
  }
}

/// Makes a tensor of the checkpoint Q8_0, as a pack may hold it. Returns the numbers it then means.
std::vector<float> store_as_q8_0(SmallCheckpoint& source, const std::string& name) {
  const std::vector<float> values = source.values(name);
  SmallCheckpoint::Tensor& tensor = source.tensors.at(name);
  tensor.dtype = quant::DType::kQ8_0;
  tensor.bytes.resize(quant::row_bytes(tensor.dtype, static_cast<int64_t>(values.size())));
  quant::quantize_row(tensor.dtype, values, tensor.bytes);
  return source.values(name);
}

TEST(WeightLoader, APacksBlockFormatsAreKept) {
  TempDir dir;
  SmallCheckpoint source;
  const std::string name = "model.layers.1.self_attn.q_a_proj.weight";
  const std::vector<float> expected = store_as_q8_0(source, name);
  source.write(dir.path());
  testing::expect_error(quant::ErrorKind::kBadFile, {name, "Q8_0"}, [&] { load(dir); });
  quant::PackIndex pack;
  pack.wanted_type = "Q8_0";
  pack.tensor_checksums.emplace_back(name, quant::checksum(source.tensors.at(name).bytes));
  pack.write(dir.path());
  const Model model = load(dir);
  EXPECT_EQ(model.layers[1].q_a_proj.view.type, quant::DType::kQ8_0);
  EXPECT_EQ(values_of(model.layers[1].q_a_proj), expected);

  store_as_q8_0(source, "model.norm.weight");
  source.write(dir.path());
  testing::expect_error(quant::ErrorKind::kBadFile, {"model.norm.weight", "wrong dtype", "Q8_0"}, [&] { load(dir); });
}

TEST(WeightLoader, ListsWhatStaysResident) {
  TempDir dir;
  const SmallCheckpoint source;
  source.write(dir.path());
  size_t routed = 0;
  for (const auto& [name, tensor] : source.tensors) routed += is_routed_expert_tensor(name) ? 1 : 0;
  const std::vector<ResidentTensor> list = resident_tensors(ModelConfig::from_directory(dir.path()));
  EXPECT_EQ(list.size(), source.tensors.size() - routed);
  for (const ResidentTensor& tensor : list) {
    const auto found = source.tensors.find(tensor.name);
    ASSERT_NE(found, source.tensors.end()) << tensor.name;
    EXPECT_EQ(found->second.shape[0], tensor.rows);
    EXPECT_EQ(found->second.shape.size() == 2 ? found->second.shape[1] : 0, tensor.cols) << tensor.name;
  }
}

TEST(WeightLoader, TellsRoutedExpertsFromResidentTensors) {
  EXPECT_TRUE(is_routed_expert_tensor("model.layers.3.mlp.experts.12.gate_proj.weight"));
  EXPECT_FALSE(is_routed_expert_tensor("model.layers.3.mlp.shared_experts.gate_proj.weight"));
  EXPECT_FALSE(is_routed_expert_tensor("model.layers.3.mlp.gate.weight"));
}

}  // namespace
}  // namespace moraine::runtime
