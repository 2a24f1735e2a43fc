#include "tools/verifier.h"

#include <gtest/gtest.h>

#include <cstring>

#include "support/expect_error.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "tools/converter.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

void flip_bit(const fs::path& file, uint64_t offset) {
  std::string bytes = testing::file_content(file);
  ASSERT_LT(offset, bytes.size());
  bytes[offset] = static_cast<char>(bytes[offset] ^ 0x10);
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
}

class VerifierTest : public ::testing::Test {
 protected:
  VerifierTest() {
    fs::create_directory(model());
    testing::write_small_model(model());
  }

  fs::path model() const { return directory_ / "model"; }
  fs::path pack() const { return directory_ / "pack"; }

  void make_pack() {
    ConvertOptions options;
    options.source = model();
    options.destination = pack();
    Converter(options).run({});
  }

  static bool names(const VerifyReport& report, const std::string& part) {
    for (const std::string& fault : report.faults) {
      if (fault.find(part) != std::string::npos) return true;
    }
    return false;
  }

  TempDir directory_;
};

TEST_F(VerifierTest, AGoodDirectoryHasNoFaults) {
  const VerifyReport report = verify_model(model(), {});
  EXPECT_EQ(report.fault_count, 0u) << (report.faults.empty() ? "" : report.faults[0]);
  EXPECT_EQ(report.tensors, quant::Checkpoint::open(model()).tensors().size());
  EXPECT_GT(report.bytes_read, 50000u);
}

TEST_F(VerifierTest, EveryFlippedRecordIsNamedAndTheRestIsReadAllTheSame) {
  make_pack();
  const quant::PackIndex index = quant::PackIndex::read(pack());
  const uint64_t record_bytes = index.layers[1].layout.record_bytes;
  flip_bit(pack() / index.layers[0].file, 17);
  flip_bit(pack() / index.layers[1].file, 3 * record_bytes + 100);
  const VerifyReport report = verify_model(pack(), {});
  EXPECT_EQ(report.fault_count, 2u);
  EXPECT_EQ(report.kind, quant::ErrorKind::kChecksum);
  EXPECT_TRUE(names(report, "layer 1 expert 0"));
  EXPECT_TRUE(names(report, "layer 2 expert 3"));
  EXPECT_EQ(report.records, 8u);
  EXPECT_EQ(report.files, index.file_checksums.size());
}

TEST_F(VerifierTest, AFlippedTensorIsNamedAndSoIsItsFile) {
  make_pack();
  const auto checkpoint = quant::Checkpoint::open(pack());
  flip_bit(pack() / "model.safetensors", checkpoint.at("model.layers.1.mlp.gate.weight").offset + 5);
  const VerifyReport report = verify_model(pack(), {});
  EXPECT_EQ(report.kind, quant::ErrorKind::kChecksum);
  EXPECT_TRUE(names(report, "model.layers.1.mlp.gate.weight"));
  EXPECT_TRUE(names(report, "wrong checksum of a file"));
}

TEST_F(VerifierTest, AFlippedBitInATextFileIsAChecksumFaultToo) {
  make_pack();
  flip_bit(pack() / "tokenizer.json", 1);
  const VerifyReport report = verify_model(pack(), {});
  EXPECT_EQ(report.kind, quant::ErrorKind::kChecksum);
  EXPECT_TRUE(names(report, "tokenizer.json"));
}

TEST_F(VerifierTest, NumbersThatAreNoneAreFoundInADirectory) {
  const auto checkpoint = quant::Checkpoint::open(model());
  const quant::TensorInfo& tensor = checkpoint.at("model.layers.1.mlp.experts.2.up_proj.weight");
  std::string bytes = testing::file_content(model() / "model.safetensors");
  const uint16_t nan = 0x7FC0;
  std::memcpy(bytes.data() + tensor.offset + 10, &nan, sizeof nan);
  std::ofstream(model() / "model.safetensors", std::ios::binary) << bytes;
  const VerifyReport report = verify_model(model(), {});
  EXPECT_EQ(report.fault_count, 1u);
  EXPECT_EQ(report.kind, quant::ErrorKind::kBadFile);
  EXPECT_TRUE(names(report, "model.layers.1.mlp.experts.2.up_proj.weight"));
}

TEST_F(VerifierTest, ADirectoryThatLoadingWouldRefuseIsRefused) {
  fs::remove(model() / "tokenizer.json");
  const VerifyReport report = verify_model(model(), {});
  EXPECT_EQ(report.fault_count, 1u);
  EXPECT_TRUE(names(report, "tokenizer.json"));
  EXPECT_GT(report.tensors, 0u);
}

TEST_F(VerifierTest, NoDirectoryIsAnError) {
  testing::expect_error(quant::ErrorKind::kBadFile, {"nowhere"},
                        [&] { (void)verify_model(directory_ / "nowhere", {}); });
}

TEST(VerifyReport, ListsAHundredFaultsAndCountsTheRest) {
  VerifyReport report;
  for (int count = 0; count < 250; ++count) report.add(quant::Error(quant::ErrorKind::kIo, {.what = "x"}));
  EXPECT_EQ(report.faults.size(), 100u);
  EXPECT_EQ(report.fault_count, 250u);
  EXPECT_EQ(report.kind, quant::ErrorKind::kIo);
  report.add(quant::Error(quant::ErrorKind::kChecksum, {.what = "y"}));
  EXPECT_EQ(report.kind, quant::ErrorKind::kChecksum);
}

template <typename Bits>
int64_t bad_at(quant::DType type, std::vector<Bits> values, bool positive = false) {
  return first_bad_number(type, std::as_bytes(std::span(values)), positive);
}

TEST(FirstBadNumber, KnowsEveryFormatsNanAndInfinity) {
  using quant::DType;
  EXPECT_EQ((bad_at<uint32_t>(DType::kF32, {0, 0x7F7FFFFF, 0xFF800000})), 8);
  EXPECT_EQ((bad_at<uint16_t>(DType::kBF16, {0x7F7F, 0x8000, 0x7F80})), 4);
  EXPECT_EQ((bad_at<uint16_t>(DType::kF16, {0x7BFF, 0xFC01})), 2);
  EXPECT_EQ((bad_at<uint8_t>(DType::kF8E4M3, {0x7E, 0xFE, 0x00, 0xFF})), 3);
  EXPECT_EQ((bad_at<uint8_t>(DType::kF8E4M3, {0x7E, 0xFE, 0x00})), -1);
  EXPECT_EQ((bad_at<uint8_t>(DType::kU8, {0xFF})), -1);
}

TEST(FirstBadNumber, AScaleHasToBeAboveZero) {
  using quant::DType;
  EXPECT_EQ((bad_at<float>(DType::kF32, {1.0f, 1e-30f, 0.0f}, true)), 8);
  EXPECT_EQ((bad_at<float>(DType::kF32, {1.0f, -1.0f}, true)), 4);
  EXPECT_EQ((bad_at<float>(DType::kF32, {1.0f, -1.0f}, false)), -1);
}

}  // namespace
}  // namespace moraine::tools
