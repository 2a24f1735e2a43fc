// A model in a GGUF file whose header is arbitrary bytes: configuration, tokenizer, tensors' names and shapes are
// sound, or a quant::Error says why not.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>

#include "fuzz/gguf_mutator.h"
#include "quant/error.h"
#include "quant/gguf.h"
#include "runtime/expert_source.h"
#include "runtime/gguf_config.h"
#include "runtime/gguf_tensors.h"
#include "runtime/gguf_text.h"
#include "runtime/model_config.h"
#include "runtime/tokenizer.h"
#include "runtime/weight_loader.h"

using moraine::quant::Gguf;
using namespace moraine::runtime;

namespace {

/// Zeros that stand behind every input, so that a small one can be the header of a whole model. Its file is one that is
/// zeros without an end.
constexpr uint64_t kTailBytes = 256u << 10;
constexpr const char* kFile = "/dev/zero";

Gguf open(std::span<const uint8_t> data) {
  const auto read = [&](std::span<std::byte> out, uint64_t offset) {
    const size_t n_from_input = offset < data.size() ? std::min<size_t>(out.size(), data.size() - offset) : 0;
    if (n_from_input > 0) std::memcpy(out.data(), data.data() + offset, n_from_input);
    std::memset(out.data() + n_from_input, 0, out.size() - n_from_input);
  };
  return Gguf::from_parts({kFile}, {moraine::quant::parse_gguf(read, data.size() + kTailBytes, kFile)});
}

/// Runs one step of opening a model, which may refuse.
template <typename Step>
void attempt(Step step) {
  try {
    step();
  } catch (const moraine::quant::Error&) {
    return;  // with a message, as it should be
  }
}

void check_tokenizer(const Gguf& gguf) {
  const auto tokenizer = Tokenizer::from_json(gguf_tokenizer_json(gguf), kFile);
  for (const int32_t id : tokenizer.encode("It's 12 \u4e2d <think>", AddedTokens::kParse)) {
    MORAINE_CHECK(id >= 0 && id < tokenizer.vocab_size());
  }
}

/// What `moraine inspect` asks of a model.
void check_shapes(const Gguf& gguf) {
  const auto config = ModelConfig::parse(gguf_config_json(gguf), kFile);
  const moraine::quant::Checkpoint checkpoint = gguf_checkpoint(gguf);
  MORAINE_CHECK(model_shape(checkpoint, config).resident_bytes() > 0);
  const ExpertSource experts = open_expert_source(checkpoint, config, std::nullopt);
  MORAINE_CHECK(experts.records->experts().size() <= checkpoint.tensors().size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n_bytes) {
  attempt([&] {
    const Gguf gguf = open({data, n_bytes});
    attempt([&] { check_tokenizer(gguf); });
    attempt([&] { (void)gguf_tokenizer_config_json(gguf); });
    attempt([&] { (void)gguf_generation_config_json(gguf); });
    attempt([&] { check_shapes(gguf); });
  });
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t n_bytes, size_t max_bytes, unsigned seed) {
  return moraine::fuzz::mutate_gguf_input(data, n_bytes, max_bytes, seed);
}
