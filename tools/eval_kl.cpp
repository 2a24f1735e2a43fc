#include "tools/eval_kl.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "quant/error.h"
#include "quant/json.h"
#include "tools/byte_size.h"
#include "tools/engine_setup.h"
#include "tools/exit_codes.h"
#include "tools/feed_tokens.h"
#include "tools/progress_bar.h"
#include "tools/stats_json.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kMaxTextBytes = 256u << 20;
constexpr uint64_t kMaxLogitBytes = uint64_t{2} << 30;  // of both engines' logits of one window

/// ln Σ exp(logit).
double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

ptrdiff_t likeliest(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

[[noreturn]] void refuse(quant::ErrorKind kind, std::string what, std::string action) {
  throw quant::Error(kind, {.what = std::move(what), .action = std::move(action)});
}

/// Everything that can be refused before the models are loaded.
void check(const EvalKlOptions& options, const runtime::ModelConfig& config, const runtime::ModelConfig& reference) {
  if (config.vocab_size != reference.vocab_size) {
    refuse(quant::ErrorKind::kUsage,
           fmt::format("the vocabularies have {} and {} tokens", config.vocab_size, reference.vocab_size),
           "compare two forms of the same model");
  }
  const int64_t longest = std::min(config.max_position_embeddings, reference.max_position_embeddings);
  const auto row_bytes = 2 * static_cast<uint64_t>(config.vocab_size) * sizeof(float);
  const int64_t most = std::min(longest, static_cast<int64_t>(kMaxLogitBytes / row_bytes));
  if (options.context <= most) return;
  refuse(quant::ErrorKind::kUsage, fmt::format("--context {} is too long", options.context),
         fmt::format("give at most {}: logits of a window may take {}, and the models' context is {}", most,
                     byte_size_text(kMaxLogitBytes), longest));
}

/// The text's tokens, cut. Both models must see the same ones.
std::vector<int32_t> tokens_of(const std::string& text, const runtime::Engine& engine, const runtime::Engine& reference,
                               const EvalKlOptions& options) {
  std::vector<int32_t> ids = engine.tokenizer().encode(text, runtime::AddedTokens::kAsText);
  const bool same = ids == reference.tokenizer().encode(text, runtime::AddedTokens::kAsText) &&
                    engine.tokenizer().special().bos == reference.tokenizer().special().bos;
  if (!same) {
    refuse(quant::ErrorKind::kBadFile, "the two models do not read the text as the same tokens",
           "compare two forms of the same model");
  }
  if (ids.empty()) throw quant::Error(quant::ErrorKind::kUsage, {.what = "the text is empty", .file = options.file});
  ids.resize(std::min(ids.size(), static_cast<size_t>(options.max_tokens)));
  return ids;
}

/// Takes the text through both models, window by window.
KlMeter compare(runtime::Engine& engine, runtime::Engine& reference, std::span<const int32_t> ids, int64_t context,
                Console& console) {
  const auto vocab = static_cast<size_t>(engine.config().vocab_size);
  const std::optional<int32_t> bos = engine.tokenizer().special().bos;
  // Every window begins with BOS, as training texts do; one token of text at least must fit behind it.
  const size_t text_tokens = static_cast<size_t>(context) - (bos && context > 1 ? 1 : 0);
  std::vector<float> logits, reference_logits;  // [window, vocab]
  KlMeter meter;
  ProgressBar bar(console, "comparing", ProgressUnit::kItems);
  for (size_t begin = 0; begin < ids.size(); begin += text_tokens) {
    const auto part = ids.subspan(begin, std::min(text_tokens, ids.size() - begin));
    std::vector<int32_t> window(part.begin(), part.end());
    if (bos && context > 1) window.insert(window.begin(), *bos);
    for (auto& [model, rows] : {std::pair(&reference, &reference_logits), std::pair(&engine, &logits)}) {
      rows->resize(window.size() * vocab);
      runtime::Session session = model->new_session();
      feed_tokens(*model, session.cache(), window, LogitRows::kAll, *rows);
    }
    for (size_t row = 0; row < window.size(); ++row) {
      meter.add(std::span(reference_logits).subspan(row * vocab, vocab), std::span(logits).subspan(row * vocab, vocab));
    }
    bar.update(begin + part.size(), ids.size(), fmt::format("mean {:.3e}", meter.mean_kl()));
  }
  return meter;
}

}  // namespace

double kl_divergence(std::span<const float> reference, std::span<const float> logits) {
  MORAINE_CHECK(!reference.empty() && reference.size() == logits.size());
  const double reference_sum = log_sum_exp(reference), sum = log_sum_exp(logits);
  double kl = 0.0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double log_p = reference[i] - reference_sum;
    kl += std::exp(log_p) * (log_p - (logits[i] - sum));
  }
  // Rounding may leave a little less than the 0 of equal distributions.
  return std::isnan(kl) ? kl : std::max(kl, 0.0);
}

void KlMeter::add(std::span<const float> reference, std::span<const float> logits) {
  const double kl = kl_divergence(reference, logits);
  if (positions_ == 0 || kl > worst_kl_ || std::isnan(kl)) {
    worst_kl_ = kl;
    worst_position_ = positions_;
  }
  sum_kl_ += kl;
  agreements_ += likeliest(reference) == likeliest(logits) ? 1 : 0;
  ++positions_;
}

double KlMeter::mean_kl() const {
  return positions_ > 0 ? sum_kl_ / static_cast<double>(positions_) : 0.0;
}

double KlMeter::top1_agreement() const {
  return positions_ > 0 ? static_cast<double>(agreements_) / static_cast<double>(positions_) : 0.0;
}

int eval_kl(const EvalKlOptions& options, Console& console) {
  const std::filesystem::path directory = model_directory(options.engine.model);
  const std::filesystem::path reference_directory = model_directory(options.reference.model);
  check(options, runtime::ModelSource::open(directory)->config(),
        runtime::ModelSource::open(reference_directory)->config());
  const std::string text = quant::read_text(options.file, kMaxTextBytes);

  const std::unique_ptr<runtime::Engine> reference = open_engine(options.reference, console);
  const std::unique_ptr<runtime::Engine> engine = open_engine(options.engine, console);
  const std::vector<int32_t> ids = tokens_of(text, *engine, *reference, options);
  const KlMeter meter = compare(*engine, *reference, ids, options.context, console);
  if (options.json) {
    console.out(json_text({{"model", model_name(directory)},
                           {"experts", engine->experts().type_name},
                           {"reference", model_name(reference_directory)},
                           {"reference_experts", reference->experts().type_name},
                           {"positions", meter.positions()},
                           {"mean_kl", meter.mean_kl()},
                           {"worst_kl", meter.worst_kl()},
                           {"worst_position", meter.worst_position()},
                           {"top1_agreement", meter.top1_agreement()}}));
    return kExitOk;
  }
  console.out(fmt::format(
      "positions       {}\nmean KL         {:.4e} nats\nworst KL        {:.4e} nats at position {}\n"
      "top-1 agreement {:.2f} %\n",
      meter.positions(), meter.mean_kl(), meter.worst_kl(), meter.worst_position(), 100.0 * meter.top1_agreement()));
  return kExitOk;
}

}  // namespace moraine::tools
