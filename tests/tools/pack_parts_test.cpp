#include "tools/pack_parts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "quant/checksum.h"
#include "support/temp_dir.h"

namespace moraine::tools {
namespace {

using testing::TempDir;

std::vector<quant::TensorInfo> some_tensors() {
  std::vector<quant::TensorInfo> tensors;
  for (const char* name : {"a", "b", "c", "d"}) {
    tensors.push_back({.name = name, .dtype = quant::DType::kQ8_0, .shape = {2, 32}, .size_bytes = 68});
  }
  return tensors;
}

void fill(const quant::TensorInfo& tensor, std::span<std::byte> bytes) {
  std::ranges::fill(bytes, static_cast<std::byte>(tensor.name[0]));
}

TEST(ResidentShards, TensorsAreSpreadOverFilesThatOpenAsACheckpoint) {
  const TempDir dir;
  const ResidentShards shards(some_tensors(), 140);
  EXPECT_EQ(shards.total_bytes(), 4u * 68);
  quant::PackIndex pack;
  pack.wanted_type = "Q8_0";
  uint64_t advanced_bytes = 0;
  shards.write(
      dir.path(), fill, [&](uint64_t bytes, const std::string&) { advanced_bytes += bytes; }, pack);
  EXPECT_EQ(advanced_bytes, shards.total_bytes());
  EXPECT_EQ(pack.file_checksums.size(), 3u);  // two files and their index
  pack.write(dir.path());
  const auto checkpoint = quant::Checkpoint::open(dir.path());
  EXPECT_EQ(checkpoint.files().size(), 2u);
  EXPECT_TRUE(checkpoint.warnings().empty());
  for (const auto& [name, sum] : pack.tensor_checksums) {
    std::vector<std::byte> bytes(68);
    checkpoint.read(checkpoint.at(name), bytes);
    EXPECT_EQ(bytes[5], static_cast<std::byte>(name[0]));
    EXPECT_EQ(quant::checksum(bytes), sum);
  }
}

TEST(ResidentShards, AFileThatIsThereIsNotWrittenAgain) {
  const TempDir dir;
  const ResidentShards shards(some_tensors(), 1000);
  const auto ignore = [](uint64_t, const std::string&) {};
  quant::PackIndex first, second;
  shards.write(dir.path(), fill, ignore, first);
  const auto written = std::filesystem::last_write_time(dir / "model.safetensors");
  shards.write(dir.path(), fill, ignore, second);
  EXPECT_EQ(std::filesystem::last_write_time(dir / "model.safetensors"), written);
  EXPECT_EQ(second.tensor_checksums, first.tensor_checksums);
  EXPECT_EQ(second.file_checksums, first.file_checksums);
}

TEST(ExpertFile, RecordsLieInOrderWhoeverMadeThemFirst) {
  const TempDir dir;
  const auto layout = quant::ExpertLayout::make(quant::DType::kQ8_0, 32, 32);
  std::atomic<int> in_memory = 0, most = 0;
  const ExpertFileTask task = {
      .directory = dir.path(), .layer = 3, .layout = layout, .n_experts = 20, .threads = 3, .note = "layer 3"};
  const auto make = [&](int32_t expert) {
    most = std::max(most.load(), ++in_memory);
    quant::AlignedBuffer record(layout.record_bytes);
    record.data()[0] = static_cast<std::byte>(expert);
    --in_memory;
    return record;
  };
  uint64_t advanced_bytes = 0;
  const quant::PackedLayer layer =
      write_expert_file(task, make, [&](uint64_t bytes, const std::string&) { advanced_bytes += bytes; });
  EXPECT_LE(most, 3);
  EXPECT_EQ(advanced_bytes, 20 * layout.record_bytes);
  EXPECT_EQ(layer.checksums.size(), 20u);
  const std::string file = testing::file_content(dir / layer.file);
  for (size_t e = 0; e < 20; ++e) EXPECT_EQ(file[e * layout.record_bytes], static_cast<char>(e));
  // Once more: nothing is made.
  write_expert_file(
      task, [](int32_t) -> quant::AlignedBuffer { throw std::logic_error("made again"); },
      [](uint64_t, const std::string&) {});
}

}  // namespace
}  // namespace moraine::tools
