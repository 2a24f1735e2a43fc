#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/json.h"
#include "runtime/text_piece.h"

namespace moraine::runtime {

/// One turn of a conversation.
struct Message {
  std::string role;  ///< system, user, assistant or tool
  std::string content;
};

/// A model's chat template: Jinja source that turns messages into the prompt's text, rendered as Hugging Face does
/// (trim_blocks, lstrip_blocks, loop controls, `tojson`, `raise_exception`, `strftime_now`), with bounds on time,
/// memory and output. Immutable and cheap to copy; rendering is safe from several threads.
class ChatTemplate {
 public:
  using Clock = std::function<std::chrono::system_clock::time_point()>;

  /// Parses a template of at most 1 MiB. `clock` is what strftime_now() reads. Throws quant::Error(kBadFile) with the
  /// line for a syntax error or an unsupported feature, by name.
  ChatTemplate(const std::string& source, std::filesystem::path file_for_messages, std::string bos_token,
               std::string eos_token, Clock clock = std::chrono::system_clock::now);

  /// The template of a model directory: `chat_template.jinja`, else the key `chat_template` of `tokenizer_config.json`
  /// (a string, or a list of {name, template} of which "default" is taken); bos and eos from tokenizer_config.json.
  /// nullopt if the model has none. Throws quant::Error (kIo, kBadFile) for a broken file or template.
  static std::optional<ChatTemplate> from_directory(const std::filesystem::path& dir);

  /// The same from the texts of tokenizer_config.json and chat_template.jinja, either of which may be absent, with
  /// their names for messages.
  static std::optional<ChatTemplate> from_texts(const std::optional<std::string>& config_json,
                                                const std::filesystem::path& config_file,
                                                const std::optional<std::string>& source,
                                                const std::filesystem::path& template_file);

  /// The template itself, found in these texts by the same rules.
  static std::optional<std::string> source_in_texts(const std::optional<std::string>& config_json,
                                                    const std::filesystem::path& config_file,
                                                    const std::optional<std::string>& source);

  /// The prompt for `messages`; `add_generation_prompt` asks for the start of the assistant's turn at its end.
  /// Neighbouring pieces differ in trust and none is empty. Throws quant::Error(kBadFile) if the template fails, with
  /// its own message if it raised one; never returns a partial prompt.
  std::vector<TextPiece> render(std::span<const Message> messages, bool add_generation_prompt) const;

  /// The same for any `context`, a JSON object (messages, tools, add_generation_prompt, thinking, …). All of its text
  /// is untrusted. bos_token and eos_token are always the template's own, whatever the context says.
  std::vector<TextPiece> render(const quant::Json& context) const;

 private:
  struct Parsed;
  std::shared_ptr<const Parsed> parsed_;
};

}  // namespace moraine::runtime
