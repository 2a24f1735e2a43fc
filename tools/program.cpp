#include "tools/program.h"

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <sstream>
#include <string>

#include "cpu/isa.h"
#include "gpu/device.h"
#include "tools/commands.h"
#include "tools/exit_codes.h"
#include "tools/version.h"

namespace moraine::tools {
namespace {

std::string version_text() {
  const std::optional<gpu::DeviceInfo> device = gpu::first_device();
  return fmt::format("moraine {}\nCPU code: {}\nGPU device: {}", kVersion, cpu::isa_name(),
                     device ? device->name : std::string("none"));
}

void describe(CLI::App& app) {
  app.description(
      "Moraine runs DeepSeek-R1 and DeepSeek-V3 on one workstation: the routed experts lie quantized on the\n"
      "disk and in RAM and are read as the model needs them. Nothing leaves this machine.");
  app.set_version_flag("--version", version_text, "Print version, CPU instruction set and GPU, and exit");
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.get_formatter()->column_width(24);
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.require_subcommand(1);
  app.footer(std::string("\nEXAMPLES\n"
                         "  moraine run                              chat with the embedded model\n"
                         "  moraine run -p \"What is a KV cache?\"     one answer\n"
                         "  moraine COMMAND --help                   all about one command\n\n"
                         "Answers go to stdout, everything else to stderr.\n\n") +
             kExitCodesHelp);
}

/// Help and version are no failures; everything else CLI11 complains about is one line and exit code 2.
int end_of_parsing(const CLI::App& app, const CLI::ParseError& end, Console& console) {
  if (end.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
    std::ostringstream text;
    app.exit(end, text, text);
    console.out(text.str());
    return kExitOk;
  }
  std::string command = "moraine";
  for (const CLI::App* chosen : app.get_subcommands()) command += " " + chosen->get_name();
  console.line(fmt::format("{}; `{} --help` explains", quant::printable(end.what(), 400), command));
  return kExitUsage;
}

}  // namespace

int run_program(int argc, const char* const* argv, Console& console) {
  try {
    CLI::App app("", "moraine");
    Command chosen;
    describe(app);
    add_run_command(app, chosen);
    add_generate_command(app, chosen);
    add_eval_command(app, chosen);
    add_inspect_command(app, chosen);
    add_verify_command(app, chosen);
    add_convert_command(app, chosen);
    add_synth_command(app, chosen);
    add_bench_command(app, chosen);
    add_plan_command(app, chosen);
    add_train_predictor_command(app, chosen);
    add_trace_command(app, chosen);
    add_simulate_command(app, chosen);
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& end) {
      return end_of_parsing(app, end, console);
    }
    return chosen(console);
  } catch (...) {
    const Failure failure = describe_failure(std::current_exception());
    console.line(failure.line);
    return failure.code;
  }
}

}  // namespace moraine::tools
