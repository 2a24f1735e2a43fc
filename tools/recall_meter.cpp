#include "tools/recall_meter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "quant/error.h"
#include "quant/packed_matrix.h"

namespace moraine::tools {

EarlyRouter::EarlyRouter(const runtime::Model& model) : model_(model), gates_(model.layers.size()) {
  for (size_t l = 0; l < gates_.size(); ++l) {
    const quant::PackedView& gate = model.layers[l].gate.view;
    if (gate.data == nullptr) continue;
    gates_[l].resize(static_cast<size_t>(gate.rows * gate.cols));
    quant::dequantize_packed(gate, 0, gate.rows, gates_[l]);
  }
}

bool EarlyRouter::has(int layer) const {
  return layer >= 0 && static_cast<size_t>(layer) < gates_.size() && !gates_[static_cast<size_t>(layer)].empty();
}

std::vector<float> EarlyRouter::logits(int layer, std::span<const float> states) const {
  MORAINE_CHECK(has(layer));
  const auto hidden = static_cast<size_t>(model_.config.hidden_size);
  const std::vector<float>& gate = gates_[static_cast<size_t>(layer)];
  const std::vector<float>& norm = model_.layers[static_cast<size_t>(layer)].post_attention_layernorm;
  std::vector<float> logits, normed(hidden);
  for (size_t row = 0; row + hidden <= states.size(); row += hidden) {
    double squares = 0.0;
    for (size_t i = 0; i < hidden; ++i) squares += static_cast<double>(states[row + i]) * states[row + i];
    const auto scale =
        static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(hidden) + model_.config.rms_norm_eps));
    for (size_t i = 0; i < hidden; ++i) normed[i] = states[row + i] * scale * norm[i];
    for (size_t at = 0; at < gate.size(); at += hidden) {
      float sum = 0.0f;
      for (size_t i = 0; i < hidden; ++i) sum += gate[at + i] * normed[i];
      logits.push_back(sum);
    }
  }
  return logits;
}

const char* guess_source_name(GuessSource source) {
  switch (source) {
    case GuessSource::kPostAttention:
      return "post-attention";
    case GuessSource::kWithShared:
      return "+ shared";
    case GuessSource::kTwoAhead:
      return "two ahead";
    case GuessSource::kOwnInput:
      return "own input";
    case GuessSource::kTrained:
      return "trained";
  }
  MORAINE_CHECK(false);
}

std::optional<double> RecallCount::recall() const {
  if (wanted == 0) return std::nullopt;
  return static_cast<double>(found) / static_cast<double>(wanted);
}

std::optional<double> RecallCount::wide_recall() const {
  if (wanted == 0) return std::nullopt;
  return static_cast<double>(found_wide) / static_cast<double>(wanted);
}

RecallMeter::RecallMeter(const runtime::Model& model, const runtime::LinearPredictor* trained)
    : model_(model), trained_(trained), early_(model), router_(model.config) {
  for (std::vector<RecallCount>& counts : counts_) counts.resize(model.layers.size());
}

void RecallMeter::compare(GuessSource source, int layer, std::span<const float> logits) {
  const Guess& guess = guesses_[static_cast<size_t>(source)];
  if (guess.layer != layer || guess.logits.size() != logits.size()) return;
  const auto n_experts = static_cast<size_t>(model_.config.n_routed_experts);
  const int32_t top_k = router_.num_experts_per_tok();
  const std::span<const float> bias = model_.layers[static_cast<size_t>(layer)].e_score_correction_bias;
  RecallCount& count = counts_[static_cast<size_t>(source)][static_cast<size_t>(layer)];
  for (size_t row = 0; row < logits.size(); row += n_experts) {
    const std::vector<int32_t> wanted = router_.likeliest(logits.subspan(row, n_experts), bias, top_k);
    const auto guessed = std::span<const float>(guess.logits).subspan(row, n_experts);
    const std::vector<int32_t> wide = router_.likeliest(guessed, bias, 2 * top_k);
    const auto narrow_end = wide.begin() + std::min<ptrdiff_t>(top_k, std::ssize(wide));
    for (const int32_t expert : wanted) {
      ++count.wanted;
      count.found += std::find(wide.begin(), narrow_end, expert) != narrow_end ? 1 : 0;
      count.found_wide += std::find(wide.begin(), wide.end(), expert) != wide.end() ? 1 : 0;
    }
  }
}

void RecallMeter::make_guess(GuessSource source, int layer, std::span<const float> states) {
  Guess& guess = guesses_[static_cast<size_t>(source)];
  guess = {};
  if (early_.has(layer)) guess = {.layer = layer, .logits = early_.logits(layer, states)};
}

void RecallMeter::routed(int layer, std::span<const float> state, std::span<const float> normed,
                         std::span<const float> logits) {
  for (const GuessSource source : kGuessSources) compare(source, layer, logits);
  make_guess(GuessSource::kPostAttention, layer + 1, state);
  guesses_[static_cast<size_t>(GuessSource::kTwoAhead)] = std::exchange(next_two_ahead_, {});
  if (early_.has(layer + 2)) next_two_ahead_ = {.layer = layer + 2, .logits = early_.logits(layer + 2, state)};
  if (trained_ == nullptr || !early_.has(layer + 1) || !trained_->corrects(layer + 1)) return;
  Guess& guess = guesses_[static_cast<size_t>(GuessSource::kTrained)];
  guess = guesses_[static_cast<size_t>(GuessSource::kPostAttention)];
  const auto hidden = static_cast<size_t>(model_.config.hidden_size);
  const auto n_experts = static_cast<size_t>(model_.config.n_routed_experts);
  for (size_t row = 0; row < normed.size() / hidden; ++row) {
    trained_->correct(layer + 1, normed.subspan(row * hidden, hidden),
                      std::span(guess.logits).subspan(row * n_experts, n_experts));
  }
}

void RecallMeter::combined(int layer, std::span<const float> with_shared, std::span<const float> output) {
  make_guess(GuessSource::kWithShared, layer + 1, with_shared);
  make_guess(GuessSource::kOwnInput, layer + 1, output);
}

RecallCount RecallMeter::total(GuessSource source) const {
  RecallCount sum;
  for (const RecallCount& count : counts_[static_cast<size_t>(source)]) {
    sum.wanted += count.wanted;
    sum.found += count.found;
    sum.found_wide += count.found_wide;
  }
  return sum;
}

std::string RecallMeter::text() const {
  const int32_t top_k = router_.num_experts_per_tok();
  std::string text = fmt::format("recall@{} (and @{}) in percent\nlayer", top_k, 2 * top_k);
  for (const GuessSource source : kGuessSources) text += fmt::format("  {:>16}", guess_source_name(source));
  const auto row = [&](const std::string& name, auto count_of) {
    text += fmt::format("\n{:>5}", name);
    for (const GuessSource source : kGuessSources) {
      const RecallCount count = count_of(source);
      const std::string cell =
          count.wanted == 0 ? "-"
                            : fmt::format("{:.1f} ({:.1f})", 100.0 * *count.recall(), 100.0 * *count.wide_recall());
      text += fmt::format("  {:>16}", cell);
    }
  };
  for (size_t layer = 0; layer < model_.layers.size(); ++layer) {
    if (!early_.has(static_cast<int>(layer))) continue;
    row(std::to_string(layer), [&](GuessSource source) { return count(source, static_cast<int>(layer)); });
  }
  row("all", [&](GuessSource source) { return total(source); });
  return text + "\n";
}

quant::Json RecallMeter::json() const {
  quant::Json sources = quant::Json::object();
  for (const GuessSource source : kGuessSources) {
    quant::Json layers = quant::Json::object();
    for (size_t layer = 0; layer < model_.layers.size(); ++layer) {
      const RecallCount one = count(source, static_cast<int>(layer));
      if (one.wanted > 0)
        layers[std::to_string(layer)] = {{"recall", *one.recall()}, {"recall_wide", *one.wide_recall()}};
    }
    const RecallCount all = total(source);
    if (all.wanted == 0) continue;
    sources[guess_source_name(source)] = {
        {"recall", *all.recall()}, {"recall_wide", *all.wide_recall()}, {"layers", std::move(layers)}};
  }
  return {{"top_k", router_.num_experts_per_tok()}, {"sources", std::move(sources)}};
}

}  // namespace moraine::tools
