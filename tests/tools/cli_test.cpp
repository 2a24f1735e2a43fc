// The built program, end to end, on the embedded model: what issue "first light" says it must show.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "quant/json.h"
#include "quant/safetensors.h"
#include "support/process.h"
#include "support/temp_dir.h"
#include "support/test_data.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using quant::Json;
using testing::Process;
using testing::ProcessOptions;
using testing::ProcessResult;
using testing::TempDir;

const char* const kQuestion = "What is io_uring?";

/// Options to run `moraine` with these arguments, its history kept out of the tester's home.
ProcessOptions moraine(std::vector<std::string> args, std::string input = {}) {
  args.insert(args.begin(), MORAINE_BINARY_DIR "/bin/moraine");
  ProcessOptions options{.args = std::move(args), .input = std::move(input)};
  options.environment = {{"NO_COLOR", "1"}, {"TERM", "xterm"}};
  return options;
}

ProcessResult run(std::vector<std::string> args, std::string input = {}) {
  return run_process(moraine(std::move(args), std::move(input)));
}

std::string tiny_r1() {
  return testing::tiny_r1().string();
}

Json json_of(const ProcessResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return quant::parse_json(result.out, "stdout");
}

void expect_one_line(const ProcessResult& result, int exit_code, std::initializer_list<std::string> parts) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  EXPECT_TRUE(result.err.starts_with("moraine: ")) << result.err;
  for (const std::string& part : parts) {
    EXPECT_NE(result.err.find(part), std::string::npos) << "'" << part << "' is not in: " << result.err;
  }
}

void write_text(const fs::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << text;
}

/// A copy of the embedded model, to be broken.
class BrokenModel : public ::testing::Test {
 protected:
  BrokenModel() { fs::copy(testing::tiny_r1(), model()); }

  fs::path model() const { return directory_ / "model"; }
  fs::path shard(int number) const { return model() / fmt::format("model-{:05}-of-00004.safetensors", number); }

  /// The same refusal from every command that opens a model.
  void expect_refused(std::initializer_list<std::string> parts) const {
    for (const std::vector<std::string>& args :
         std::vector<std::vector<std::string>>{{"generate", model(), "-p", "Hi"},
                                               {"run", model(), "-p", "Hi"},
                                               {"convert", model(), directory_ / "pack", "--experts", "Q8_0"}}) {
      expect_one_line(run(args), 3, parts);
    }
    EXPECT_FALSE(fs::exists(directory_ / "pack"));
  }

  void edit_config(const std::function<void(Json&)>& edit) const {
    Json config = quant::read_json(model() / "config.json");
    edit(config);
    write_text(model() / "config.json", config.dump());
  }

  /// Changes the header of a shard; its data keeps its place behind it.
  void edit_header(int number, const std::function<void(Json&)>& edit) const {
    const std::string bytes = testing::file_content(shard(number));
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
    Json header = Json::parse(bytes.substr(8, header_bytes));
    edit(header);
    const std::string text = header.dump();
    const uint64_t text_bytes = text.size();
    std::string edited(8, '\0');
    std::memcpy(edited.data(), &text_bytes, sizeof text_bytes);
    write_text(shard(number), edited + text + bytes.substr(8 + header_bytes));
  }

  /// Name of a tensor of that shard that is FP8 and belongs to the main model.
  std::string some_tensor(int number) const {
    const auto checkpoint = quant::Checkpoint::open(model());
    for (const auto& [name, tensor] : checkpoint.tensors()) {
      const bool here = checkpoint.files()[static_cast<size_t>(tensor.file)] == shard(number);
      if (here && tensor.dtype == quant::DType::kF8E4M3 && !name.starts_with("model.layers.8.")) return name;
    }
    throw std::runtime_error("no tensor in the shard");
  }

  TempDir directory_;
};

TEST_F(BrokenModel, AllMissingShardsAreNamed) {
  fs::remove(shard(2));
  fs::remove(shard(4));
  expect_refused({"model-00002-of-00004.safetensors", "model-00004-of-00004.safetensors"});
}

TEST_F(BrokenModel, ATruncatedFileIsRefused) {
  fs::resize_file(shard(3), fs::file_size(shard(3)) - 100);
  expect_refused({"model-00003-of-00004.safetensors"});
}

TEST_F(BrokenModel, BadJsonIsRefusedWithItsPlace) {
  write_text(model() / "config.json", "{\"model_type\": \"deepseek_v3\",");
  expect_refused({"config.json"});
}

TEST_F(BrokenModel, BadJsonInTheTokenizerIsRefused) {
  write_text(model() / "tokenizer.json", testing::file_content(model() / "tokenizer.json").substr(0, 1000));
  expect_refused({"tokenizer.json"});
}

TEST_F(BrokenModel, AWrongDtypeIsRefusedByName) {
  const std::string name = some_tensor(1);
  edit_header(1, [&](Json& header) { header[name]["dtype"] = "I8"; });
  expect_refused({name, "I8"});
}

TEST_F(BrokenModel, AWrongShapeIsRefusedByName) {
  const std::string name = some_tensor(1);
  edit_header(1, [&](Json& header) { std::swap(header[name]["shape"][0], header[name]["shape"][1]); });
  const auto shape = quant::Checkpoint::open(model()).at(name).shape;
  if (shape[0] == shape[1]) GTEST_SKIP() << name << " is square";
  expect_refused({name});
}

TEST_F(BrokenModel, OverlappingOffsetsAreRefused) {
  const std::string name = some_tensor(1);
  edit_header(1, [&](Json& header) {
    for (auto& end : header[name]["data_offsets"]) end = end.get<uint64_t>() + 1;
  });
  expect_refused({"model-00001-of-00004.safetensors"});
}

TEST_F(BrokenModel, SizesThatOverflowAreRefusedWithoutAllocating) {
  const std::string name = some_tensor(1);
  edit_header(1, [&](Json& header) { header[name]["shape"] = {uint64_t{1} << 40, uint64_t{1} << 40}; });
  ProcessOptions options = moraine({"generate", model(), "-p", "Hi"});
  const ProcessResult result = run_process(options);
  expect_one_line(result, 3, {"model-00001-of-00004.safetensors"});
  EXPECT_LT(result.peak_rss_bytes, uint64_t{1} << 30);
}

TEST_F(BrokenModel, ATokenizerWithMoreTokensThanTheModelIsRefused) {
  Json tokenizer = quant::read_json(model() / "tokenizer.json");
  tokenizer["added_tokens"].push_back({{"id", 5000},
                                       {"content", "<extra>"},
                                       {"single_word", false},
                                       {"lstrip", false},
                                       {"rstrip", false},
                                       {"normalized", false},
                                       {"special", false}});
  write_text(model() / "tokenizer.json", tokenizer.dump());
  expect_refused({"tokenizer", "768"});
}

TEST_F(BrokenModel, AnUnknownArchitectureIsRefusedByName) {
  edit_config([](Json& config) {
    config["model_type"] = "gpt9";
    config["architectures"] = {"Gpt9ForCausalLM"};
  });
  expect_refused({"gpt9"});
}

TEST_F(BrokenModel, NoModelAtAll) {
  expect_one_line(run({"generate", directory_ / "nowhere", "-p", "Hi"}), 3, {"nowhere"});
}

TEST_F(BrokenModel, VerifyNamesWhatIsBroken) {
  const std::string name = some_tensor(2);
  const auto checkpoint = quant::Checkpoint::open(model());
  const quant::TensorInfo& tensor = checkpoint.at(name);
  std::string bytes = testing::file_content(shard(2));
  bytes[tensor.offset] = '\x7F';  // NaN in e4m3
  write_text(shard(2), bytes);
  const ProcessResult result = run({"verify", model()});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_NE(result.err.find(name), std::string::npos) << result.err;
}

// ---- a synthetic model ----------------------------------------------------------------------------------------------

TEST(Synth, MakesAPackThatEveryCommandOpens) {
  const TempDir dir;
  const std::string pack = dir / "pack";
  const std::vector<std::string> command = {"synth",          pack, "--preset",     "tiny",
                                            "--dense-layers", "1",  "--moe-layers", "2"};
  const ProcessResult made = run(command);
  EXPECT_EQ(made.exit_code, 0) << made.err;
  EXPECT_EQ(made.out, "");
  EXPECT_EQ(run({"verify", pack}).exit_code, 0);
  const Json inspected = json_of(run({"inspect", pack, "--json"}));
  EXPECT_EQ(inspected.at("experts").at("type"), "Q4_K (down Q4_0)");
  EXPECT_EQ(inspected.at("config").at("num_hidden_layers"), 3);
  const Json answer = json_of(run({"generate", pack, "-p", "Hi", "--max-tokens", "3", "--temp", "0", "--json"}));
  EXPECT_FALSE(answer.at("ids").empty());
  EXPECT_NE(run(command).err.find("already holds this model"), std::string::npos);
  expect_one_line(run({"synth", pack, "--preset", "tiny"}), 2, {"other options"});
  expect_one_line(run({"synth", pack, "--preset", "gpt-9"}), 2, {"no such preset", "r1-671b, tiny, v2-lite"});
}

TEST(Resident, IsQuantizedOnLoadAndMeansTheSameInEveryCommand) {
  const auto resident_bytes = [](const std::vector<std::string>& flags) {
    std::vector<std::string> args = {"inspect", tiny_r1(), "--json"};
    args.insert(args.end(), flags.begin(), flags.end());
    return json_of(run(args)).at("tiers").at("resident_bytes").get<uint64_t>();
  };
  EXPECT_GT(resident_bytes({"--resident", "BF16"}), resident_bytes({"--resident", "q8_0"}));
  EXPECT_EQ(resident_bytes({"--resident", "F8_E4M3"}), resident_bytes({}));
  for (const char* type : {"Q8_0", "BF16", "F8_E4M3"}) {
    const Json answer = json_of(run({"generate", tiny_r1(), "-p", kQuestion, "--resident", type, "--precise",
                                     "--max-tokens", "5", "--temp", "0", "--json"}));
    EXPECT_EQ(answer.at("ids").size(), 5u) << type;
  }
  expect_one_line(run({"generate", tiny_r1(), "-p", "Hi", "--resident", "Q2_K"}), 2,
                  {"not a type for resident weights", "Q8_0, BF16, F8_E4M3, Q6_K"});
}

/// A pack of the embedded model, made once.
class PackedModel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempDir();
    const ProcessResult made = run({"convert", tiny_r1(), pack(), "--experts", "Q8_0"});
    ASSERT_EQ(made.exit_code, 0) << made.err;
  }
  static void TearDownTestSuite() {
    delete shared_;
    shared_ = nullptr;
  }
  static fs::path pack() { return *shared_ / "pack"; }

  static std::vector<int> answer_ids(const std::vector<std::string>& flags) {
    std::vector<std::string> args = {"generate", pack(),         "-p", kQuestion, "--temp",
                                     "0",        "--max-tokens", "60", "--json"};
    args.insert(args.end(), flags.begin(), flags.end());
    return json_of(run(args)).at("ids").get<std::vector<int>>();
  }

  TempDir directory_;
  static TempDir* shared_;
};
TempDir* PackedModel::shared_ = nullptr;

/// Left out of sanitizer runs: they take long there, or measure memory.
class PackedModelSlow : public PackedModel {};

TEST_F(PackedModel, Verifies) {
  const ProcessResult result = run({"verify", pack()});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(result.out.starts_with("ok: 256 expert records, ")) << result.out;  // 7 layers and the MTP layer
  EXPECT_EQ(json_of(run({"verify", pack(), "--json"})).at("ok"), true);
}

TEST_F(PackedModel, AnswersLikeTheDirectoryQuantizedOnLoad) {
  const std::vector<std::string> question = {"-p", kQuestion, "--temp", "0"};
  std::vector<std::string> from_pack = {"generate", pack()};
  std::vector<std::string> from_directory = {"generate", tiny_r1(), "--experts", "Q8_0"};
  from_pack.insert(from_pack.end(), question.begin(), question.end());
  from_directory.insert(from_directory.end(), question.begin(), question.end());
  const ProcessResult packed = run(from_pack);
  EXPECT_EQ(packed.exit_code, 0) << packed.err;
  EXPECT_GT(packed.out.size(), 10u);
  EXPECT_EQ(packed.out, run(from_directory).out);
}

TEST_F(PackedModelSlow, TheSameTokensForEveryBudgetReaderAndThreadCount) {
  const Json sizes = json_of(run({"inspect", pack(), "--json"}));
  const auto record_bytes = sizes.at("experts").at("record_bytes").get<uint64_t>();
  const auto count = sizes.at("experts").at("count").get<uint64_t>();
  const std::vector<int> expected = answer_ids({"--reference"});
  EXPECT_GT(expected.size(), 20u);
  for (const uint64_t slots : {count, count / 2, uint64_t{4}}) {
    for (const char* reader : {"auto", "pread"}) {
      for (const char* threads : {"1", "2"}) {
        EXPECT_EQ(answer_ids(
                      {"--ram-budget", std::to_string(slots * record_bytes), "--reader", reader, "--threads", threads}),
                  expected)
            << slots << " slots, " << reader << ", " << threads << " threads";
      }
    }
  }
}

TEST_F(PackedModel, ABudgetBelowOneLayersExpertsIsRefusedWithNumbers) {
  const ProcessResult result = run({"generate", pack(), "-p", "Hi", "--ram-budget", "100kB"});
  expect_one_line(result, 4, {"4 experts", "100000", "--ram-budget"});
}

TEST_F(PackedModelSlow, PeakMemoryStaysUnderResidentPlusBudgetPlus150MB) {
  const Json sizes = json_of(run({"inspect", pack(), "--json"}));
  const auto resident_bytes = sizes.at("tiers").at("resident_bytes").get<uint64_t>();
  const uint64_t budget_bytes = 4 * sizes.at("experts").at("record_bytes").get<uint64_t>();
  const ProcessResult result =
      run({"generate", pack(), "-p", kQuestion, "--temp", "0", "--ram-budget", std::to_string(budget_bytes)});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_LE(result.peak_rss_bytes, resident_bytes + budget_bytes + 150'000'000);
}

TEST_F(PackedModel, WithoutIoUringItReadsWithPreadAndSaysSo) {
  ProcessOptions options =
      moraine({"generate", pack(), "-p", kQuestion, "--temp", "0", "--max-tokens", "60", "--json"});
  options.refuse_io_uring = true;
  const ProcessResult result = run_process(options);
  EXPECT_EQ(json_of(result).at("ids").get<std::vector<int>>(), answer_ids({}));
  EXPECT_NE(result.err.find("io_uring"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("pread"), std::string::npos) << result.err;
  options.args.insert(options.args.end(), {"--reader", "io_uring"});
  EXPECT_NE(run_process(options).exit_code, 0);
}

TEST_F(PackedModel, AFlippedBitIsNamedByVerifyAndNeverBecomesText) {
  const fs::path broken = directory_ / "broken";
  fs::copy(pack(), broken);
  const fs::path file = broken / "experts-00003.bin";
  std::string bytes = testing::file_content(file);
  const size_t record_bytes = bytes.size() / 32;
  for (size_t expert = 0; expert < 32; ++expert) bytes[expert * record_bytes + 1234] ^= 1;
  write_text(file, bytes);

  const ProcessResult verified = run({"verify", broken});
  EXPECT_EQ(verified.exit_code, 6);
  for (int expert = 0; expert < 32; ++expert) {
    EXPECT_NE(verified.err.find(fmt::format("'layer 3 expert {}'", expert)), std::string::npos)
        << expert << verified.err;
  }
  const ProcessResult answered = run({"generate", broken, "-p", "Hi"});
  EXPECT_EQ(answered.exit_code, 6);
  EXPECT_EQ(answered.out, "");
  EXPECT_NE(answered.err.find("layer 3 expert "), std::string::npos) << answered.err;
}

TEST_F(PackedModel, AConversionThatCannotBeWrittenToTheEndIsResumed) {
  const fs::path target = directory_ / "pack";
  ProcessOptions options = moraine({"convert", tiny_r1(), target, "--experts", "Q8_0"});
  options.file_size_limit_bytes = 3'000'000;  // one expert file is larger
  const ProcessResult stopped = run_process(options);
  EXPECT_TRUE(stopped.exit_code == 4 || stopped.exit_code == 5) << stopped.exit_code << stopped.err;
  EXPECT_FALSE(fs::exists(target / "moraine_pack.json"));
  const ProcessResult resumed = run({"convert", tiny_r1(), target, "--experts", "Q8_0"});
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_NE(resumed.err.find("going on"), std::string::npos) << resumed.err;
  size_t files = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(pack())) {
    EXPECT_EQ(testing::file_content(target / entry.path().filename()), testing::file_content(entry.path()))
        << entry.path();
    ++files;
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(target), fs::directory_iterator()),
            static_cast<std::ptrdiff_t>(files));
}

TEST_F(PackedModel, ConvertingAgainSaysThatItIsDone) {
  const ProcessResult again = run({"convert", tiny_r1(), pack(), "--experts", "Q8_0"});
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_NE(again.err.find("finished"), std::string::npos) << again.err;
  expect_one_line(run({"convert", tiny_r1(), pack(), "--experts", "Q4_K"}), 2, {"another --experts"});
}

TEST_F(PackedModel, ATargetThatCannotBeWrittenIsAnError) {
  expect_one_line(run({"convert", tiny_r1(), "/proc/pack", "--experts", "Q8_0"}), 5, {"/proc/pack"});
}

TEST_F(PackedModel, InspectSaysWhatItHolds) {
  const ProcessResult result = run({"inspect", pack()});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("Moraine pack"), std::string::npos);
  EXPECT_NE(result.out.find("experts are Q8_0"), std::string::npos) << result.out;
}

TEST(Cli, RunAnswersWithTheEmbeddedModelAndKeepsStdoutForTheAnswer) {
  const ProcessResult result = run({"run", "-p", kQuestion, "--temp", "0"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_GT(result.out.size(), 10u);
  EXPECT_EQ(result.out.find("<think>"), std::string::npos);
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1) << result.out;
  EXPECT_NE(result.err.find("expert hits"), std::string::npos) << result.err;
  EXPECT_EQ(result.out, run({"generate", tiny_r1(), "-p", kQuestion, "--temp", "0"}).out);
}

TEST(Cli, LinesOfAPipeAreTurnsAndCommands) {
  const TempDir directory;
  const std::string file = directory / "chat.json";
  const ProcessResult result = run({"run", "--temp", "0", "--thinking", "folded"},
                                   std::string(kQuestion) + "\n/save " + file + "\n/load " + file +
                                       "\n/clear\n/stats\n/help\n/nonsense\n/think\nWho are you?\n/exit\nnever read\n");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 2) << result.out;
  for (const char* part : {"thought for", "2 messages saved", "2 messages loaded", "bytes_read", "/load FILE",
                           "unknown command /nonsense", "thinking is hidden"}) {
    EXPECT_NE(result.err.find(part), std::string::npos) << part << ": " << result.err;
  }
  const Json chat = quant::read_json(file);
  EXPECT_EQ(chat.at("messages").size(), 2u);
  EXPECT_EQ(chat.at("messages")[0].at("content"), kQuestion);
}

TEST(Cli, ARunWithTheSameSeedGivesTheSameAnswer) {
  const auto answer = [](const char* seed) {
    return run({"generate", tiny_r1(), "-p", "Tell me a joke.", "--temp", "1.5", "--top-p", "1", "--seed", seed,
                "--max-tokens", "60", "--json"});
  };
  const Json first = json_of(answer("1"));
  EXPECT_EQ(first.at("ids"), json_of(answer("1")).at("ids"));
  EXPECT_NE(first.at("ids"), json_of(answer("2")).at("ids"));
}

TEST(Cli, GenerateTakesFilesStandardInputAndRawText) {
  const TempDir directory;
  const auto file = directory.write("prompt.txt", kQuestion);
  const std::string expected = run({"generate", tiny_r1(), "-p", kQuestion, "--temp", "0"}).out;
  EXPECT_EQ(run({"generate", tiny_r1(), "--file", file, "--temp", "0"}).out, expected);
  EXPECT_EQ(run({"generate", tiny_r1(), "--file", "-", "--temp", "0"}, kQuestion).out, expected);
  const ProcessResult raw = run({"generate", tiny_r1(), "-p", "Once", "--raw", "--max-tokens", "5", "--temp", "0"});
  EXPECT_EQ(raw.exit_code, 0) << raw.err;
  EXPECT_NE(raw.out, "\n");
  EXPECT_EQ(run({"generate", tiny_r1(), "--file", directory / "none.txt"}).exit_code, 3);
}

TEST(Cli, GenerateJsonHasTheWholeAnswer) {
  const Json json = json_of(run({"generate", tiny_r1(), "-p", kQuestion, "--temp", "0", "--json"}));
  EXPECT_EQ(json.at("model"), "tiny-r1");
  EXPECT_EQ(json.at("finish_reason"), "stop");
  EXPECT_EQ(json.at("ids").size(), json.at("output_tokens").get<size_t>());
  EXPECT_GT(json.at("thinking").get<std::string>().size(), 0u);
  EXPECT_GT(json.at("answer").get<std::string>().size(), 0u);
  EXPECT_TRUE(json.at("stats").at("store").contains("hits"));
}

TEST(Cli, AnAnswerThatCannotBeWrittenIsAnError) {
  ProcessOptions options = moraine({"generate", tiny_r1(), "-p", kQuestion, "--temp", "0"});
  options.out_file = "/dev/full";
  const ProcessResult result = run_process(options);
  EXPECT_EQ(result.exit_code, 4) << result.err;
  EXPECT_NE(result.err.find("standard output"), std::string::npos) << result.err;
}

TEST(Cli, EvalLogitsWritesAnArrayAndTheRoutes) {
  const TempDir directory;
  const std::string out = directory / "logits.npy";
  const std::string routes = directory / "routes.json";
  const ProcessResult result = run({"eval", "logits", tiny_r1(), "--ids", "0,3,17", "--out", out, "--routes", routes});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const std::string bytes = testing::file_content(out);
  EXPECT_NE(bytes.find("'shape': (3, 768)"), std::string::npos);
  EXPECT_EQ((bytes.size() - 3 * 768 * 4) % 64, 0u);
  const Json json = quant::read_json(routes);
  EXPECT_EQ(json.at("layers").size(), 7u);
  EXPECT_EQ(json.at("layers").at("7").at("topk").size(), 3u);
  EXPECT_EQ(json.at("layers").at("7").at("topk")[2].size(), 4u);
  expect_one_line(run({"eval", "logits", tiny_r1(), "--ids", "0,768", "--out", out}), 2, {"768"});
  EXPECT_EQ(run({"eval", "logits", tiny_r1(), "--ids", "0", "--out", "/proc/none/f.npy"}).exit_code, 5);
}

TEST(Cli, EvalTasksCountsRightAnswers) {
  const TempDir directory;
  const auto file =
      directory.write("tasks.jsonl", R"({"task": "chat", "prompt": "What is 6 * 7?", "answer": "42"})"
                                     "\n"
                                     R"({"task": "no", "prompt": "What is 6 * 7?", "answer": "forty-two"})"
                                     "\n");
  const Json json = json_of(run({"eval", "tasks", tiny_r1(), file, "--json"}));
  EXPECT_EQ(json.at("right"), 1);
  EXPECT_EQ(json.at("of"), 2);
  EXPECT_EQ(json.at("by_task").at("chat").at("right"), 1);
  EXPECT_EQ(json.at("answers")[1], "42");
  const ProcessResult limited = run({"eval", "tasks", tiny_r1(), file, "--limit", "1"});
  EXPECT_NE(limited.out.find("100.0 %  1 of 1"), std::string::npos) << limited.out;
}

/// Programs that a signal reaches while they answer.
ProcessOptions long_answer() {
  return moraine(
      {"generate", tiny_r1(), "-p", "Hello!", "--raw", "--temp", "1.5", "--top-p", "1", "--max-tokens", "8000"});
}

TEST(Cli, SignalsOutsideAChatEndTheProgramWithTheirCode) {
  for (const auto& [number, code] : {std::pair(SIGINT, 130), std::pair(SIGTERM, 143), std::pair(SIGHUP, 129)}) {
    Process process(long_answer());
    process.wait_for("resident");
    process.signal(number);
    EXPECT_EQ(process.wait().exit_code, code);
  }
}

class Terminal : public ::testing::Test {
 protected:
  static ProcessOptions chat(const std::vector<std::string>& flags = {}) {
    std::vector<std::string> args = {"run", tiny_r1()};
    args.insert(args.end(), flags.begin(), flags.end());
    ProcessOptions options = moraine(args);
    options.terminal = true;
    return options;
  }
};

TEST_F(Terminal, CtrlCAtTheEmptyPromptLeaves) {
  Process process(chat());
  process.wait_for("> ");
  process.type("\x03");
  EXPECT_EQ(process.wait().exit_code, 130);
}

TEST_F(Terminal, AHangUpAtThePromptLeaves) {
  Process process(chat());
  process.wait_for("> ");
  process.signal(SIGHUP);
  EXPECT_EQ(process.wait().exit_code, 129);
}

TEST_F(Terminal, CtrlDLeaves) {
  Process process(chat());
  process.wait_for("> ");
  process.type("\x04");
  EXPECT_EQ(process.wait().exit_code, 0);
}

TEST_F(Terminal, CtrlCBehindTextThrowsTheTextAway) {
  Process process(chat());
  process.wait_for("> ");
  process.type("some text");
  process.wait_for("some text");
  process.type("\x03");
  process.wait_for("> ");
  process.type("/exit\r");
  EXPECT_EQ(process.wait().exit_code, 0);
}

TEST_F(Terminal, CtrlCStopsAnAnswerAndKeepsTheChat) {
  Process process(
      chat({"--temp", "1.5", "--top-p", "1", "--seed", "3", "--max-tokens", "8000", "--reference", "--threads", "1"}));
  process.wait_for("> ");
  process.type("What is 3 + 4?\r");
  process.wait_for("\n");
  process.type("\x03");
  process.wait_for("context");
  process.wait_for("> ");
  process.type("/help\r");
  process.wait_for("/load FILE");
  process.wait_for("> ");
  process.type("\x04");
  EXPECT_EQ(process.wait().exit_code, 0);
}

TEST_F(Terminal, LinesAreKeptInTheHistory) {
  const TempDir state;
  ProcessOptions options = chat();
  options.environment.emplace_back("XDG_STATE_HOME", state.path());
  {
    Process process(options);
    process.wait_for("> ");
    process.type("/help\r");
    process.wait_for("/load FILE");
    process.wait_for("> ");
    process.type("\x04");
    EXPECT_EQ(process.wait().exit_code, 0);
  }
  const fs::path history = state / "moraine/history";
  EXPECT_NE(testing::file_content(history).find("/help"), std::string::npos);
  EXPECT_EQ(fs::status(history).permissions() & (fs::perms::group_all | fs::perms::others_all), fs::perms::none);
  Process process(options);
  process.wait_for("> ");
  process.type("\x1b[A\r");  // the line before
  process.wait_for("/load FILE");
  process.wait_for("> ");
  process.type("\x04");
  EXPECT_EQ(process.wait().exit_code, 0);
}

}  // namespace
}  // namespace moraine::tools
