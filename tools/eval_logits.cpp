#include "tools/eval_logits.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "quant/error.h"
#include "quant/file_io.h"
#include "quant/json.h"
#include "quant/npy.h"
#include "tools/byte_size.h"
#include "tools/engine_setup.h"
#include "tools/exit_codes.h"
#include "tools/feed_tokens.h"
#include "tools/progress_bar.h"
#include "tools/stats_json.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kMaxIdsFileBytes = 64u << 20;
constexpr uint64_t kMaxLogitBytes = uint64_t{4} << 30;  // held in memory until the file is written

[[noreturn]] void refuse_ids(std::string what, const std::filesystem::path& where, std::string expected,
                             std::string got) {
  throw quant::Error(quant::ErrorKind::kUsage,
                     {.what = std::move(what), .file = where, .expected = std::move(expected), .got = std::move(got)});
}

void check_room(size_t token_count, const runtime::ModelConfig& config) {
  const auto tokens = static_cast<int64_t>(token_count);
  if (tokens > config.max_position_embeddings) {
    refuse_ids("too many ids for the model's context", {}, fmt::format("at most {}", config.max_position_embeddings),
               fmt::format("{}", tokens));
  }
  const uint64_t wanted_bytes =
      static_cast<uint64_t>(tokens) * static_cast<uint64_t>(config.vocab_size) * sizeof(float);
  if (wanted_bytes <= kMaxLogitBytes) return;
  throw quant::Error(
      quant::ErrorKind::kNotEnough,
      {.what = fmt::format("logits of {} tokens × {} vocabulary rows take {}", tokens, config.vocab_size,
                           byte_size_text(wanted_bytes)),
       .expected = fmt::format("at most {}", byte_size_text(kMaxLogitBytes)),
       .action = fmt::format("give at most {} ids",
                             kMaxLogitBytes / (static_cast<uint64_t>(config.vocab_size) * sizeof(float)))});
}

/// Logits of every position, in the same chunks as a prompt.
std::vector<float> all_logits(runtime::Engine& engine, std::span<const int32_t> ids, runtime::StepObserver& observer,
                              Console& console) {
  const auto vocab = static_cast<size_t>(engine.config().vocab_size);
  std::vector<float> logits(ids.size() * vocab);  // [tokens, vocab]
  runtime::Session session = engine.new_session();
  ProgressBar bar(console, "logits", ProgressUnit::kItems);
  feed_tokens(engine, session.cache(), ids, LogitRows::kAll, logits, &observer,
              [&](size_t done) { bar.update(done, ids.size(), "tokens"); });
  return logits;
}

}  // namespace

std::vector<int32_t> parse_token_ids(std::string_view text, int64_t vocab_size, const std::filesystem::path& where) {
  constexpr std::string_view kSeparators = " \t\r\n,";
  const auto trim = [&](std::string_view part) {
    part.remove_prefix(std::min(part.find_first_not_of(kSeparators), part.size()));
    while (!part.empty() && kSeparators.find(part.back()) != std::string_view::npos) part.remove_suffix(1);
    return part;
  };
  text = trim(text);
  if (text.size() >= 2 && text.front() == '[' && text.back() == ']') text = trim(text.substr(1, text.size() - 2));
  std::vector<int32_t> ids;
  while (!text.empty()) {
    int64_t id = 0;
    const auto [rest, fault] = std::from_chars(text.data(), text.data() + text.size(), id);
    const auto used = static_cast<size_t>(rest - text.data());
    const bool separated = used == text.size() || kSeparators.find(text[used]) != std::string_view::npos;
    if (fault != std::errc() || !separated) {
      refuse_ids("not a list of token ids", where, "numbers separated by commas", quant::printable(text.substr(0, 40)));
    }
    if (id < 0 || id >= vocab_size) {
      refuse_ids("token id outside the vocabulary", where, fmt::format("0 to {}", vocab_size - 1),
                 fmt::format("{}", id));
    }
    ids.push_back(static_cast<int32_t>(id));
    text = trim(text.substr(used));
  }
  if (ids.empty()) refuse_ids("no token ids", where, "at least one", "none");
  return ids;
}

RouteRecorder::RouteRecorder(const runtime::ModelConfig& config)
    : num_experts_per_tok_(config.num_experts_per_tok), layers_(static_cast<size_t>(config.num_hidden_layers)) {}

void RouteRecorder::routed(int layer, std::span<const runtime::RoutedExpert> chosen) {
  auto& seen = layers_[static_cast<size_t>(layer)];
  seen.insert(seen.end(), chosen.begin(), chosen.end());
}

std::string RouteRecorder::json() const {
  const auto per_token = static_cast<size_t>(num_experts_per_tok_);
  quant::Json layers = quant::Json::object();
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    if (layers_[layer].empty()) continue;
    quant::Json topk = quant::Json::array();
    quant::Json weight = quant::Json::array();
    for (size_t at = 0; at + per_token <= layers_[layer].size(); at += per_token) {
      quant::Json ids = quant::Json::array();
      quant::Json weights = quant::Json::array();
      for (size_t slot = 0; slot < per_token; ++slot) {
        ids.push_back(layers_[layer][at + slot].expert);
        weights.push_back(layers_[layer][at + slot].weight);
      }
      topk.push_back(std::move(ids));
      weight.push_back(std::move(weights));
    }
    layers[std::to_string(layer)] = {{"topk", std::move(topk)}, {"weight", std::move(weight)}};
  }
  return json_text({{"num_experts_per_tok", num_experts_per_tok_}, {"layers", std::move(layers)}});
}

int eval_logits(const EvalLogitsOptions& options, Console& console) {
  // Everything that can be refused is refused before the model is loaded.
  const std::filesystem::path directory = model_directory(options.engine.model);
  const auto config = runtime::ModelSource::open(directory)->config();
  const std::string text =
      options.ids_text.empty() ? quant::read_text(options.ids_file, kMaxIdsFileBytes) : options.ids_text;
  const std::vector<int32_t> ids = parse_token_ids(text, config.vocab_size, options.ids_file);
  check_room(ids.size(), config);

  EngineOptions engine_options = options.engine;
  engine_options.context_tokens = static_cast<int64_t>(ids.size());
  const std::unique_ptr<runtime::Engine> engine = open_engine(engine_options, console);
  RouteRecorder recorder(config);
  const std::vector<float> logits = all_logits(*engine, ids, recorder, console);
  quant::write_npy_f32(options.out_file, logits, static_cast<int64_t>(ids.size()), config.vocab_size);
  if (!options.routes_file.empty()) quant::write_file_atomically(options.routes_file, recorder.json());
  console.line(fmt::format("wrote {} [{}, {}]", options.out_file.string(), ids.size(), config.vocab_size));
  if (options.json) {
    console.out(json_text({{"model", model_name(directory)},
                           {"experts", engine->experts().type_name},
                           {"out", options.out_file.string()},
                           {"shape", {ids.size(), config.vocab_size}},
                           {"store", counters_json(engine->store().counters())}}));
  }
  return kExitOk;
}

}  // namespace moraine::tools
