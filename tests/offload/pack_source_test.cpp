#include "offload/pack_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "offload/expert_store.h"
#include "quant/checksum.h"
#include "quant/error.h"
#include "support/temp_dir.h"

namespace moraine::offload {
namespace {

using ::testing::HasSubstr;

/// A pack of layers 1 and 3 with 4 experts each, of 4096 and 8192 bytes.
class PackSourceTest : public ::testing::Test {
 protected:
  PackSourceTest() {
    for (const int layer : {1, 3}) {
      quant::PackedLayer packed;
      packed.layer = layer;
      packed.file = "experts-" + std::to_string(layer) + ".bin";
      packed.layout.record_bytes = layer == 1 ? 4096 : 8192;
      std::string content;
      for (int expert = 0; expert < 4; ++expert) {
        const std::string record = record_of(layer, expert);
        packed.checksums.push_back(quant::checksum(std::as_bytes(std::span(record))));
        content += record;
      }
      dir_.write(packed.file, content);
      index_.layers.push_back(packed);
    }
  }

  static std::string record_of(int layer, int expert) {
    return std::string(layer == 1 ? 4096 : 8192, static_cast<char>('a' + layer * 4 + expert));
  }

  testing::TempDir dir_;
  quant::PackIndex index_;
};

TEST_F(PackSourceTest, KnowsWhereEveryExpertLies) {
  const PackSource source(dir_.path(), index_);
  EXPECT_EQ(source.experts().size(), 8u);
  EXPECT_EQ(source.experts()[4], (ExpertId{3, 0}));
  EXPECT_EQ(source.max_record_bytes(), 8192u);
  EXPECT_EQ(source.record_bytes({1, 2}), 4096u);
  EXPECT_EQ(source.layout(3).record_bytes, 8192u);
  const std::vector<Extent> extents = source.extents({3, 2});
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_EQ(extents[0].file, 1);
  EXPECT_EQ(extents[0].offset, 16384u);
  EXPECT_EQ(extents[0].size_bytes, 8192u);
  EXPECT_TRUE(source.reads_in_place());
}

TEST_F(PackSourceTest, TheStoreReadsItWhole) {
  const auto source = std::make_shared<PackSource>(dir_.path(), index_);
  ExpertStore store(source, {.budget_bytes = 3 * 8192}, 2);
  EXPECT_EQ(store.slot_count(), 3);
  LeaseStream stream = store.acquire(source->experts());
  int delivered = 0;
  while (const std::optional<ExpertLease> lease = stream.next()) {
    const std::string expected = record_of(lease->id().layer, lease->id().expert);
    const std::span<const std::byte> record = lease->record();
    ASSERT_EQ(record.size(), expected.size());
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(record.data()), record.size()), expected);
    ++delivered;
  }
  EXPECT_EQ(delivered, 8);
}

TEST_F(PackSourceTest, AFlippedBitIsNamed) {
  std::string content = testing::file_content(dir_ / "experts-3.bin");
  content[2 * 8192 + 77] ^= 4;
  dir_.write("experts-3.bin", content);
  const auto source = std::make_shared<PackSource>(dir_.path(), index_);
  ExpertStore store(source, {.budget_bytes = 1 << 20}, 1);
  const std::vector<ExpertId> wanted = {{3, 2}};
  LeaseStream stream = store.acquire(wanted);
  try {
    stream.next();
    FAIL() << "delivered wrong bytes";
  } catch (const quant::Error& error) {
    EXPECT_EQ(error.kind(), quant::ErrorKind::kChecksum);
    EXPECT_THAT(error.what(), HasSubstr("layer 3 expert 2"));
    EXPECT_THAT(error.what(), HasSubstr("experts-3.bin"));
    EXPECT_THAT(error.what(), HasSubstr("at byte 16384"));
  }
  EXPECT_EQ(store.counters().rereads, 1u);
}

}  // namespace
}  // namespace moraine::offload
