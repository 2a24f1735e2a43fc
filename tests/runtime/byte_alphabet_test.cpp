#include "runtime/byte_alphabet.h"

#include <gtest/gtest.h>

namespace moraine::runtime {
namespace {

TEST(ByteAlphabet, WritesTheCharactersOfGpt2) {
  EXPECT_EQ(bytes_to_alphabet(" the\n"), "ĠtheĊ");
  EXPECT_EQ(bytes_to_alphabet("é"), "Ã©");
  EXPECT_EQ(bytes_to_alphabet(std::string_view("\0", 1)), "Ā");
  EXPECT_EQ(bytes_to_alphabet("\x7f\xa0\xad"), "\u0121\u0142\u0143");
  EXPECT_EQ(bytes_to_alphabet("!~\xa1\xac\xae\xff"), "!~¡¬®ÿ");
}

TEST(ByteAlphabet, EveryByteComesBack) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(alphabet_to_bytes(bytes_to_alphabet(all)), all);
}

TEST(ByteAlphabet, OtherCharactersStandForNothing) {
  for (const std::string_view written : {"a b", "\n", "\u00a0", "\u00ad", "\u0144", "｜", "🦙", "\x7f"}) {
    EXPECT_EQ(alphabet_to_bytes(written), std::nullopt) << written;
  }
}

}  // namespace
}  // namespace moraine::runtime
