#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/chat_template.h"

namespace moraine::tools {

/// A conversation on disk (`/save`, `/load`): JSON
/// {"format": "moraine-chat-1", "model": NAME, "messages": [{"role": "system|user|assistant", "content": TEXT}, …]}.
struct ChatFile {
  std::string model;  ///< name of the model it was held with: for people, any model can go on with it
  std::vector<runtime::Message> messages;
};

/// tmp + fsync + rename. Text that is no valid UTF-8 is repaired. Throws quant::Error(kIo / kNotEnough).
void write_chat_file(const std::filesystem::path& file, const ChatFile& chat);

/// Throws quant::Error(kBadFile) naming the message and field that is wrong, kIo if it can't be read.
ChatFile read_chat_file(const std::filesystem::path& file);

}  // namespace moraine::tools
