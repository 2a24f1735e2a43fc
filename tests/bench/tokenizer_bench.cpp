#include <benchmark/benchmark.h>

#include <fstream>
#include <iterator>
#include <string>

#include "quant/error.h"
#include "runtime/tokenizer.h"

// Speed of encoding on one core: MB/s of a text file, and of texts that invite quadratic time.
//   tokenizer_bench MODEL_DIRECTORY TEXT_FILE [--benchmark_filter=…]
namespace moraine::runtime {
namespace {

void encode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.encode(text, AddedTokens::kParse));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}

std::string repeated(const std::string& part, size_t size_bytes) {
  std::string text;
  while (text.size() < size_bytes) text += part;
  return text;
}

int run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc != 3) {
    std::fputs("usage: tokenizer_bench MODEL_DIRECTORY TEXT_FILE\n", stderr);
    return 2;
  }
  const Tokenizer tokenizer = Tokenizer::from_directory(argv[1]);
  std::ifstream in(argv[2], std::ios::binary);
  const std::pair<const char*, std::string> texts[] = {
      {"text", {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()}},
      {"code", repeated("  for (size_t i = 0; i < count; ++i) sum += values[i] * 0x1F;  // adds up\n", 1 << 20)},
      {"chinese", repeated("天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。", 1 << 20)},
      {"a", std::string(1 << 20, 'a')},
      {"spaces", std::string(1 << 20, ' ')},
      {"newlines", std::string(1 << 20, '\n')},
      {"digits", std::string(1 << 20, '7')},
      {"one_chinese_character", repeated("中", 1 << 20)},
      {"marks", "e" + repeated("\u0301\u0323", 1 << 20)},
      {"emoji", repeated("👩", 1 << 20)}};
  for (const auto& [name, text] : texts) {
    benchmark::RegisterBenchmark(name, [&tokenizer, &text = text](benchmark::State& state) {
      encode(state, tokenizer, text);
    })->Unit(benchmark::kMillisecond);
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace moraine::runtime

int main(int argc, char** argv) {
  try {
    return moraine::runtime::run(argc, argv);
  } catch (const moraine::quant::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}
