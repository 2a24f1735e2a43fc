#include "runtime/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "quant/error.h"
#include "runtime/engine.h"
#include "runtime/token_stream.h"

namespace moraine::runtime {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Turns sampled ids into events: UTF-8 whole, thinking told from answer, markers without text.
class AnswerText {
 public:
  AnswerText(const Engine& engine, std::span<const int32_t> prompt, const GenerateCallbacks& callbacks,
             GenerateResult& result)
      : text_(engine.text()), stream_(engine.tokenizer()), callbacks_(callbacks), result_(result) {
    // R1's template ends the prompt inside <think>: whichever marker stands last decides.
    for (auto id = prompt.rbegin(); id != prompt.rend() && !thinking_; ++id) {
      if (text_.end_think_token && *id == *text_.end_think_token) break;
      thinking_ = text_.think_token && *id == *text_.think_token;
    }
  }

  void add(int32_t id) {
    const bool opens = text_.think_token && id == *text_.think_token;
    const bool closes = text_.end_think_token && id == *text_.end_think_token;
    if (opens || closes) {
      emit(id, stream_.finish());
      thinking_ = opens;
    } else if (std::binary_search(text_.stop_tokens.begin(), text_.stop_tokens.end(), id)) {
      emit(id, stream_.finish());
    } else {
      emit(id, stream_.push(id));
    }
  }

  /// What is still held back when the answer is cut off.
  void finish() {
    const std::string rest = stream_.finish();
    if (!rest.empty()) emit(result_.ids.back(), rest);
  }

 private:
  void emit(int32_t id, const std::string& text) {
    (thinking_ ? result_.thinking : result_.answer) += text;
    if (callbacks_.on_token) callbacks_.on_token({.id = id, .text = text, .thinking = thinking_});
  }

  const ModelText& text_;
  TokenStream stream_;
  const GenerateCallbacks& callbacks_;
  GenerateResult& result_;
  bool thinking_ = false;
};

void check_prompt(const Engine& engine, std::span<const int32_t> prompt) {
  const ModelConfig& config = engine.config();
  const auto fail = [](const std::string& what, const std::string& action = {}) {
    throw quant::Error(quant::ErrorKind::kUsage, {.what = what, .action = action});
  };
  if (prompt.empty()) fail("the prompt has no tokens", "give a text to answer");
  const auto length = static_cast<int64_t>(prompt.size());
  const int64_t holds = engine.context_tokens();
  if (length >= holds && holds < config.max_position_embeddings) {
    fail(fmt::format("the prompt has {} tokens; memory was planned for a context of {}", length, holds),
         fmt::format("shorten it, or ask for room with --context (at most {})", config.max_position_embeddings));
  }
  if (length >= holds) {
    fail(fmt::format("the prompt has {} tokens; this model's context holds {}", length, holds), "shorten it");
  }
  for (const int32_t id : prompt) {
    if (id < 0 || id >= config.vocab_size) {
      fail(fmt::format("token id {} is outside the vocabulary of {}", id, config.vocab_size));
    }
  }
}

/// Runs the tokens that are not in the session yet through the model, in chunks; logits of the last one.
void prefill(Engine& engine, Session& session, std::span<const int32_t> prompt, const GenerateCallbacks& callbacks,
             std::span<float> logits) {
  const auto total = static_cast<int64_t>(prompt.size());
  int64_t position = static_cast<int64_t>(session.tokens().size());
  while (position < total) {
    const int32_t rows = engine.transformer().next_chunk_rows(position, total - position);
    const int64_t end = position + rows;
    const auto ids = prompt.subspan(static_cast<size_t>(position), static_cast<size_t>(rows));
    const SequenceSlice slice{&session.cache(), position, 0, rows};
    const int32_t last_row = rows - 1;
    const std::span<const int32_t> logit_rows = end == total ? std::span(&last_row, 1) : std::span<const int32_t>();
    engine.transformer().step({ids, std::span(&slice, 1)}, logit_rows, logits, callbacks.stop);
    session.append(ids);
    position = end;
    if (callbacks.on_prefill) callbacks.on_prefill(position, total);
  }
}

/// Draws tokens until the answer ends; `logits` are those of the prompt's last token.
FinishReason decode(Engine& engine, Session& session, const GenerateOptions& options,
                    const GenerateCallbacks& callbacks, std::vector<float>& logits, AnswerText& text,
                    GenerateResult& result) {
  const std::vector<int32_t>& stops = engine.text().stop_tokens;
  Sampler sampler(options.sampling, engine.tokenizer().vocab_size());
  const auto start = Clock::now();
  for (int64_t count = 0; count < options.max_tokens; ++count) {
    const int32_t id = sampler.sample(logits);
    result.ids.push_back(id);
    text.add(id);
    result.stats.decode_s = seconds_since(start);
    if (std::binary_search(stops.begin(), stops.end(), id)) return FinishReason::kStop;
    const auto position = static_cast<int64_t>(session.tokens().size());
    if (position >= engine.context_tokens()) return FinishReason::kContext;
    if (count + 1 == options.max_tokens) break;
    const SequenceSlice slice{&session.cache(), position, 0, 1};
    const int32_t row = 0;
    engine.transformer().step({std::span(&id, 1), std::span(&slice, 1)}, std::span(&row, 1), logits, callbacks.stop);
    session.append(std::span(&id, 1));
  }
  return FinishReason::kLength;
}

}  // namespace

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  MORAINE_CHECK(false);
}

double GenerateStats::prefill_tokens_per_s() const {
  return prefill_s > 0.0 ? static_cast<double>(prompt_tokens - reused_tokens) / prefill_s : 0.0;
}

double GenerateStats::decode_tokens_per_s() const {
  return decode_s > 0.0 && output_tokens > 1 ? static_cast<double>(output_tokens - 1) / decode_s : 0.0;
}

double GenerateStats::expert_hit_rate() const {
  const uint64_t wanted = store.hits + store.misses + store.late_prefetches;
  return wanted > 0 ? static_cast<double>(store.hits) / static_cast<double>(wanted) : 1.0;
}

GenerateResult generate(Engine& engine, Session& session, std::span<const int32_t> prompt,
                        const GenerateOptions& options, const GenerateCallbacks& callbacks) {
  check_prompt(engine, prompt);
  options.sampling.validate();
  GenerateResult result;
  AnswerText text(engine, prompt, callbacks, result);
  const offload::StoreCounters before = engine.store().counters();
  std::vector<float> logits(static_cast<size_t>(engine.config().vocab_size));
  try {
    const auto start = Clock::now();
    result.stats.prompt_tokens = static_cast<int64_t>(prompt.size());
    result.stats.reused_tokens = session.keep_common_prefix(prompt);
    prefill(engine, session, prompt, callbacks, logits);
    result.stats.prefill_s = seconds_since(start);
    result.finish = decode(engine, session, options, callbacks, logits, text, result);
  } catch (const StopRequested&) {
    result.finish = FinishReason::kCancelled;
  }
  text.finish();
  result.stats.output_tokens = static_cast<int64_t>(result.ids.size());
  result.stats.store = engine.store().counters() - before;
  return result;
}

}  // namespace moraine::runtime
