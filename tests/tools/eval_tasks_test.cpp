#include "tools/eval_tasks.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::tools {
namespace {

using testing::TempDir;

TEST(ReadTasks, TakesOneObjectPerLine) {
  const TempDir directory;
  const auto file = directory.write("tasks.jsonl",
                                    "{\"task\": \"add\", \"prompt\": \"1+1\", \"answer\": \"2\", \"more\": 3}\n"
                                    "\n"
                                    "{\"prompt\": \"a\\nb\", \"answer\": \"\"}");
  const std::vector<Task> tasks = read_tasks(file);
  ASSERT_EQ(tasks.size(), 2u);
  EXPECT_EQ(tasks[0].task, "add");
  EXPECT_EQ(tasks[0].prompt, "1+1");
  EXPECT_EQ(tasks[0].answer, "2");
  EXPECT_EQ(tasks[1].task, "");
  EXPECT_EQ(tasks[1].prompt, "a\nb");
}

TEST(ReadTasks, NamesTheLineThatIsWrong) {
  const TempDir directory;
  const auto refused = [&](const std::string& bad, const char* part) {
    const auto file = directory.write("tasks.jsonl", "{\"prompt\": \"a\", \"answer\": \"b\"}\n" + bad + "\n");
    testing::expect_error(quant::ErrorKind::kBadFile, {"line 2", "tasks.jsonl", part}, [&] { (void)read_tasks(file); });
  };
  refused("{\"prompt\": \"a\"", "");
  refused("[1]", "JSON object");
  refused("{\"prompt\": \"a\"}", "answer");
  refused("{\"prompt\": 3, \"answer\": \"b\"}", "prompt");
  refused("{\"prompt\": \"a\", \"answer\": \"b\", \"task\": 1}", "task");
}

TEST(ReadTasks, AnEmptyFileHasNoTasks) {
  const TempDir directory;
  const auto file = directory.write("tasks.jsonl", "\n\n");
  testing::expect_error(quant::ErrorKind::kBadFile, {"no tasks", "tasks.jsonl"}, [&] { (void)read_tasks(file); });
}

TEST(IsRightAnswer, IsExactButForWhiteSpaceAround) {
  EXPECT_TRUE(is_right_answer(" \n24\n", "24"));
  EXPECT_TRUE(is_right_answer("", " "));
  EXPECT_FALSE(is_right_answer("24.", "24"));
  EXPECT_FALSE(is_right_answer("Paris", "paris"));
  EXPECT_FALSE(is_right_answer("a b", "a  b"));
}

}  // namespace
}  // namespace moraine::tools
