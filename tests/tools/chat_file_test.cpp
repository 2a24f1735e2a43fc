#include "tools/chat_file.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::tools {
namespace {

using testing::TempDir;

TEST(ChatFile, GivesBackWhatWasSaved) {
  const TempDir directory;
  const ChatFile chat{.model = "tiny-r1",
                      .messages = {{.role = "system", .content = "Be short."},
                                   {.role = "user", .content = "Quotes \" and \\ and\nlines, ü 語 <｜User｜>"},
                                   {.role = "assistant", .content = ""}}};
  write_chat_file(directory / "chat.json", chat);
  const ChatFile read = read_chat_file(directory / "chat.json");
  EXPECT_EQ(read.model, chat.model);
  ASSERT_EQ(read.messages.size(), chat.messages.size());
  for (size_t index = 0; index < read.messages.size(); ++index) {
    EXPECT_EQ(read.messages[index].role, chat.messages[index].role);
    EXPECT_EQ(read.messages[index].content, chat.messages[index].content);
  }
}

TEST(ChatFile, InvalidUtf8IsRepairedAndNeverLosesTheChat) {
  const TempDir directory;
  write_chat_file(directory / "chat.json", {.model = "m",
                                            .messages = {{.role = "user",
                                                          .content = "a\xFF"
                                                                     "b"}}});
  EXPECT_EQ(read_chat_file(directory / "chat.json").messages[0].content,
            "a\xEF\xBF\xBD"
            "b");
}

TEST(ChatFile, RefusesOtherFilesByWhatIsWrong) {
  const TempDir directory;
  const auto refused = [&](const char* text, const char* item) {
    const auto file = directory.write("chat.json", text);
    testing::expect_error(quant::ErrorKind::kBadFile, {"chat.json", item}, [&] { (void)read_chat_file(file); });
  };
  refused("[]", "an object");
  refused("{", "");
  refused(R"({"format": "other", "model": "m", "messages": []})", "format");
  refused(R"({"format": "moraine-chat-1", "messages": []})", "model");
  refused(R"({"format": "moraine-chat-1", "model": "m", "messages": 3})", "messages");
  refused(R"({"format": "moraine-chat-1", "model": "m", "messages": [{"role": "tool", "content": ""}]})",
          "messages[0].role");
  refused(R"({"format": "moraine-chat-1", "model": "m", "messages": [{"role": "user"}]})", "messages[0].content");
  refused(R"({"format": "moraine-chat-1", "model": "m", "messages": ["hello"]})", "messages[0]");
}

TEST(ChatFile, AnUnwritableFileIsAnError) {
  testing::expect_error(quant::ErrorKind::kIo, {"/proc/none/chat.json"},
                        [] { write_chat_file("/proc/none/chat.json", {}); });
}

}  // namespace
}  // namespace moraine::tools
