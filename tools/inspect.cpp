#include <CLI/Formatter.hpp>
#include <memory>

#include "tools/commands.h"
#include "tools/console.h"
#include "tools/exit_codes.h"
#include "tools/inspection.h"
#include "tools/stats_json.h"

namespace moraine::tools {
namespace {

struct InspectCommand {
  std::filesystem::path model;
  std::optional<quant::DType> experts;
  std::optional<quant::DType> resident;
  bool tensors = false;
  bool json = false;
};

int inspect(const InspectCommand& options, Console& console) {
  const Inspection inspection = inspect_model(options.model, options.experts, options.resident);
  for (const std::string& warning : inspection.warnings) console.line("warning: " + warning);
  console.out(options.json ? json_text(inspection_json(inspection, options.tensors))
                           : inspection_text(inspection, options.tensors));
  return kExitOk;
}

}  // namespace

void add_inspect_command(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand("inspect", "Show a model's configuration, tensors and sizes");
  const auto options = std::make_shared<InspectCommand>();
  add_model_argument(*command, options->model, ModelArgument::kRequired);
  add_experts_flag(*command, options->experts,
                   "Show what quantizing a directory's experts to this type would give:\nF8_E4M3, BF16, Q8_0, Q6_K, "
                   "Q5_K, Q4_K, IQ4_XS, Q3_K or Q2_K "
                   "(default: as stored)");
  add_resident_flag(*command, options->resident);
  command->add_flag("--tensors", options->tensors, "List every tensor");
  add_json_flag(*command, options->json,
                "Print one JSON object: model, kind, pack, config, mtp, experts, resident, tiers, groups, …");
  set_help_footer(*command,
                  "  moraine inspect ~/models/DeepSeek-R1 --experts Q4_K\n"
                  "  moraine inspect DeepSeek-R1/config.json\n"
                  "  moraine inspect ~/models/pack --json | jq .tiers\n");
  command->callback(
      [options, &chosen] { chosen = [options](Console& console) { return inspect(*options, console); }; });
}

}  // namespace moraine::tools
