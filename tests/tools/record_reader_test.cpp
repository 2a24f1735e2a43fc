#include "tools/record_reader.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "quant/error.h"
#include "support/temp_dir.h"

namespace moraine::tools {
namespace {

using testing::TempDir;

/// Records of one file, made of the extents that are said.
class Extents final : public offload::ExpertRecordSource {
 public:
  Extents(std::filesystem::path file, std::vector<std::vector<offload::Extent>> extents, bool in_place)
      : files_{std::move(file)}, extents_(std::move(extents)), in_place_(in_place) {
    for (size_t e = 0; e < extents_.size(); ++e) ids_.push_back({0, static_cast<int32_t>(e)});
  }
  const std::vector<std::filesystem::path>& files() const override { return files_; }
  std::span<const offload::ExpertId> experts() const override { return ids_; }
  uint64_t max_record_bytes() const override { return 1 << 20; }
  uint64_t record_bytes(offload::ExpertId id) const override {
    uint64_t bytes = 0;
    for (const offload::Extent& extent : extents(id)) bytes += extent.size_bytes;
    return bytes;
  }
  std::vector<offload::Extent> extents(offload::ExpertId id) const override {
    return extents_[static_cast<size_t>(id.expert)];
  }
  bool reads_in_place() const override { return in_place_; }
  void finish(offload::ExpertId, std::span<const std::byte> raw, std::span<std::byte> record) const override {
    if (!in_place_) std::ranges::copy(raw, record.begin());
  }

 private:
  std::vector<std::filesystem::path> files_;
  std::vector<std::vector<offload::Extent>> extents_;
  std::vector<offload::ExpertId> ids_;
  bool in_place_;
};

constexpr uint64_t kFileBytes = 5'000'123;  // more than one piece, and no whole number of pages

class RecordReaderTest : public ::testing::Test {
 protected:
  RecordReaderTest() : content_(kFileBytes, '\0') {
    for (size_t i = 0; i < content_.size(); ++i) content_[i] = static_cast<char>(i * 131 + i / 4096);
    file_ = dir_.write("file", content_);
  }
  std::string expected(const std::vector<offload::Extent>& extents) const {
    std::string bytes;
    for (const offload::Extent& extent : extents) bytes += content_.substr(extent.offset, extent.size_bytes);
    return bytes;
  }

  TempDir dir_;
  std::string content_;
  std::filesystem::path file_;
};

TEST_F(RecordReaderTest, GivesTheBytesOfAnyPlaceOfTheFile) {
  const std::vector<std::vector<offload::Extent>> records = {{{0, 0, 8192}},
                                                             {{0, 1, 5000}, {0, 4095, 2}, {0, 4096, 4096}},
                                                             {{0, kFileBytes - 100, 100}, {0, 3, 1}},
                                                             {{0, 0, kFileBytes}},
                                                             {{0, 4096, kFileBytes - 4096}, {0, 17, 4'500'000}}};
  for (const bool in_place : {false, true}) {
    const Extents source(file_, records, in_place);
    const RecordReader reader(source);
    for (const offload::ExpertId id : source.experts()) {
      const quant::AlignedBuffer record = reader.read(id);
      const std::string wanted = expected(records[static_cast<size_t>(id.expert)]);
      EXPECT_TRUE(std::ranges::equal(record.span(), std::as_bytes(std::span(wanted)))) << id.expert;
    }
  }
}

TEST_F(RecordReaderTest, AFileThatEndsTooEarlyIsNamed) {
  const Extents source(file_, {{{0, kFileBytes - 10, 20}}}, false);
  const RecordReader reader(source);
  try {
    reader.read({0, 0});
    FAIL();
  } catch (const quant::Error& error) {
    EXPECT_EQ(error.kind(), quant::ErrorKind::kBadFile);
    EXPECT_NE(std::string(error.what()).find("file"), std::string::npos);
  }
}

}  // namespace
}  // namespace moraine::tools
