#include "tools/eval_tasks.h"

#include <fmt/format.h>

#include "quant/error.h"
#include "quant/json.h"
#include "runtime/engine.h"
#include "tools/engine_setup.h"
#include "tools/exit_codes.h"
#include "tools/progress_bar.h"
#include "tools/stats_json.h"
#include "tools/trace_recorder.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kMaxTaskFileBytes = 256u << 20;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kWhiteSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kWhiteSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kWhiteSpace) - first + 1);
}

std::string string_field(const quant::Json& object, const char* name, bool required, const std::filesystem::path& file,
                         int64_t line_number) {
  const auto field = object.find(name);
  if (field != object.end() && field->is_string()) return field->get<std::string>();
  if (field == object.end() && !required) return {};
  throw quant::Error(quant::ErrorKind::kBadFile, {.what = fmt::format("line {} is no task", line_number),
                                                  .file = file,
                                                  .item = name,
                                                  .expected = "a string",
                                                  .got = field == object.end() ? "nothing" : field->type_name()});
}

/// What a run over the tasks found.
struct TaskRun {
  Score total;
  std::map<std::string, Score> by_task;
  quant::Json answers = quant::Json::array();
};

TaskRun run_tasks(runtime::Engine& engine, std::span<const Task> tasks, int64_t max_tokens, Console& console) {
  TaskRun run;
  const runtime::GenerateOptions greedy{.max_tokens = max_tokens, .sampling = {.temperature = 0.0}};
  ProgressBar bar(console, "tasks", ProgressUnit::kItems);
  for (const Task& task : tasks) {
    const runtime::Message message{.role = "user", .content = task.prompt};
    runtime::Session session = engine.new_session();
    const runtime::GenerateResult result =
        runtime::generate(engine, session, engine.chat_prompt({&message, 1}), greedy);
    const bool right = is_right_answer(result.answer, task.answer);
    for (Score* score : {&run.total, &run.by_task[task.task]}) {
      score->right += right ? 1 : 0;
      ++score->of;
    }
    run.answers.push_back(trimmed(result.answer));
    bar.update(static_cast<uint64_t>(run.total.of), tasks.size(), fmt::format("right {}", run.total.right));
  }
  return run;
}

std::string score_line(std::string_view name, const Score& score) {
  return fmt::format("{:<12} {:5.1f} %  {} of {}\n", name, score.accuracy() * 100.0, score.right, score.of);
}

}  // namespace

std::vector<Task> read_tasks(const std::filesystem::path& file) {
  const std::string text = quant::read_text(file, kMaxTaskFileBytes);
  std::vector<Task> tasks;
  int64_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = trimmed(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
    ++line_number;
    if (line.empty()) continue;
    quant::Json object;
    try {
      object = quant::parse_json(line, file);
    } catch (const quant::Error& error) {
      throw quant::Error(error.kind(), {.what = fmt::format("line {}: {}", line_number, error.what())});
    }
    if (!object.is_object()) {
      throw quant::Error(quant::ErrorKind::kBadFile, {.what = fmt::format("line {} is no task", line_number),
                                                      .file = file,
                                                      .expected = "a JSON object with prompt and answer"});
    }
    tasks.push_back({.task = string_field(object, "task", false, file, line_number),
                     .prompt = string_field(object, "prompt", true, file, line_number),
                     .answer = string_field(object, "answer", true, file, line_number)});
  }
  if (tasks.empty()) {
    throw quant::Error(
        quant::ErrorKind::kBadFile,
        {.what = "no tasks in the file", .file = file, .expected = "one JSON object with prompt and answer per line"});
  }
  return tasks;
}

bool is_right_answer(std::string_view given, std::string_view expected) {
  return trimmed(given) == trimmed(expected);
}

int eval_tasks(const EvalTasksOptions& options, Console& console) {
  std::vector<Task> tasks = read_tasks(options.file);
  if (options.limit > 0 && tasks.size() > static_cast<size_t>(options.limit)) {
    tasks.resize(static_cast<size_t>(options.limit));
  }
  const std::unique_ptr<TraceRecorder> trace = open_trace(options.engine.trace_file);
  const std::unique_ptr<runtime::Engine> engine = open_engine(options.engine, console, adapter_of(trace));
  TaskRun run = run_tasks(*engine, tasks, options.max_tokens, console);
  warn_if_cut(trace, console);

  if (options.json) {
    quant::Json by_task = quant::Json::object();
    for (const auto& [name, score] : run.by_task) by_task[name] = {{"right", score.right}, {"of", score.of}};
    console.out(json_text({{"model", model_name(model_directory(options.engine.model))},
                           {"experts", engine->experts().type_name},
                           {"right", run.total.right},
                           {"of", run.total.of},
                           {"accuracy", run.total.accuracy()},
                           {"by_task", std::move(by_task)},
                           {"answers", std::move(run.answers)}}));
    return kExitOk;
  }
  std::string text;
  if (run.by_task.size() > 1) {
    for (const auto& [name, score] : run.by_task) text += score_line(name.empty() ? "(no task)" : name, score);
  }
  console.out(text + score_line("accuracy", run.total));
  return kExitOk;
}

}  // namespace moraine::tools
