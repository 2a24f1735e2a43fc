#include "runtime/model_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "quant/error.h"
#include "quant/json.h"
#include "runtime/config_reader.h"

namespace moraine::runtime {
namespace {

/// The fields of generation_config.json that matter here.
struct GenerationConfig {
  SamplingOptions sampling;
  std::vector<int32_t> eos_token_ids;
};

constexpr const char* kTokenizer = "tokenizer.json";
constexpr const char* kTokenizerConfig = "tokenizer_config.json";
constexpr const char* kGenerationConfig = "generation_config.json";
constexpr const char* kTemplate = "chat_template.jinja";

GenerationConfig read_generation_config(const ModelSource& source, const ModelConfig& config) {
  GenerationConfig result;
  const std::filesystem::path file = source.text_file(kGenerationConfig);
  const std::optional<std::string> text = source.text(kGenerationConfig);
  if (!text) return result;
  const quant::Json json = quant::parse_json(*text, file, {.max_bytes = 1 << 20});
  if (!json.is_object()) throw quant::Error(quant::ErrorKind::kBadFile, {.what = "not a JSON object", .file = file});
  ConfigReader reader(json);
  SamplingOptions& sampling = result.sampling;
  sampling.temperature = reader.number_or("temperature", 0.0, 100.0, sampling.temperature);
  sampling.top_p = reader.number_or("top_p", 1e-9, 1.0, sampling.top_p);
  sampling.top_k = static_cast<int32_t>(reader.integer_or("top_k", 0, 1 << 24, sampling.top_k));
  sampling.min_p = reader.number_or("min_p", 0.0, 1.0, sampling.min_p);
  if (!reader.boolean_or("do_sample", true)) sampling.temperature = 0.0;
  result.eos_token_ids = reader.integer_list("eos_token_id", 0, static_cast<int32_t>(config.vocab_size - 1));
  if (reader.faults().empty()) return result;
  throw quant::Error(quant::ErrorKind::kBadFile,
                     {.what = fmt::format("{}", fmt::join(reader.faults(), "; ")), .file = file});
}

std::vector<int32_t> stop_tokens_of(const Tokenizer& tokenizer, const GenerationConfig& generation,
                                    const ModelConfig& config) {
  std::vector<int32_t> stops = generation.eos_token_ids;
  if (tokenizer.special().eos) stops.push_back(*tokenizer.special().eos);
  // config.json is asked last: in some releases its ids are leftovers of the base model.
  if (stops.empty()) stops = config.eos_token_ids;
  std::sort(stops.begin(), stops.end());
  stops.erase(std::unique(stops.begin(), stops.end()), stops.end());
  return stops;
}

}  // namespace

ModelText ModelText::from_directory(const std::filesystem::path& directory, const ModelConfig& config) {
  return from_source(*ModelSource::open(directory), config);
}

ModelText ModelText::from_source(const ModelSource& source, const ModelConfig& config) {
  const std::optional<std::string> tokenizer_json = source.text(kTokenizer);
  if (!tokenizer_json) {
    throw quant::Error(quant::ErrorKind::kBadFile, {.what = "tokenizer.json is missing",
                                                    .file = source.text_file(kTokenizer),
                                                    .action = "finish the download of the model"});
  }
  const std::optional<std::string> config_json = source.text(kTokenizerConfig);
  const std::filesystem::path config_file = source.text_file(kTokenizerConfig);
  ModelText text{
      .tokenizer = Tokenizer::from_texts(*tokenizer_json, source.text_file(kTokenizer), config_json, config_file),
      .chat_template =
          ChatTemplate::from_texts(config_json, config_file, source.text(kTemplate), source.text_file(kTemplate)),
      .default_sampling = {},
      .stop_tokens = {},
      .think_token = {},
      .end_think_token = {}};
  if (text.tokenizer.vocab_size() > config.vocab_size) {
    throw quant::Error(quant::ErrorKind::kBadFile,
                       {.what = "the tokenizer has more tokens than the model has rows",
                        .file = source.text_file(kTokenizer),
                        .expected = fmt::format("at most vocab_size {} of config.json", config.vocab_size),
                        .got = fmt::format("{} tokens", text.tokenizer.vocab_size()),
                        .action = "take tokenizer.json and config.json from the same model"});
  }
  const GenerationConfig generation = read_generation_config(source, config);
  text.default_sampling = generation.sampling;
  text.stop_tokens = stop_tokens_of(text.tokenizer, generation, config);
  if (text.stop_tokens.empty()) {
    throw quant::Error(
        quant::ErrorKind::kBadFile,
        {.what = "no end-of-answer token in tokenizer_config.json, generation_config.json or config.json",
         .file = source.path(),
         .action = "add eos_token_id to generation_config.json"});
  }
  text.think_token = text.tokenizer.token_id("<think>");
  text.end_think_token = text.tokenizer.token_id("</think>");
  return text;
}

}  // namespace moraine::runtime
