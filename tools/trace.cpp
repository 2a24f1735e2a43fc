#include <fmt/format.h>

#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <memory>

#include "quant/file_io.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/exit_codes.h"
#include "tools/trace_picture.h"

namespace moraine::tools {
namespace {

struct TraceCommand {
  std::filesystem::path file;
  std::filesystem::path out;
  size_t steps = 6;
};

int trace(const TraceCommand& command, Console& console) {
  const TraceSummary summary(command.file, command.steps);
  console.out(summary.text());
  if (command.out.empty()) return kExitOk;
  quant::write_file_atomically(command.out, summary.html("Moraine trace " + command.file.filename().string()));
  console.line(fmt::format("wrote {}", command.out.string()));
  return kExitOk;
}

}  // namespace

void add_trace_command(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand("trace", "Sum up a trace, and draw it as a page");
  const auto options = std::make_shared<TraceCommand>();
  command
      ->add_option_function<std::string>(
          "F", [options](const std::string& text) { options->file = text; },
          "Written by `moraine generate … --trace F`")
      ->type_name("")
      ->required();
  command
      ->add_option_function<std::string>(
          "OUT", [options](const std::string& text) { options->out = text; },
          "HTML page to write: timeline and heat map of experts, all in one\nfile, no scripts (default: sums alone)")
      ->type_name("");
  command->add_option("--steps", options->steps, "Last steps in the timeline, 1 to 100 (default: 6)")
      ->type_name("N")
      ->check(CLI::Range(size_t{1}, size_t{100}).description(""));
  set_help_footer(*command,
                  "  moraine generate ~/models/pack -p \"Hello\" --trace trace.json\n"
                  "  moraine trace trace.json trace.html\n\n"
                  "The trace itself opens in chrome://tracing and Perfetto.\n");
  command->callback([options, &chosen] { chosen = [options](Console& console) { return trace(*options, console); }; });
}

}  // namespace moraine::tools
