#include "tools/trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <string_view>

#include "quant/error.h"
#include "quant/file_io.h"

namespace moraine::tools {
namespace {

constexpr size_t kMaxLineBytes = 4u << 20;  // a chunk of 4096 rows stays far below
constexpr int64_t kMostLayers = 4096, kMostExperts = 65536, kMostTopK = 1024;

[[noreturn]] void refuse(const std::filesystem::path& file, int64_t line, const std::string& what) {
  throw quant::Error(quant::ErrorKind::kBadFile,
                     {.what = fmt::format("line {} is not of a Moraine trace: {}", line, what),
                      .file = file,
                      .action = "record one with `moraine generate … --trace FILE`"});
}

double number_or(const quant::Json& json, const char* name, double otherwise) {
  const auto found = json.find(name);
  return found != json.end() && found->is_number() ? found->get<double>() : otherwise;
}

int64_t integer_or(const quant::Json& json, const char* name, int64_t most, int64_t otherwise) {
  const auto found = json.find(name);
  if (found == json.end() || !found->is_number_integer()) return otherwise;
  const auto value = found->get<int64_t>();
  return value >= 0 && value <= most ? value : otherwise;
}

std::string text_of(const quant::Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

TraceEvent event_of(const quant::Json& json) {
  TraceEvent event{
      .name = text_of(json, "name"), .at_us = number_or(json, "ts", 0.0), .duration_us = number_or(json, "dur", 0.0)};
  const std::string phase = text_of(json, "ph");
  event.phase = phase.empty() ? '\0' : phase[0];
  if (const auto args = json.find("args"); args != json.end() && args->is_object()) event.args = *args;
  if (event.args.is_object()) {
    event.layer = integer_or(event.args, "layer", kMostLayers, -1);
    event.expert = integer_or(event.args, "expert", kMostExperts, -1);
  }
  return event;
}

TraceModel model_of(const quant::Json& args) {
  TraceModel model{.layers = integer_or(args, "layers", kMostLayers, 0),
                   .first_moe_layer = integer_or(args, "first_moe_layer", kMostLayers, 0),
                   .experts = integer_or(args, "experts", kMostExperts, 0),
                   .top_k = integer_or(args, "top_k", kMostTopK, 0),
                   .record_bytes = integer_or(args, "record_bytes", int64_t{1} << 40, 0),
                   .slots = integer_or(args, "slots", int64_t{1} << 40, 0)};
  model.first_moe_layer = std::min(model.first_moe_layer, model.layers);
  return model;
}

/// Gathers the choices of one-row steps; a step counts when all its layers have spoken.
class RoutingCollector {
 public:
  void step(int64_t rows) {
    is_decode_ = rows == 1;
    token_.clear();
  }

  void experts(const TraceEvent& event, const RoutingShape& shape) {
    if (!is_decode_) return;
    const auto rows = event.args.find("rows");
    if (rows == event.args.end() || !rows->is_array() || rows->size() != 1 || !rows->front().is_array()) return;
    for (const quant::Json& expert : rows->front()) {
      if (!expert.is_number_integer()) return;
      const auto id = expert.get<int64_t>();
      if (id < 0 || id >= shape.n_experts) return;
      token_.push_back(static_cast<int32_t>(id));
    }
    const size_t whole = static_cast<size_t>(shape.moe_layers) * static_cast<size_t>(shape.top_k);
    if (token_.size() != whole) return;
    choices.insert(choices.end(), token_.begin(), token_.end());
    token_.clear();
  }

  std::vector<int32_t> choices;

 private:
  bool is_decode_ = false;
  std::vector<int32_t> token_;
};

}  // namespace

TraceModel read_trace(const std::filesystem::path& file, const std::function<void(const TraceEvent&)>& visit) {
  quant::open_for_read(file);  // its refusals are clearer
  std::ifstream lines(file);
  TraceModel model;
  std::string line;
  int64_t number = 0;
  while (std::getline(lines, line)) {
    ++number;
    const bool whole = !lines.eof();  // the last one may be cut
    if (line.size() > kMaxLineBytes) refuse(file, number, "it is too long");
    if (number == 1 && line != "[") refuse(file, number, "expected [");
    if (line == "[" || line == "]" || line.empty()) continue;
    if (line.back() == ',') line.pop_back();
    quant::Json json;
    try {
      json = quant::parse_json(line, file, {.max_bytes = kMaxLineBytes, .max_depth = 8});
    } catch (const quant::Error&) {
      if (!whole) break;
      refuse(file, number, "no JSON");
    }
    if (!json.is_object()) refuse(file, number, "no JSON object");
    const TraceEvent event = event_of(json);
    if (event.phase == 'M' && event.name == "moraine" && event.args.is_object()) model = model_of(event.args);
    visit(event);
  }
  if (number == 0) refuse(file, 1, "the file is empty");
  return model;
}

RoutingTrace read_routing(const std::filesystem::path& file) {
  TraceModel model;
  RoutingCollector collector;
  read_trace(file, [&](const TraceEvent& event) {
    if (event.phase == 'M' && event.name == "moraine" && event.args.is_object()) model = model_of(event.args);
    if (event.name == "step") collector.step(integer_or(event.args, "rows", int64_t{1} << 32, 0));
    if (event.name == "experts" && event.args.is_object()) collector.experts(event, model.shape());
  });
  if (!collector.choices.empty()) return {model.shape(), std::move(collector.choices)};
  throw quant::Error(quant::ErrorKind::kBadFile,
                     {.what = "the trace has no decoded token of all layers",
                      .file = file,
                      .action = "record one that answers: `moraine generate … --trace FILE`"});
}

}  // namespace moraine::tools
