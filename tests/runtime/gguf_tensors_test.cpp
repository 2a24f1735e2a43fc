#include "runtime/gguf_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/weight_loader.h"
#include "support/expect_error.h"
#include "support/gguf_bytes.h"
#include "support/temp_dir.h"
#include "support/test_data.h"

namespace moraine::runtime {
namespace {

using ::testing::ElementsAre;
using testing::expect_error;
using testing::GgufBytes;
using testing::TempDir;

TEST(GgufTensorNames, CoverEveryResidentTensorBothWays) {
  for (const ResidentTensor& tensor : resident_tensors(ModelConfig::from_directory(testing::tiny_r1()))) {
    const auto name = gguf_tensor_name(tensor.name);
    ASSERT_TRUE(name.has_value()) << tensor.name;
    EXPECT_EQ(hf_tensor_name(*name), tensor.name);
  }
}

TEST(GgufTensorNames, AreThoseOfTheFiles) {
  EXPECT_EQ(hf_tensor_name("blk.12.attn_q_a.weight"), "model.layers.12.self_attn.q_a_proj.weight");
  EXPECT_EQ(hf_tensor_name("blk.3.exp_probs_b.bias"), "model.layers.3.mlp.gate.e_score_correction_bias");
  EXPECT_EQ(hf_tensor_name("blk.0.attn_k_b.weight"), "model.layers.0.self_attn.k_b_proj.weight");
  EXPECT_EQ(hf_tensor_name("blk.27.attn_q.bias"), "model.layers.27.self_attn.q_proj.bias");
  EXPECT_EQ(hf_tensor_name("output.weight"), "lm_head.weight");
  EXPECT_EQ(gguf_tensor_name("model.layers.7.mlp.shared_experts.down_proj.weight"), "blk.7.ffn_down_shexp.weight");
  for (const char* other : {"blk.3.ffn_gate_exps.weight", "blk..attn_q.weight", "blk.x.attn_q.weight", "blk.3", "blk.",
                            "rope_freqs.weight", "blk.123456.attn_q.weight", ""}) {
    EXPECT_EQ(hf_tensor_name(other), std::nullopt) << other;
  }
}

class GgufCheckpoint : public ::testing::Test {
 protected:
  quant::Checkpoint open(const GgufBytes& file) const {
    return gguf_checkpoint(quant::Gguf::open(dir_.write("model.gguf", file.file())));
  }

  TempDir dir_;
};

TEST_F(GgufCheckpoint, CutsStacksIntoExpertsInPlace) {
  GgufBytes file;
  file.tensor("blk.5.ffn_down_exps.weight", {4, 2, 3}, 0, 0);      // 3 experts [2, 4]
  file.tensor("blk.5.ffn_gate_up_exps.weight", {2, 4, 2}, 0, 96);  // 2 experts, gate [2, 2] before up [2, 2]
  file.tensor("extra", {4}, 0, 160);
  for (int i = 0; i < 44; ++i) file.bytes(GgufBytes::number(static_cast<float>(i)));
  const quant::Checkpoint checkpoint = open(file);
  EXPECT_EQ(checkpoint.tensors().size(), 3u + 4u + 1u);
  const auto first_of = [&](const char* name) {
    const quant::TensorInfo& tensor = checkpoint.at(name);
    std::vector<float> values(tensor.size_bytes / sizeof(float));
    checkpoint.read(tensor, std::as_writable_bytes(std::span(values)));
    return values.front();
  };
  EXPECT_THAT(checkpoint.at("model.layers.5.mlp.experts.2.down_proj.weight").shape, ElementsAre(2, 4));
  EXPECT_EQ(first_of("model.layers.5.mlp.experts.0.down_proj.weight"), 0.0f);
  EXPECT_EQ(first_of("model.layers.5.mlp.experts.2.down_proj.weight"), 16.0f);
  EXPECT_THAT(checkpoint.at("model.layers.5.mlp.experts.1.up_proj.weight").shape, ElementsAre(2, 2));
  EXPECT_EQ(first_of("model.layers.5.mlp.experts.0.gate_proj.weight"), 24.0f);
  EXPECT_EQ(first_of("model.layers.5.mlp.experts.0.up_proj.weight"), 28.0f);
  EXPECT_EQ(first_of("model.layers.5.mlp.experts.1.gate_proj.weight"), 32.0f);
  EXPECT_EQ(first_of("model.layers.5.mlp.experts.1.up_proj.weight"), 36.0f);
  EXPECT_EQ(first_of("extra"), 40.0f);
}

TEST_F(GgufCheckpoint, RefusesAVocabularyAlone) {
  expect_error(quant::ErrorKind::kBadFile, {"model.gguf", "no tensors"}, [&] { open(GgufBytes()); });
}

TEST_F(GgufCheckpoint, RefusesStacksOfOtherShapes) {
  GgufBytes flat;
  flat.tensor("blk.5.ffn_up_exps.weight", {4, 6}, 0, 0).bytes(std::string(96, 'x'));
  expect_error(quant::ErrorKind::kBadFile, {"blk.5.ffn_up_exps.weight", "[experts, out, in]", "[6, 4]"},
               [&] { open(flat); });
  GgufBytes odd;
  odd.tensor("blk.5.ffn_gate_up_exps.weight", {4, 3, 2}, 0, 0).bytes(std::string(96, 'x'));
  expect_error(quant::ErrorKind::kBadFile, {"blk.5.ffn_gate_up_exps.weight"}, [&] { open(odd); });
  GgufBytes twice;  // the same expert under two names
  twice.tensor("blk.5.ffn_gate_exps.weight", {4, 2, 1}, 0, 0).tensor("blk.5.ffn_gate_up_exps.weight", {4, 2, 1}, 0, 32);
  twice.bytes(std::string(64, 'x'));
  expect_error(quant::ErrorKind::kBadFile, {"model.layers.5.mlp.experts.0.gate_proj.weight", "same part"},
               [&] { open(twice); });
}

}  // namespace
}  // namespace moraine::runtime
