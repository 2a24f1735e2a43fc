#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <memory>
#include <vector>

#include "quant/aligned_buffer.h"
#include "quant/checksum.h"
#include "quant/expert_pack.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::quant {
namespace {

constexpr int kExperts = 5;
constexpr int kLayer = 3;

ExpertLayout layout() {
  return ExpertLayout::make(DType::kQ8_0, 64, 32);
}  // 8192 bytes

std::vector<std::byte> record_of(int expert, uint64_t bytes = layout().record_bytes) {
  std::vector<std::byte> record(bytes);
  for (size_t i = 0; i < bytes; ++i) record[i] = static_cast<std::byte>(static_cast<size_t>(expert) * 37 + i * 11);
  return record;
}

class ExpertFileWriterTest : public ::testing::Test {
 protected:
  std::unique_ptr<ExpertFileWriter> open() const {
    return std::make_unique<ExpertFileWriter>(directory_.path(), kLayer, layout(), kExperts);
  }
  /// A run that is interrupted after `count` records more.
  void write_some(int count) const {
    const auto writer = open();
    for (int i = 0; i < count; ++i) writer->append(record_of(writer->next_expert()));
  }
  /// Continues to the end and checks the file byte for byte.
  void finish_and_check() const {
    const auto writer = open();
    while (!writer->has_all()) writer->append(record_of(writer->next_expert()));
    check(writer->finish());
  }
  void check(const PackedLayer& layer) const {
    EXPECT_EQ(layer.layer, kLayer);
    EXPECT_EQ(layer.file, "experts-00003.bin");
    EXPECT_EQ(layer.layout, layout());
    ASSERT_EQ(layer.checksums.size(), static_cast<size_t>(kExperts));
    const std::string content = testing::file_content(directory_ / layer.file);
    ASSERT_EQ(content.size(), kExperts * layout().record_bytes);
    for (int expert = 0; expert < kExperts; ++expert) {
      const auto wanted = record_of(expert);
      EXPECT_EQ(std::memcmp(content.data() + static_cast<size_t>(expert) * wanted.size(), wanted.data(), wanted.size()),
                0)
          << expert;
      EXPECT_EQ(layer.checksums[static_cast<size_t>(expert)], checksum(wanted));
    }
    EXPECT_FALSE(std::filesystem::exists(part()));
  }
  std::filesystem::path part() const { return directory_ / "experts-00003.bin.part"; }
  std::filesystem::path journal() const { return directory_ / "experts-00003.journal"; }

  testing::TempDir directory_;
};

TEST_F(ExpertFileWriterTest, AlignedRecordsGoPastThePageCacheAndMakeTheSameFile) {
  const auto append = [](ExpertFileWriter& writer, bool aligned) {
    const std::vector<std::byte> record = record_of(writer.next_expert());
    AlignedBuffer copy(record.size());
    std::memcpy(copy.data(), record.data(), record.size());
    writer.append(aligned ? copy.span() : std::span(record));
  };
  {
    const auto writer = open();
    for (const bool aligned : {true, false, true}) append(*writer, aligned);
  }
  EXPECT_EQ(open()->next_expert(), 3);  // what was written directly is read back and recognised
  const auto writer = open();
  while (!writer->has_all()) append(*writer, true);
  check(writer->finish());
}

TEST_F(ExpertFileWriterTest, WritesAllRecordsInOrder) {
  const auto writer = open();
  EXPECT_EQ(writer->next_expert(), 0);
  EXPECT_FALSE(writer->has_all());
  for (int expert = 0; expert < kExperts; ++expert) {
    EXPECT_FALSE(std::filesystem::exists(directory_ / "experts-00003.bin"));
    writer->append(record_of(expert));
    EXPECT_EQ(writer->next_expert(), expert + 1);
  }
  EXPECT_TRUE(writer->has_all());
  check(writer->finish());
}

TEST_F(ExpertFileWriterTest, ResumesBehindTheLastWholeRecord) {
  for (int interrupted_after = 0; interrupted_after <= kExperts; ++interrupted_after) {
    std::filesystem::remove(directory_ / "experts-00003.bin");
    std::filesystem::remove(journal());
    write_some(interrupted_after);
    EXPECT_EQ(open()->next_expert(), interrupted_after);
    finish_and_check();
  }
}

TEST_F(ExpertFileWriterTest, AFinishedFileIsRecognised) {
  finish_and_check();
  const auto writer = open();
  EXPECT_TRUE(writer->has_all());
  check(writer->finish());
}

TEST_F(ExpertFileWriterTest, AFinishedFileOfTheWrongSizeIsWrittenAgain) {
  finish_and_check();
  std::filesystem::resize_file(directory_ / "experts-00003.bin", 100);
  EXPECT_EQ(open()->next_expert(), 0);
  finish_and_check();
}

TEST_F(ExpertFileWriterTest, ATornRecordIsWrittenAgain) {
  write_some(4);
  std::filesystem::resize_file(part(), 3 * layout().record_bytes + 17);
  EXPECT_EQ(open()->next_expert(), 3);
  finish_and_check();
}

TEST_F(ExpertFileWriterTest, ARecordThatNeverReachedTheDiskIsWrittenAgain) {
  write_some(4);
  std::string content = testing::file_content(part());
  content[layout().record_bytes + 5] ^= 1;
  directory_.write("experts-00003.bin.part", content);
  EXPECT_EQ(open()->next_expert(), 1);  // 0 is good; what follows a bad record is not trusted
  finish_and_check();
}

TEST_F(ExpertFileWriterTest, ATornJournalLineIsDropped) {
  write_some(4);
  const std::string whole = testing::file_content(journal());
  for (size_t cut = 1; cut < 39; ++cut) {
    directory_.write("experts-00003.journal", whole.substr(0, whole.size() - cut));
    const int next = open()->next_expert();  // truncates the part file too
    EXPECT_EQ(next, cut < 20 ? 3 : 2) << cut << ": lines of 19 bytes";
    while (open()->next_expert() < 4) write_some(1);
  }
  finish_and_check();
}

TEST_F(ExpertFileWriterTest, RubbishInTheJournalStartsOver) {
  for (const std::string& rubbish : {std::string("x"), std::string(10000, '\n'), std::string(5, '\0')}) {
    write_some(2);
    directory_.write("experts-00003.journal", rubbish);
    EXPECT_EQ(open()->next_expert(), 0);
    EXPECT_EQ(std::filesystem::file_size(part()), 0u);
  }
  finish_and_check();
}

TEST_F(ExpertFileWriterTest, AnotherLayoutStartsOver) {
  write_some(3);
  const ExpertLayout other = ExpertLayout::make(DType::kBF16, 64, 32);
  EXPECT_EQ(ExpertFileWriter(directory_.path(), kLayer, other, kExperts).next_expert(), 0);
  EXPECT_EQ(open()->next_expert(), 0);
  write_some(3);
  EXPECT_EQ(ExpertFileWriter(directory_.path(), kLayer, layout(), kExperts + 1).next_expert(), 0);
  finish_and_check();
}

/// Q4_K and Q4_0 take the same room: only the journal's header can tell a finished file of one from the other.
TEST_F(ExpertFileWriterTest, AFinishedFileOfAnotherTypeOfTheSameSizeIsNotTaken) {
  const ExpertLayout q4_k = ExpertLayout::make(DType::kQ4_K, 256, 256);
  const ExpertLayout q4_0 = ExpertLayout::make(DType::kQ4_0, 256, 256);
  ASSERT_EQ(q4_k.record_bytes, q4_0.record_bytes);
  {
    ExpertFileWriter writer(directory_.path(), 7, q4_k, 1);
    writer.append(record_of(0, q4_k.record_bytes));
    writer.finish();
  }
  EXPECT_TRUE(ExpertFileWriter(directory_.path(), 7, q4_k, 1).has_all());
  EXPECT_FALSE(ExpertFileWriter(directory_.path(), 7, q4_0, 1).has_all());
  EXPECT_FALSE(ExpertFileWriter(directory_.path(), 7, q4_k, 1).has_all()) << "the journal is Q4_0's by now";
}

TEST_F(ExpertFileWriterTest, TwoConversionsCannotShareALayer) {
  const auto first = open();
  testing::expect_error(ErrorKind::kIo, {"experts-00003.journal", "another conversion"}, [&] { open(); });
  ExpertFileWriter other_layer(directory_.path(), kLayer + 1, layout(), kExperts);
}

TEST_F(ExpertFileWriterTest, AFullDiskIsToldAndNothingIsLost) {
  std::filesystem::create_symlink("/dev/full", part());
  const std::string missing = std::to_string(kExperts * layout().record_bytes);
  {
    const auto writer = open();
    testing::expect_error(ErrorKind::kNotEnough, {"experts-00003.bin.part", "full", "free " + missing, "resumes"},
                          [&] { writer->append(record_of(0)); });
    EXPECT_EQ(writer->next_expert(), 0);
  }
  std::filesystem::remove(part());
  finish_and_check();
}

/// The file size limit stops a write half way, as a disk that fills up or fails does.
TEST_F(ExpertFileWriterTest, AWriteThatStopsHalfWayKeepsWhatWasWritten) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto ignore_before = std::signal(SIGXFSZ, SIG_IGN);
  const auto writer = open();
  writer->append(record_of(0));
  writer->append(record_of(1));
  rlimit small = before;
  small.rlim_cur = 2 * layout().record_bytes + 1000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  testing::expect_error(ErrorKind::kIo, {"experts-00003.bin.part", "resumes"}, [&] { writer->append(record_of(2)); });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, ignore_before);
  EXPECT_EQ(writer->next_expert(), 2);
  for (int expert = 2; expert < kExperts; ++expert) writer->append(record_of(expert));  // the same writer goes on
  check(writer->finish());
}

TEST_F(ExpertFileWriterTest, RefusesImpossibleLayersAndTargets) {
  const auto make = [&](const std::filesystem::path& directory, int layer, int n_experts) {
    ExpertFileWriter writer(directory, layer, layout(), n_experts);
  };
  for (const int layer : {-1, 100000}) {
    testing::expect_error(ErrorKind::kBadFile, {std::to_string(layer)}, [&] { make(directory_.path(), layer, 1); });
  }
  for (const int n_experts : {-1, 0, 4097}) {
    testing::expect_error(ErrorKind::kBadFile, {std::to_string(n_experts)},
                          [&] { make(directory_.path(), 0, n_experts); });
  }
  testing::expect_error(ErrorKind::kIo, {"missing", "could not create"}, [&] { make(directory_ / "missing", 0, 1); });
}

TEST_F(ExpertFileWriterTest, TheFileNamesAreThoseOfTheFormat) {
  EXPECT_EQ(expert_file_name(0), "experts-00000.bin");
  EXPECT_EQ(expert_journal_name(99999), "experts-99999.journal");
}

}  // namespace
}  // namespace moraine::quant
