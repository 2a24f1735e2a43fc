#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tools/console.h"
#include "tools/engine_options.h"

namespace moraine::tools {

/// One problem of a task file.
struct Task {
  std::string task;  ///< kind of problem; may be empty
  std::string prompt;
  std::string answer;
};

/// Reads a task file: one JSON object per line with the strings "prompt", "answer" and, if present, "task"; other
/// fields and blank lines are ignored. Throws quant::Error(kBadFile) naming the line, also if there is no task at all.
std::vector<Task> read_tasks(const std::filesystem::path& file);

/// Right answers of how many.
struct Score {
  int64_t right = 0;
  int64_t of = 0;
  double accuracy() const { return of > 0 ? static_cast<double>(right) / static_cast<double>(of) : 0.0; }
};

/// An answer is right if it equals the expected one, white space around both left out.
bool is_right_answer(std::string_view given, std::string_view expected);

struct EvalTasksOptions {
  EngineOptions engine;
  std::filesystem::path file;
  int64_t limit = 0;  ///< only the first so many; 0 = all
  int64_t max_tokens = 160;
  bool json = false;
};

/// Runs `moraine eval tasks`: every prompt as a chat of its own, greedy, thinking stripped. Returns the exit code.
int eval_tasks(const EvalTasksOptions& options, Console& console);

}  // namespace moraine::tools
