// The built program: plan, trace, simulate, train-predictor, end to end on the embedded model.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "offload/file_set.h"
#include "offload/topology.h"
#include "quant/json.h"
#include "support/process.h"
#include "support/temp_dir.h"
#include "support/test_data.h"
#include "tools/bench_machine.h"
#include "tools/machine_record.h"
#include "tools/trace_file.h"

namespace moraine::tools {
namespace {

using quant::Json;
using ::testing::HasSubstr;
using testing::ProcessResult;
using testing::TempDir;

ProcessResult run(std::vector<std::string> args, const std::filesystem::path& cache = "/dev/null/cache") {
  args.insert(args.begin(), MORAINE_BINARY_DIR "/bin/moraine");
  testing::ProcessOptions options{.args = std::move(args)};
  options.environment = {{"XDG_CACHE_HOME", cache.string()}};
  return run_process(std::move(options));
}

Json json_of(const ProcessResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return quant::parse_json(result.out, "stdout");
}

std::string tiny_r1() {
  return testing::tiny_r1().string();
}

std::string r1_config() {
  return testing::test_data("configs/deepseek-r1.json").string();
}

TEST(PlanCommand, PlansR1BeforeItIsDownloaded) {
  const Json plan = json_of(run({"plan", r1_config(), "--experts", "Q4_K", "--resident", "Q8_0", "--ram", "128GiB",
                                 "--nvme", "7GB/s", "--nvme", "7GB/s", "--dram", "250GB/s", "--json"}));
  EXPECT_EQ(plan["machine"]["disk_gb_per_s"], 14.0);
  EXPECT_EQ(plan["experts"]["count"], 58 * 256);
  EXPECT_EQ(plan["decode"]["bound"], "disk");
  EXPECT_FALSE(plan["gains"].empty());
}

TEST(PlanCommand, RefusesWhatCannotFitWithExitCode4) {
  const ProcessResult result = run({"plan", r1_config(), "--ram", "8GiB", "--nvme", "7GB/s", "--dram", "250GB/s"});
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, HasSubstr("resident weights"));
  EXPECT_EQ(result.out, "");
}

TEST(PlanCommand, RefusesNonsense) {
  EXPECT_EQ(run({"plan", r1_config(), "--dram", "fast"}).exit_code, 2);
  EXPECT_EQ(run({"plan", r1_config(), "--nvme", "0GB/s"}).exit_code, 2);
  EXPECT_EQ(run({"plan", "/nowhere"}).exit_code, 3);
}

TEST(PlanCommand, GoesByWhatBenchHasMeasuredHere) {
  const TempDir cache;
  const MachineRecord record{.shares = {.decode_dram = 0.5, .measured_with = "a big model"}};
  write_machine_record(cache / "moraine" / "machine.json", cpu_name(), offload::Topology::detect().core_count, record);
  const std::vector<std::string> args = {"plan",  r1_config(), "--ram",   "128GiB", "--nvme",
                                         "7GB/s", "--dram",    "250GB/s", "--json"};
  const Json here = json_of(run(args, cache.path()));
  EXPECT_EQ(here["shares"]["decode_dram"], 0.5);
  EXPECT_EQ(here["shares"]["measured_with"], "a big model");
  EXPECT_TRUE(json_of(run(args))["shares"]["measured_with"].is_null());
}

TEST(PlanCommand, MeasuresTheMachineOnceAndNotesIt) {
  const TempDir cache;
  const auto file = cache / "moraine" / "machine.json";
  const int cores = offload::Topology::detect().core_count;
  const std::vector<std::string> args = {"plan", r1_config(), "--ram", "128GiB", "--nvme", "7GB/s", "--json"};
  const Json measured = json_of(run(args, cache.path()))["machine"]["dram_read_gb_per_s"];
  const auto noted = read_machine_record(file, cpu_name(), cores);
  ASSERT_TRUE(noted);
  EXPECT_EQ(measured, noted->limits.compute.dram_read_gb_per_s.value());
  const MachineRecord other{.limits = {.compute = {.dram_read_gb_per_s = 1234.5}}};
  write_machine_record(file, cpu_name(), cores, other);
  EXPECT_EQ(json_of(run(args, cache.path()))["machine"]["dram_read_gb_per_s"], 1234.5);
}

TEST(PlanCommand, OneFileSystemIsOneDrive) {
  const TempDir dir;
  std::filesystem::create_directory(dir / "a");
  std::filesystem::create_directory(dir / "b");
  const ProcessResult result = run({"plan", r1_config(), "--ram", "128GiB", "--nvme", dir / "a", "--nvme", dir / "b"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("counted already"));
}

TEST(PlanCommand, MirrorsAreMeasuredWithTheModel) {
  const TempDir mirror;
  std::filesystem::copy(tiny_r1(), mirror.path(), std::filesystem::copy_options::recursive);
  const Json plan = json_of(run({"plan", tiny_r1(), "--stripe", mirror.path(), "--json"}));
  const std::vector file = {std::filesystem::path(tiny_r1()) / "config.json"};
  EXPECT_NE(plan["machine"]["disk_gb_per_s"].is_null(), offload::FileSet(file).direct(0));
  EXPECT_EQ(run({"plan", tiny_r1(), "--stripe", mirror / "absent"}).exit_code, 3);
  EXPECT_EQ(run({"plan", r1_config(), "--ram", "128GiB", "--stripe", mirror.path()}).exit_code, 2) << "not here";
  EXPECT_EQ(run({"plan", tiny_r1(), "--stripe", mirror.path(), "--nvme", "7GB/s"}).exit_code, 2);
}

TEST(PlanCommand, RunTakesThePlanThatIsPrinted) {
  const std::vector<std::vector<std::string>> wishes = {{}, {"--ram-budget", "4MiB"}};
  for (const std::vector<std::string>& wish : wishes) {
    std::vector<std::string> args = {"plan", tiny_r1(), "--json"};
    args.insert(args.end(), wish.begin(), wish.end());
    const Json plan = json_of(run(args));
    args = {"run", tiny_r1(), "-p", "Hello", "--max-tokens", "1"};
    args.insert(args.end(), wish.begin(), wish.end());
    const std::string slots =
        fmt::format("{} of {} in RAM", plan["experts"]["slots"].get<int>(), plan["experts"]["count"].get<int>());
    EXPECT_THAT(run(args).err, HasSubstr(slots));
  }
  EXPECT_EQ(run({"run", tiny_r1(), "-p", "Hello", "--ram-budget", "1KiB"}).exit_code, 4);
}

TEST(ContextFlag, BoundsTheConversation) {
  const ProcessResult result = run({"generate", tiny_r1(), "-p", "What is io_uring?", "--context", "4"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("--context"));
  const Json answer = json_of(run({"generate", tiny_r1(), "-p", "What is io_uring?", "--context", "24", "--json"}));
  EXPECT_EQ(answer["finish_reason"], "context");
}

TEST(TraceCommand, RecordsDrawsAndDrivesTheSimulator) {
  const TempDir dir;
  const std::string trace = (dir / "trace.json").string(), page = (dir / "trace.html").string();
  const ProcessResult plain = run({"generate", tiny_r1(), "-p", "What is io_uring?", "--temp", "0"});
  const ProcessResult traced =
      run({"generate", tiny_r1(), "-p", "What is io_uring?", "--temp", "0", "--trace", trace, "--ram-budget", "4MiB"});
  EXPECT_EQ(traced.exit_code, 0) << traced.err;
  EXPECT_EQ(traced.out, plain.out) << "a trace changes nothing";
  EXPECT_TRUE(quant::read_json(trace).is_array());
  const RoutingTrace routing = read_routing(trace);
  EXPECT_EQ(routing.shape, (RoutingShape{.moe_layers = 7, .n_experts = 32, .top_k = 4}));

  const ProcessResult drawn = run({"trace", trace, page});
  EXPECT_EQ(drawn.exit_code, 0) << drawn.err;
  EXPECT_THAT(drawn.out, HasSubstr("% hits"));
  EXPECT_THAT(testing::file_content(page), HasSubstr("<svg"));

  const std::vector<std::string> machine = {"--ram", "16GiB", "--ram-budget", "4MiB", "--nvme", "1GB/s", "--json"};
  std::vector<std::string> same = {"simulate", "--model", tiny_r1(), "--trace", trace, "--tokens", "50"};
  same.insert(same.end(), machine.begin(), machine.end());
  const ProcessResult first = run(same);
  EXPECT_GT(json_of(first)["tokens_per_s"].get<double>(), 0.0);
  EXPECT_EQ(first.out, run(same).out) << "deterministic";
  EXPECT_EQ(run({"trace", r1_config()}).exit_code, 3);
}

TEST(SimulateCommand, R1FromAnotherModelsTrace) {
  const Json result = json_of(run({"simulate", "--ram", "128GiB", "--nvme", "7GB/s", "--drives", "2", "--warm-up", "20",
                                   "--tokens", "10", "--json"}));
  EXPECT_EQ(result["tokens"], 10);
  EXPECT_GT(result["tokens_per_s"].get<double>(), 0.0);
  EXPECT_EQ(run({"simulate", "--nvme", "7GB/s"}).exit_code, 2);
}

TEST(SimulateCommand, TheTableHasTheSameBytesEveryTime) {
  const std::vector<std::string> args = {"simulate", "--nvme", "7GB/s", "--table", "--warm-up", "15", "--tokens", "5"};
  const ProcessResult first = run(args);
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(std::count(first.out.begin(), first.out.end(), '\n'), 7) << first.out;
  EXPECT_THAT(first.out, HasSubstr("| 384 GB |"));
  EXPECT_EQ(first.out, run(args).out);
  std::vector<std::string> other = args;
  other.insert(other.end(), {"--seed", "2"});
  EXPECT_NE(first.out, run(other).out);
}

/// Prompts and answers of the problems the model was trained on.
std::string tasks_text() {
  std::string text, line;
  std::ifstream lines(testing::test_data("oracle/tasks.jsonl"));
  while (std::getline(lines, line)) {
    const Json task = Json::parse(line);
    text += task["prompt"].get<std::string>() + "\n" + task["answer"].get<std::string>() + "\n";
  }
  return text;
}

TEST(RecallSlow, NextLayersExpertsAreToldAhead) {
  const TempDir dir;
  std::ofstream(dir / "text") << tasks_text();
  const std::string text = (dir / "text").string(), file = (dir / "p.safetensors").string();
  const Json recall = json_of(run({"eval", "recall", tiny_r1(), text, "--json"}));
  const double early = recall["sources"]["post-attention"]["recall"];
  EXPECT_GT(early, 0.5) << "chance is 4 of 32";
  EXPECT_EQ(recall["sources"]["post-attention"]["layers"].size(), 6u);
  EXPECT_GT(recall["sources"]["own input"]["recall"].get<double>(), early);

  const Json trained = json_of(run({"train-predictor", tiny_r1(), "--text", text, "--out", file, "--json"}));
  const bool saved = trained["gain"].get<double>() >= 0.03;
  EXPECT_EQ(saved, std::filesystem::exists(file));
  EXPECT_EQ(saved, trained["saved"].is_string());
  if (!saved) return;
  const Json with = json_of(run({"eval", "recall", tiny_r1(), text, "--predictor", file, "--json"}));
  EXPECT_GE(with["sources"]["trained"]["recall"].get<double>(), early + 0.03);
}

}  // namespace
}  // namespace moraine::tools
