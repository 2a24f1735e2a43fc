#include "tools/predictor_training.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include "offload/memory_limit.h"
#include "quant/error.h"
#include "quant/json.h"
#include "tools/byte_size.h"
#include "tools/engine_setup.h"
#include "tools/exit_codes.h"
#include "tools/feed_tokens.h"
#include "tools/progress_bar.h"
#include "tools/ridge.h"
#include "tools/stats_json.h"
#include "tools/user_files.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kMaxTextBytes = 256u << 20;
constexpr std::array kStrengths = {0.001, 0.01, 0.1};

/// Passes on to whoever listens at the moment.
class Switch final : public RoutingListener {
 public:
  RoutingListener* to = nullptr;
  void routed(int layer, std::span<const float> state, std::span<const float> normed,
              std::span<const float> logits) override {
    if (to != nullptr) to->routed(layer, state, normed, logits);
  }
  void combined(int layer, std::span<const float> with_shared, std::span<const float> output) override {
    if (to != nullptr) to->combined(layer, with_shared, output);
  }
};

/// Gathers what a predictor learns from: router inputs, and what the next layer's early logits then lacked.
class TrainingSamples final : public RoutingListener {
 public:
  struct Layer {
    std::vector<float> inputs;  // [rows × hidden]
    std::vector<float> errors;  // [rows × n_routed_experts]
  };

  explicit TrainingSamples(const runtime::Model& model) : early_(model), layers_(model.layers.size()) {}

  void routed(int layer, std::span<const float> state, std::span<const float> normed,
              std::span<const float> logits) override {
    if (pending_layer_ == layer && pending_logits_.size() == logits.size()) {
      Layer& samples = layers_[static_cast<size_t>(layer)];
      samples.inputs.insert(samples.inputs.end(), pending_inputs_.begin(), pending_inputs_.end());
      for (size_t i = 0; i < logits.size(); ++i) samples.errors.push_back(logits[i] - pending_logits_[i]);
    }
    pending_layer_ = early_.has(layer + 1) ? layer + 1 : -1;
    if (pending_layer_ < 0) return;
    pending_logits_ = early_.logits(layer + 1, state);
    pending_inputs_.assign(normed.begin(), normed.end());
  }
  void combined(int, std::span<const float>, std::span<const float>) override {}

  const std::vector<Layer>& layers() const { return layers_; }

 private:
  EarlyRouter early_;
  std::vector<Layer> layers_;  // [num_hidden_layers], empty where nothing can be learnt
  int pending_layer_ = -1;
  std::vector<float> pending_logits_, pending_inputs_;
};

double mean_square_error(const TrainingSamples::Layer& samples, size_t first_row, std::span<const float> weights,
                         size_t hidden, size_t n_experts) {
  double sum = 0.0;
  const size_t rows = samples.inputs.size() / hidden;
  for (size_t row = first_row; row < rows; ++row) {
    for (size_t e = 0; e < n_experts; ++e) {
      float error = samples.errors[row * n_experts + e];
      for (size_t i = 0; i < hidden; ++i) error -= weights[e * hidden + i] * samples.inputs[row * hidden + i];
      sum += static_cast<double>(error) * error;
    }
  }
  return sum;
}

/// Fits one layer; the strength that does best on the last eighth of its samples.
std::vector<float> fit_layer(const TrainingSamples::Layer& samples, size_t hidden, size_t n_experts) {
  const size_t rows = samples.inputs.size() / hidden, kept = rows - rows / 8;
  const auto inputs = std::span(samples.inputs).first(kept * hidden);
  const auto errors = std::span(samples.errors).first(kept * n_experts);
  std::vector<float> best;
  double best_error = 0.0;
  for (const double strength : kStrengths) {
    std::vector<float> weights =
        ridge_fit(inputs, errors, static_cast<int64_t>(hidden), static_cast<int64_t>(n_experts), strength);
    const double error = mean_square_error(samples, kept, weights, hidden, n_experts);
    if (!best.empty() && error >= best_error) continue;
    best = std::move(weights);
    best_error = error;
  }
  return best;
}

/// An engine whose routing is listened to, and a text for it.
class Listening {
 public:
  Listening(const PredictionOptions& options, Console& console) : options_(options), console_(console) {
    const std::string text = quant::read_text(options.text_file, kMaxTextBytes);
    EngineOptions engine_options = options.engine;
    engine_options.context_tokens = options.window;
    engine_options.prefetch = false;
    engine_ = open_engine(engine_options, console, [this](runtime::EngineParts& parts) {
      parts.dense = probed(std::move(parts.dense), switch_);
    });
    if (!engine_->config().has_experts()) {
      throw quant::Error(quant::ErrorKind::kUsage, {.what = "this model has no routed experts: nothing to predict"});
    }
    ids_ = engine_->tokenizer().encode(text, runtime::AddedTokens::kAsText);
    ids_.resize(std::min(ids_.size(), static_cast<size_t>(options.max_tokens)));
    if (ids_.size() >= 64) return;
    throw quant::Error(quant::ErrorKind::kUsage,
                       {.what = "the text is too short", .file = options.text_file, .expected = "at least 64 tokens"});
  }

  runtime::Engine& engine() { return *engine_; }
  std::span<const int32_t> ids() const { return ids_; }

  /// Takes `tokens` through the model in windows, told to `listener`.
  void feed(std::span<const int32_t> tokens, RoutingListener& listener, const char* what) {
    switch_.to = &listener;
    ProgressBar bar(console_, what, ProgressUnit::kItems);
    const auto window = static_cast<size_t>(options_.window);
    for (size_t begin = 0; begin < tokens.size(); begin += window) {
      const auto part = tokens.subspan(begin, std::min(window, tokens.size() - begin));
      runtime::Session session = engine_->new_session();
      feed_tokens(*engine_, session.cache(), part, LogitRows::kNone, {});
      bar.update(begin + part.size(), tokens.size(), "tokens");
    }
    switch_.to = nullptr;
  }

 private:
  const PredictionOptions& options_;
  Console& console_;
  Switch switch_;
  std::unique_ptr<runtime::Engine> engine_;
  std::vector<int32_t> ids_;
};

/// All samples are in memory until they are fitted.
void check_room(const runtime::ModelConfig& config, size_t tokens) {
  const auto layers = static_cast<uint64_t>(config.num_hidden_layers - config.first_k_dense_replace);
  const auto floats = static_cast<uint64_t>(config.hidden_size + config.n_routed_experts);
  const uint64_t wanted_bytes = layers * floats * sizeof(float) * tokens;
  const uint64_t available_bytes = offload::available_ram_bytes(offload::read_memory_limit());
  if (wanted_bytes <= available_bytes / 2) return;
  throw quant::Error(quant::ErrorKind::kNotEnough,
                     {.what = fmt::format("the samples of {} tokens do not fit into memory", tokens),
                      .expected = fmt::format("{} in half of what is free", byte_size_text(wanted_bytes)),
                      .got = byte_size_text(available_bytes),
                      .action = "choose a smaller --max-tokens or --ram-budget"});
}

runtime::LinearPredictor fit(const runtime::Model& model, const TrainingSamples& samples, Console& console) {
  runtime::LinearPredictor predictor(model);
  ProgressBar bar(console, "fitting", ProgressUnit::kItems);
  const size_t layers = samples.layers().size();
  for (size_t layer = 0; layer < layers; ++layer) {
    if (samples.layers()[layer].inputs.empty()) continue;
    predictor.set(static_cast<int>(layer),
                  fit_layer(samples.layers()[layer], static_cast<size_t>(model.config.hidden_size),
                            static_cast<size_t>(model.config.n_routed_experts)));
    bar.update(layer + 1, layers, "layers");
  }
  return predictor;
}

}  // namespace

int eval_recall(const PredictionOptions& options, Console& console) {
  Listening listening(options, console);
  std::optional<runtime::LinearPredictor> trained;
  if (!options.predictor_file.empty()) {
    trained = runtime::LinearPredictor::load(options.predictor_file, listening.engine().model());
  }
  RecallMeter meter(listening.engine().model(), trained ? &*trained : nullptr);
  listening.feed(listening.ids(), meter, "reading the text");
  console.out(options.json ? json_text(meter.json()) : meter.text());
  return kExitOk;
}

int train_predictor(const PredictionOptions& options, Console& console) {
  Listening listening(options, console);
  const runtime::Model& model = listening.engine().model();
  check_room(model.config, listening.ids().size());
  const size_t training_tokens = listening.ids().size() / 5 * 4;
  TrainingSamples samples(model);
  listening.feed(listening.ids().first(training_tokens), samples, "reading the text");
  const runtime::LinearPredictor predictor = fit(model, samples, console);

  RecallMeter meter(model, &predictor);
  listening.feed(listening.ids().subspan(training_tokens), meter, "measuring");
  const double gain = *meter.total(GuessSource::kTrained).recall() - *meter.total(GuessSource::kPostAttention).recall();
  const bool worth_it = gain >= kLeastTrainingGain;
  std::filesystem::path file = options.predictor_file;
  if (file.empty()) file = predictor_file(runtime::router_fingerprint(model));
  if (worth_it && file.empty()) {
    throw quant::Error(quant::ErrorKind::kUsage,
                       {.what = "no place for the predictor", .action = "name one with --out"});
  }
  if (worth_it) {
    if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
    predictor.save(file);
  }
  if (options.json) {
    quant::Json json = meter.json();
    json["gain"] = gain;
    json["saved"] = worth_it ? quant::Json(file.string()) : quant::Json();
    console.out(json_text(json));
  } else {
    console.out(meter.text());
  }
  console.line(worth_it ? fmt::format("{:.1f} points better than the router on held-out text: saved to {}",
                                      100.0 * gain, file.string())
                        : fmt::format("only {:.1f} points better than the router on held-out text: not worth having, "
                                      "nothing written",
                                      100.0 * gain));
  return kExitOk;
}

}  // namespace moraine::tools
