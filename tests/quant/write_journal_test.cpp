#include "quant/write_journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::quant {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class WriteJournalTest : public ::testing::Test {
 protected:
  std::filesystem::path file() const { return dir_ / "m.gguf.journal"; }
  std::string text() const { return testing::file_content(file()); }

  testing::TempDir dir_;
};

TEST_F(WriteJournalTest, RemembersItsParts) {
  {
    WriteJournal journal(file(), "a model", 9);
    EXPECT_THAT(journal.checksums(), IsEmpty());
    journal.append(5);
    journal.append(uint64_t{0xfedcba9876543210});
    journal.append(7);
    journal.keep(2);
    journal.append(8);
  }
  EXPECT_EQ(text(), "a model\n0 0000000000000005\n1 fedcba9876543210\n2 0000000000000008\n");
  EXPECT_THAT(WriteJournal(file(), "a model", 9).checksums(), ElementsAre(5u, 0xfedcba9876543210u, 8u));
  EXPECT_THAT(WriteJournal(file(), "another model", 9).checksums(), IsEmpty());
  EXPECT_EQ(text(), "another model\n");
  WriteJournal(file(), "another model", 9).remove();
  EXPECT_FALSE(std::filesystem::exists(file()));
}

TEST_F(WriteJournalTest, ATornOrDamagedLineEndsTheList) {
  for (const char* tail : {"1 fedcba98", "1 fedcba987654321g\n2 0000000000000008\n", "2 0000000000000008\n", "\n1",
                           "1  000000000000008\n", "99999999999999999999\n", " \n"}) {
    dir_.write("m.gguf.journal", std::string("a\n0 0000000000000005\n") + tail);
    EXPECT_THAT(WriteJournal(file(), "a", 9).checksums(), ElementsAre(5u)) << tail;
    EXPECT_EQ(text(), "a\n0 0000000000000005\n");
  }
}

TEST_F(WriteJournalTest, TwoRunsCannotWriteOneFile) {
  const WriteJournal first(file(), "a", 9);
  testing::expect_error(ErrorKind::kIo, {"m.gguf.journal", "another conversion"},
                        [&] { WriteJournal(file(), "a", 9); });
}

}  // namespace
}  // namespace moraine::quant
