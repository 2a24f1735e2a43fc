#include "runtime/chat_template.h"

#include <fmt/format.h>

#include <utility>

#include "quant/error.h"
#include "runtime/jinja_context.h"
#include "runtime/jinja_error.h"
#include "runtime/jinja_eval.h"
#include "runtime/jinja_parser.h"

namespace moraine::runtime {
namespace {

[[noreturn]] void fail(const std::string& what, const std::filesystem::path& file, const jinja::TemplateError& error) {
  constexpr size_t kMaxMessageBytes = 500;
  const std::string line = error.line() > 0 ? fmt::format(" at line {}", error.line()) : "";
  throw quant::Error(
      quant::ErrorKind::kBadFile,
      {.what = fmt::format("{}{}: {}", what, line, quant::printable(error.what(), kMaxMessageBytes)), .file = file});
}

/// The text of tokenizer_config.json; an empty object if there is none.
quant::Json parse_config(const std::optional<std::string>& config_json, const std::filesystem::path& file) {
  if (!config_json) return quant::Json::object();
  quant::Json config = quant::parse_json(*config_json, file);
  if (config.is_object()) return config;
  throw quant::Error(quant::ErrorKind::kBadFile,
                     {.what = "not a tokenizer configuration", .file = file, .expected = "a JSON object"});
}

/// A token variable of tokenizer_config.json: a string, an object with `content`, or nothing.
std::string token_text(const quant::Json& config, const char* key, const std::filesystem::path& file) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object()) {
    const auto content = found->find("content");
    if (content != found->end() && content->is_string()) return content->get<std::string>();
  }
  throw quant::Error(
      quant::ErrorKind::kBadFile,
      {.what = "not a token", .file = file, .item = key, .expected = "a string or an object with 'content'"});
}

/// The template of tokenizer_config.json, nullopt if it has none.
std::optional<std::string> configured_template(const quant::Json& config, const std::filesystem::path& file) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  std::string names;
  if (found->is_array()) {
    for (const quant::Json& entry : *found) {
      const std::string name = entry.is_object() ? entry.value("name", quant::Json()).dump() : "?";
      if (name == "\"default\"" && entry.contains("template") && entry["template"].is_string()) {
        return entry["template"].get<std::string>();
      }
      names += (names.empty() ? "" : ", ") + name;
    }
  }
  throw quant::Error(quant::ErrorKind::kBadFile, {.what = "no usable chat template",
                                                  .file = file,
                                                  .item = "chat_template",
                                                  .expected = "a string, or a list with an entry named \"default\"",
                                                  .got = names.empty() ? found->type_name() : quant::printable(names)});
}

}  // namespace

struct ChatTemplate::Parsed {
  jinja::Block block;
  std::filesystem::path file;
  std::string bos_token;
  std::string eos_token;
  Clock clock;
};

ChatTemplate::ChatTemplate(const std::string& source, std::filesystem::path file_for_messages, std::string bos_token,
                           std::string eos_token, Clock clock) {
  auto parsed = std::make_shared<Parsed>();
  parsed->file = std::move(file_for_messages);
  parsed->bos_token = std::move(bos_token);
  parsed->eos_token = std::move(eos_token);
  parsed->clock = std::move(clock);
  try {
    parsed->block = jinja::parse_template(source);
  } catch (const jinja::TemplateError& error) {
    fail("the chat template can't be used", parsed->file, error);
  }
  parsed_ = std::move(parsed);
}

std::optional<ChatTemplate> ChatTemplate::from_directory(const std::filesystem::path& dir) {
  const auto text = [](const std::filesystem::path& file, uint64_t max_bytes) {
    return std::filesystem::exists(file) ? std::optional(quant::read_text(file, max_bytes)) : std::nullopt;
  };
  const std::filesystem::path config_file = dir / "tokenizer_config.json", template_file = dir / "chat_template.jinja";
  return from_texts(text(config_file, quant::JsonLimits{}.max_bytes), config_file,
                    text(template_file, jinja::kMaxTemplateBytes), template_file);
}

std::optional<ChatTemplate> ChatTemplate::from_texts(const std::optional<std::string>& config_json,
                                                     const std::filesystem::path& config_file,
                                                     const std::optional<std::string>& source,
                                                     const std::filesystem::path& template_file) {
  const quant::Json config = parse_config(config_json, config_file);
  std::string bos = token_text(config, "bos_token", config_file), eos = token_text(config, "eos_token", config_file);
  if (source) return ChatTemplate(*source, template_file, std::move(bos), std::move(eos));
  const std::optional<std::string> configured = configured_template(config, config_file);
  if (!configured) return std::nullopt;
  return ChatTemplate(*configured, config_file, std::move(bos), std::move(eos));
}

std::optional<std::string> ChatTemplate::source_in_texts(const std::optional<std::string>& config_json,
                                                         const std::filesystem::path& config_file,
                                                         const std::optional<std::string>& source) {
  return source ? source : configured_template(parse_config(config_json, config_file), config_file);
}

std::vector<TextPiece> ChatTemplate::render(std::span<const Message> messages, bool add_generation_prompt) const {
  quant::Json list = quant::Json::array();
  for (const Message& message : messages) list.push_back({{"role", message.role}, {"content", message.content}});
  // transformers passes tools and documents always: templates see them defined, as none.
  return render(quant::Json{{"messages", std::move(list)},
                            {"tools", nullptr},
                            {"documents", nullptr},
                            {"add_generation_prompt", add_generation_prompt}});
}

std::vector<TextPiece> ChatTemplate::render(const quant::Json& context) const {
  MORAINE_CHECK(context.is_object());
  try {
    jinja::Heap heap;
    std::vector<std::pair<std::string, jinja::Value>> variables;
    for (const auto& [name, value] : context.items()) {
      variables.emplace_back(name, jinja::value_from_json(heap, value));
    }
    variables.emplace_back("bos_token", heap.text(parsed_->bos_token, true));
    variables.emplace_back("eos_token", heap.text(parsed_->eos_token, true));
    const jinja::Text text = jinja::Evaluator(heap, parsed_->clock, variables).render(parsed_->block);

    std::vector<TextPiece> pieces;
    size_t begin = 0;
    for (const jinja::Text::Run& run : text.runs()) {
      pieces.push_back({std::string(text.bytes().substr(begin, run.end - begin)), run.trusted});
      begin = run.end;
    }
    return pieces;
  } catch (const jinja::TemplateError& error) {
    fail("the chat template failed", parsed_->file, error);
  }
}

}  // namespace moraine::runtime
