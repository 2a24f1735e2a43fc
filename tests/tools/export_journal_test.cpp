#include "tools/export_journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::tools {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ExportJournalTest : public ::testing::Test {
 protected:
  std::filesystem::path file() const { return dir_ / "m.gguf"; }
  std::string text() const { return testing::file_content(dir_ / "m.gguf.journal"); }

  testing::TempDir dir_;
};

TEST_F(ExportJournalTest, RemembersItsParts) {
  {
    ExportJournal journal(file(), "a model");
    EXPECT_THAT(journal.checksums(), IsEmpty());
    journal.append(5);
    journal.append(uint64_t{0xfedcba9876543210});
    journal.append(7);
    journal.keep(2);
    journal.append(8);
  }
  EXPECT_EQ(text(), "a model\n0 0000000000000005\n1 fedcba9876543210\n2 0000000000000008\n");
  EXPECT_THAT(ExportJournal(file(), "a model").checksums(), ElementsAre(5u, 0xfedcba9876543210u, 8u));
  EXPECT_THAT(ExportJournal(file(), "another model").checksums(), IsEmpty());
  EXPECT_EQ(text(), "another model\n");
  ExportJournal(file(), "another model").remove();
  EXPECT_FALSE(std::filesystem::exists(dir_ / "m.gguf.journal"));
}

TEST_F(ExportJournalTest, ATornOrDamagedLineEndsTheList) {
  for (const char* tail : {"1 fedcba98", "1 fedcba987654321g\n2 0000000000000008\n", "2 0000000000000008\n", "\n1",
                           "1  000000000000008\n", "99999999999999999999\n", " \n"}) {
    dir_.write("m.gguf.journal", std::string("a\n0 0000000000000005\n") + tail);
    EXPECT_THAT(ExportJournal(file(), "a").checksums(), ElementsAre(5u)) << tail;
    EXPECT_EQ(text(), "a\n0 0000000000000005\n");
  }
}

TEST_F(ExportJournalTest, TwoRunsCannotWriteOneFile) {
  const ExportJournal first(file(), "a");
  testing::expect_error(quant::ErrorKind::kIo, {"m.gguf.journal", "another conversion"},
                        [&] { ExportJournal(file(), "a"); });
}

}  // namespace
}  // namespace moraine::tools
