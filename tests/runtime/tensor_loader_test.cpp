#include "runtime/tensor_loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "quant/aligned_buffer.h"
#include "quant/checksum.h"
#include "quant/dequantize.h"
#include "quant/expert_pack.h"
#include "quant/packed_matrix.h"
#include "quant/quantize.h"
#include "support/expect_error.h"
#include "support/random_values.h"
#include "support/temp_dir.h"

namespace moraine::runtime {
namespace {

using quant::DType;
using testing::TempDir;

// Two pieces: 128 rows and 12 more, which end inside a group of 16.
constexpr int64_t kRows = 140, kCols = 32768;

/// A directory with one wide matrix "w" of random numbers.
class TensorLoaderTest : public ::testing::Test {
 protected:
  void write(DType type) {
    weight_.resize(static_cast<size_t>(kRows * kCols) * static_cast<size_t>(quant::block_bits(type)) / 8);
    testing::RandomValues random(7);
    for (size_t i = 0; i < weight_.size(); ++i) {
      // Exponents stay in the middle of BF16's and E4M3's ranges, and no byte is E4M3's NaN.
      weight_[i] = static_cast<std::byte>(type == DType::kBF16 && i % 2 == 1 ? 0x3c | (random.bits() & 0x80)
                                                                             : random.bits() & 0xbf);
    }
    std::vector<quant::TensorInfo> list = {
        {.name = "w", .dtype = type, .shape = {kRows, kCols}, .size_bytes = weight_.size()}};
    if (type == DType::kF8E4M3) {
      scales_.resize(2 * kCols / 128);
      for (float& scale : scales_) scale = 0.001f * static_cast<float>(1 + random.bits() % 50);
      list.push_back({.name = "w_scale_inv",
                      .dtype = DType::kF32,
                      .shape = {2, kCols / 128},
                      .size_bytes = scales_.size() * sizeof(float)});
    }
    quant::SafetensorsWriter writer(dir_ / "model.safetensors", list);
    writer.write(weight_);
    if (!scales_.empty()) writer.write(std::as_bytes(std::span(scales_)));
    writer.finish();
  }

  /// The directory becomes a pack that says so of "w".
  void claim_checksum(uint64_t sum) {
    quant::PackIndex pack;
    pack.wanted_type = "Q8_0";
    pack.tensor_checksums.emplace_back("w", sum);
    pack.write(dir_.path());
  }

  quant::AlignedBuffer load(DType type) const {
    const auto checkpoint = quant::Checkpoint::open(dir_.path());
    const CheckpointTensor tensor{.weight = &checkpoint.at("w"), .scale_inv = checkpoint.find("w_scale_inv")};
    quant::AlignedBuffer out(quant::packed_bytes(type, kRows, kCols));
    TensorLoader(checkpoint).load_matrix(tensor, type, kRows, kCols, out.span());
    return out;
  }

  /// Loading in pieces gives what packing the whole matrix gives.
  void expect_whole(DType stored, DType type) {
    SCOPED_TRACE(std::string(quant::dtype_name(stored)) + " to " + std::string(quant::dtype_name(type)));
    write(stored);
    quant::AlignedBuffer expected(quant::packed_bytes(type, kRows, kCols));
    pack_checkpoint_tensor(stored, weight_, std::as_bytes(std::span(scales_)), type, kRows, kCols, expected.span());
    const quant::AlignedBuffer got = load(type);
    EXPECT_TRUE(std::ranges::equal(got.span(), expected.span()));
  }

  TempDir dir_;
  std::vector<std::byte> weight_;
  std::vector<float> scales_;
};

TEST_F(TensorLoaderTest, PiecesOfBf16MakeTheWhole) {
  expect_whole(DType::kBF16, DType::kBF16);
  expect_whole(DType::kBF16, DType::kQ8_0);
}

TEST_F(TensorLoaderTest, PiecesOfFp8TakeTheirOwnScales) {
  expect_whole(DType::kF8E4M3, DType::kF8E4M3);
  expect_whole(DType::kF8E4M3, DType::kQ8_0);
}

TEST_F(TensorLoaderTest, ABadNumberInALaterPieceIsFound) {
  write(DType::kBF16);
  const uint16_t nan = 0x7fc0;
  std::memcpy(weight_.data() + 2 * (130 * kCols + 5), &nan, sizeof nan);
  quant::SafetensorsWriter writer(
      dir_ / "model.safetensors",
      {{.name = "w", .dtype = DType::kBF16, .shape = {kRows, kCols}, .size_bytes = weight_.size()}});
  writer.write(weight_);
  writer.finish();
  testing::expect_error(quant::ErrorKind::kBadFile, {"'w'", "counted from row 128", "row 2, column 5"},
                        [&] { load(DType::kBF16); });
}

TEST_F(TensorLoaderTest, APacksChecksumIsCompared) {
  write(DType::kBF16);
  claim_checksum(quant::checksum(weight_));
  EXPECT_NO_THROW(load(DType::kBF16));
  claim_checksum(quant::checksum(weight_) ^ 1);
  testing::expect_error(quant::ErrorKind::kChecksum,
                        {"'w'", "wrong checksum", quant::checksum_text(quant::checksum(weight_))},
                        [&] { load(DType::kBF16); });
}

TEST_F(TensorLoaderTest, AWrongByteIsAWrongByteEvenWhereItMakesANumberUnusable) {
  write(DType::kBF16);
  claim_checksum(quant::checksum(weight_));
  const uint16_t nan = 0x7fc0;
  std::memcpy(weight_.data(), &nan, sizeof nan);
  quant::SafetensorsWriter writer(
      dir_ / "model.safetensors",
      {{.name = "w", .dtype = DType::kBF16, .shape = {kRows, kCols}, .size_bytes = weight_.size()}});
  writer.write(weight_);
  writer.finish();
  testing::expect_error(quant::ErrorKind::kChecksum, {"'w'", "wrong checksum"}, [&] { load(DType::kBF16); });
}

TEST_F(TensorLoaderTest, VectorsBecomeF32) {
  const uint16_t halves[3] = {0x3f80, 0xc000, 0x0000};
  const std::vector<quant::TensorInfo> list = {{.name = "v", .dtype = DType::kBF16, .shape = {3}, .size_bytes = 6}};
  quant::SafetensorsWriter writer(dir_ / "model.safetensors", list);
  writer.write(std::as_bytes(std::span(halves)));
  writer.finish();
  const auto checkpoint = quant::Checkpoint::open(dir_.path());
  EXPECT_EQ(TensorLoader(checkpoint).load_vector({.weight = &checkpoint.at("v")}),
            (std::vector<float>{1.0f, -2.0f, 0.0f}));
}

/// kv_b_proj as GGUF files keep it: W_UK of every head transposed, and W_UV.
class SplitKvB : public ::testing::Test {
 protected:
  // Heads of 36 rows: four of them fill whole groups of 16, the last two do not.
  static constexpr int64_t kHeads = 6, kNope = 32, kValue = 4, kLatent = 64, kRows = kHeads * (kNope + kValue);

  /// Random numbers as `type`, and what they are as f32.
  struct Half {
    std::vector<float> values;
    std::vector<std::byte> bytes;
  };
  static Half half(DType type, int64_t count, int seed) {
    Half made;
    made.values.resize(static_cast<size_t>(count));
    testing::RandomValues random(static_cast<uint32_t>(seed));
    for (float& value : made.values) value = static_cast<float>(random.bits() % 2001) / 1000.0f - 1.0f;
    made.bytes.resize(quant::row_bytes(type, count));
    quant::quantize_row(type, made.values, made.bytes);
    quant::dequantize_row(type, made.bytes, made.values);
    return made;
  }

  quant::Checkpoint open(DType key_type, DType value_type) {
    key_ = half(key_type, kHeads * kLatent * kNope, 1);
    value_ = half(value_type, kHeads * kValue * kLatent, 2);
    std::string file(reinterpret_cast<const char*>(key_.bytes.data()), key_.bytes.size());
    file.append(reinterpret_cast<const char*>(value_.bytes.data()), value_.bytes.size());
    return quant::Checkpoint::from_tensors(dir_ / "m", {dir_.write("m", file)},
                                           {{.name = "k_b_proj.weight",
                                             .dtype = key_type,
                                             .shape = {kHeads, kLatent, kNope},
                                             .size_bytes = key_.bytes.size()},
                                            {.name = "v_b_proj.weight",
                                             .dtype = value_type,
                                             .shape = {kHeads, kValue, kLatent},
                                             .offset = key_.bytes.size(),
                                             .size_bytes = value_.bytes.size()}});
  }

  std::vector<float> combined() const {
    std::vector<float> rows;  // [heads, nope | v, kv_lora_rank]
    for (int64_t head = 0; head < kHeads; ++head) {
      for (int64_t row = 0; row < kNope; ++row) {
        for (int64_t col = 0; col < kLatent; ++col) {
          rows.push_back(key_.values[static_cast<size_t>((head * kLatent + col) * kNope + row)]);
        }
      }
      const auto first = value_.values.begin() + head * kValue * kLatent;
      rows.insert(rows.end(), first, first + kValue * kLatent);
    }
    return rows;
  }

  TempDir dir_;
  Half key_, value_;
};

TEST_F(SplitKvB, BothHalvesBecomeOneMatrixExactly) {
  struct Case {
    DType key, value, kept;
  };
  for (const Case& types :
       {Case{DType::kQ8_0, DType::kQ8_0, DType::kF32}, Case{DType::kBF16, DType::kBF16, DType::kBF16},
        Case{DType::kF32, DType::kBF16, DType::kF32}, Case{DType::kF16, DType::kQ4_0, DType::kF32}}) {
    const quant::Checkpoint checkpoint = open(types.key, types.value);
    TensorFinder finder(checkpoint);
    const CheckpointTensor tensor = finder.find("kv_b_proj.weight", kRows, kLatent);
    finder.check_complete();
    EXPECT_EQ(kept_type(tensor), types.kept);
    EXPECT_EQ(tensor.size_bytes(), key_.bytes.size() + value_.bytes.size());
    quant::AlignedBuffer out(quant::packed_bytes(types.kept, kRows, kLatent));
    TensorLoader(checkpoint).load_matrix(tensor, types.kept, kRows, kLatent, out.span());
    std::vector<float> got(static_cast<size_t>(kRows * kLatent));
    quant::dequantize_packed({.type = types.kept, .rows = kRows, .cols = kLatent, .data = out.data()}, 0, kRows, got);
    EXPECT_EQ(got, combined()) << quant::dtype_name(types.key);
  }
}

TEST_F(SplitKvB, HalvesThatDoNotFitAreRefused) {
  const quant::Checkpoint checkpoint = open(DType::kBF16, DType::kBF16);
  TensorFinder finder(checkpoint);
  testing::expect_error(quant::ErrorKind::kBadFile, {"k_b_proj.weight", "[6, 64, 32]", "[6, 4, 64]", "= 217"},
                        [&] { finder.find("kv_b_proj.weight", kRows + 1, kLatent); });
  testing::expect_error(quant::ErrorKind::kBadFile, {"k_b_proj.weight"},
                        [&] { finder.find("kv_b_proj.weight", kRows, kLatent / 2); });
}

}  // namespace
}  // namespace moraine::runtime
