#include "tools/chat_file.h"

#include <fmt/format.h>

#include "quant/error.h"
#include "quant/file_io.h"
#include "quant/json.h"

namespace moraine::tools {
namespace {

constexpr const char* kFormat = "moraine-chat-1";

[[noreturn]] void refuse(const std::filesystem::path& file, std::string item, std::string expected) {
  throw quant::Error(quant::ErrorKind::kBadFile, {.what = "not a saved chat",
                                                  .file = file,
                                                  .item = std::move(item),
                                                  .expected = std::move(expected),
                                                  .action = "/load takes files that /save wrote"});
}

std::string text_field(const quant::Json& object, const char* name, const std::filesystem::path& file,
                       const std::string& where) {
  const auto field = object.find(name);
  if (field == object.end() || !field->is_string()) refuse(file, where + name, "a string");
  return field->get<std::string>();
}

}  // namespace

void write_chat_file(const std::filesystem::path& file, const ChatFile& chat) {
  quant::Json messages = quant::Json::array();
  for (const runtime::Message& message : chat.messages) {
    messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  const quant::Json document = {{"format", kFormat}, {"model", chat.model}, {"messages", std::move(messages)}};
  quant::write_file_atomically(file, document.dump(2, ' ', false, quant::Json::error_handler_t::replace) + "\n");
}

ChatFile read_chat_file(const std::filesystem::path& file) {
  const quant::Json document = quant::read_json(file);
  if (!document.is_object()) refuse(file, "", "an object");
  if (text_field(document, "format", file, "") != kFormat) refuse(file, "format", kFormat);
  ChatFile chat;
  chat.model = text_field(document, "model", file, "");
  const auto messages = document.find("messages");
  if (messages == document.end() || !messages->is_array()) refuse(file, "messages", "a list");
  for (size_t index = 0; index < messages->size(); ++index) {
    const quant::Json& message = (*messages)[index];
    const std::string where = fmt::format("messages[{}].", index);
    if (!message.is_object()) refuse(file, where, "an object");
    const std::string role = text_field(message, "role", file, where);
    if (role != "system" && role != "user" && role != "assistant") {
      refuse(file, where + "role", "system, user or assistant");
    }
    chat.messages.push_back({.role = role, .content = text_field(message, "content", file, where)});
  }
  return chat;
}

}  // namespace moraine::tools
