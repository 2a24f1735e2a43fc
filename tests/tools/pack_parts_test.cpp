#include "tools/pack_parts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

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

/// Two layers of 20 records of which some three are in memory at a time.
ExpertFiles two_layers(const TempDir& dir) {
  const auto layout = quant::ExpertLayout::make(quant::DType::kQ8_0, 32, 32);
  return {.directory = dir.path(),
          .layers = {{.layer = 3, .layout = layout, .n_experts = 20, .note = "layer 3"},
                     {.layer = 4, .layout = layout, .n_experts = 20, .note = "layer 4"}},
          .records_in_memory = 3};
}

void ignore_progress(uint64_t, const std::string&) {}

TEST(ExpertFiles, RecordsLieInOrderWhoeverMadeThemFirst) {
  const TempDir dir;
  const ExpertFiles files = two_layers(dir);
  const uint64_t record_bytes = files.layers[0].layout.record_bytes;
  std::atomic<int> in_memory = 0, most = 0;
  const auto make = [&](size_t index, int32_t expert, std::span<std::byte> record) {
    most = std::max(most.load(), ++in_memory);
    if (expert % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(record.size(), record_bytes);
    record[0] = static_cast<std::byte>(100 * index + static_cast<size_t>(expert));
    --in_memory;
  };
  uint64_t advanced_bytes = 0;
  const auto layers =
      write_expert_files(files, make, [&](uint64_t bytes, const std::string&) { advanced_bytes += bytes; });
  EXPECT_LE(most, 3);
  EXPECT_EQ(advanced_bytes, 40 * record_bytes);
  ASSERT_EQ(layers.size(), 2u);
  for (size_t index = 0; index < 2; ++index) {
    EXPECT_EQ(layers[index].layer, files.layers[index].layer);
    EXPECT_EQ(layers[index].checksums.size(), 20u);
    const std::string file = testing::file_content(dir / layers[index].file);
    for (size_t e = 0; e < 20; ++e) EXPECT_EQ(file[e * record_bytes], static_cast<char>(100 * index + e));
  }
  // Once more: nothing is made.
  write_expert_files(
      files, [](size_t, int32_t, std::span<std::byte>) { throw std::logic_error("made again"); }, ignore_progress);
}

TEST(ExpertFiles, TheNextLayerIsBegunBeforeThisOneIsWritten) {
  const TempDir dir;
  const ExpertFiles files = two_layers(dir);
  std::atomic<bool> next_begun = false;
  const auto make = [&](size_t index, int32_t expert, std::span<std::byte>) {
    if (index == 1) next_begun = true;
    // The last record of the first layer waits for the second layer's first.
    for (int ms = 0; index == 0 && expert == 19 && !next_begun && ms < 10000; ++ms) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_TRUE(next_begun || index != 0 || expert != 19);
  };
  write_expert_files(files, make, ignore_progress);
}

TEST(ExpertFiles, MemoryIsUsedAgainButNeverForAnotherLayout) {
  const TempDir dir;
  ExpertFiles files = two_layers(dir);
  files.records_in_memory = 1;
  files.layers[1].layout = quant::ExpertLayout::make(quant::DType::kQ4_0, 32, 32);
  ASSERT_EQ(files.layers[0].layout.record_bytes, files.layers[1].layout.record_bytes) << "one page";
  int fresh[2] = {0, 0};
  write_expert_files(
      files,
      [&](size_t index, int32_t, std::span<std::byte> record) {
        const std::byte mark{static_cast<uint8_t>(index + 1)};
        if (record.back() != mark) {
          EXPECT_EQ(record.back(), std::byte{0}) << "another layout's";
          ++fresh[index];
        }
        record.back() = mark;
      },
      ignore_progress);
  EXPECT_EQ(fresh[0], 1);
  EXPECT_EQ(fresh[1], 1);
}

TEST(ExpertFiles, OnlyWhatIsMissingIsMade) {
  const TempDir dir;
  const ExpertFiles files = two_layers(dir);
  const auto fails_in_the_second_layer = [&](size_t index, int32_t expert, std::span<std::byte>) {
    if (index == 1 && expert == 7) throw std::runtime_error("interrupted");
  };
  EXPECT_THROW(write_expert_files(files, fails_in_the_second_layer, ignore_progress), std::runtime_error);
  std::atomic<int> made = 0;
  write_expert_files(
      files,
      [&](size_t index, int32_t expert, std::span<std::byte>) {
        EXPECT_EQ(index, 1u);
        EXPECT_GE(expert, 7);
        ++made;
      },
      ignore_progress);
  EXPECT_EQ(made, 13);
}

TEST(RecordsInMemory, KeepAllCoresBusyWithinAFewGigabytes) {
  constexpr uint64_t kFp8ToQ4K = 25u * 1000 * 1000 + 44u * 1000 * 1000 + (4u << 20);  // R1
  EXPECT_EQ(records_in_memory(2, kFp8ToQ4K), 6);
  EXPECT_EQ(records_in_memory(64, kFp8ToQ4K), 68);
  EXPECT_EQ(records_in_memory(256, kFp8ToQ4K), 88);
  EXPECT_EQ(records_in_memory(8, uint64_t{1} << 40), 1);
  EXPECT_EQ(records_in_memory(0, 0), 5);
}

}  // namespace
}  // namespace moraine::tools
