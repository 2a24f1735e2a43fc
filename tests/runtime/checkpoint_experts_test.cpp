#include "runtime/checkpoint_experts.h"

#include <gtest/gtest.h>

#include <fstream>

#include "quant/aligned_buffer.h"
#include "quant/error.h"
#include "support/expect_error.h"
#include "support/small_checkpoint.h"
#include "support/temp_dir.h"

namespace moraine::runtime {
namespace {

using testing::SmallCheckpoint;
using testing::TempDir;

struct Opened {
  explicit Opened(const TempDir& dir, std::optional<quant::DType> type = std::nullopt)
      : checkpoint(quant::Checkpoint::open(dir.path())),
        experts(checkpoint, ModelConfig::from_directory(dir.path()), 3, type) {}

  /// Reads and finishes an expert as the store does.
  quant::AlignedBuffer record(offload::ExpertId id) const {
    std::vector<std::byte> raw;
    for (const offload::Extent& extent : experts.extents(id)) {
      std::ifstream file(experts.files()[static_cast<size_t>(extent.file)], std::ios::binary);
      file.seekg(static_cast<std::streamoff>(extent.offset));
      const size_t at = raw.size();
      raw.resize(at + extent.size_bytes);
      file.read(reinterpret_cast<char*>(raw.data() + at), static_cast<std::streamsize>(extent.size_bytes));
    }
    quant::AlignedBuffer buffer(experts.record_bytes(id));
    experts.finish(id, raw, buffer.span());
    return buffer;
  }

  quant::Checkpoint checkpoint;
  CheckpointExperts experts;
};

std::vector<float> values_of(const quant::PackedView& view) {
  std::vector<float> values(static_cast<size_t>(view.rows * view.cols));
  quant::dequantize_packed(view, 0, view.rows, values);
  return values;
}

TEST(CheckpointExperts, KeptAsStoredTheNumbersAreTheCheckpoints) {
  TempDir dir;
  const SmallCheckpoint source;
  source.write(dir.path());
  const Opened opened(dir);
  EXPECT_EQ(opened.experts.experts().size(), 8u);
  EXPECT_EQ(opened.experts.experts().front(), (offload::ExpertId{1, 0}));
  const offload::ExpertId id{2, 3};
  const quant::AlignedBuffer record = opened.record(id);
  const quant::ExpertView view = quant::expert_view(opened.experts.layouts()[2], record.data());
  EXPECT_EQ(values_of(view.gate), source.values("model.layers.2.mlp.experts.3.gate_proj.weight"));
  EXPECT_EQ(values_of(view.up), source.values("model.layers.2.mlp.experts.3.up_proj.weight"));
  EXPECT_EQ(values_of(view.down), source.values("model.layers.2.mlp.experts.3.down_proj.weight"));
}

TEST(CheckpointExperts, QuantizedOnArrivalWithTheFormatThatFits) {
  TempDir dir;
  const SmallCheckpoint source;
  source.write(dir.path());
  const Opened opened(dir, quant::DType::kQ4_K);
  const quant::ExpertLayout& layout = opened.experts.layouts()[1];
  EXPECT_EQ(layout.gate.type, quant::DType::kQ4_0) << "rows of 32 hold no 256-wide block";
  const quant::AlignedBuffer record = opened.record({1, 0});
  const std::vector<float> expected = source.values("model.layers.1.mlp.experts.0.up_proj.weight");
  const std::vector<float> got = values_of(quant::expert_view(layout, record.data()).up);
  // Uniform numbers in ±0.5 at 4 bits: a step of about 1/16, its error uniform.
  double squares = 0.0;
  for (size_t i = 0; i < got.size(); ++i) squares += (got[i] - expected[i]) * (got[i] - expected[i]);
  const double rmse = std::sqrt(squares / static_cast<double>(got.size()));
  EXPECT_LT(rmse, 1.0 / 16.0 / std::sqrt(12.0) * 1.3);
  EXPECT_GT(rmse, 0.0);
}

TEST(CheckpointExperts, NamesMissingTensorsAndWrongShapes) {
  TempDir dir;
  SmallCheckpoint source;
  source.tensors.erase("model.layers.1.mlp.experts.2.down_proj.weight");
  source.write(dir.path());
  testing::expect_error(quant::ErrorKind::kBadFile,
                        {"1 tensors are missing", "model.layers.1.mlp.experts.2.down_proj.weight"},
                        [&] { Opened opened(dir); });
}

TEST(CheckpointExperts, RefusesFp8MadeFromOtherNumbersAndMixedLayers) {
  TempDir dir;
  SmallCheckpoint source;
  source.write(dir.path());
  testing::expect_error(quant::ErrorKind::kUsage, {"F8_E4M3", "BF16"},
                        [&] { Opened opened(dir, quant::DType::kF8E4M3); });
  auto& tensor = source.tensors["model.layers.1.mlp.experts.2.up_proj.weight"];
  tensor.dtype = quant::DType::kF32;
  tensor.bytes.resize(tensor.bytes.size() * 2);
  source.write(dir.path());
  testing::expect_error(quant::ErrorKind::kBadFile, {"experts of layer 1 are not all stored alike", "expert 2"},
                        [&] { Opened opened(dir); });
}

TEST(CheckpointExperts, ANanInAnExpertNamesItsTensor) {
  TempDir dir;
  SmallCheckpoint source;
  const uint16_t nan = 0x7fc0;
  std::memcpy(source.tensors["model.layers.1.mlp.experts.1.gate_proj.weight"].bytes.data() + 10, &nan, 2);
  source.write(dir.path());
  const Opened opened(dir, quant::DType::kQ8_0);
  testing::expect_error(quant::ErrorKind::kBadFile, {"model.layers.1.mlp.experts.1.gate_proj.weight"}, [&] {
    opened.record({1, 1});
  });
}

}  // namespace
}  // namespace moraine::runtime
