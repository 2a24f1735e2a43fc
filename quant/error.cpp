#include "quant/error.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>

namespace moraine::quant {
namespace {

std::string message_line(const ErrorDetail& detail) {
  std::string line;
  if (!detail.file.empty()) line += printable(detail.file.string(), 4096) + ": ";
  if (!detail.item.empty()) line += fmt::format("'{}': ", printable(detail.item));
  line += detail.what;
  if (detail.offset) line += fmt::format(" at byte {}", *detail.offset);
  if (!detail.expected.empty()) line += fmt::format("; expected {}", detail.expected);
  if (!detail.got.empty()) line += fmt::format("{} got {}", detail.expected.empty() ? ";" : ",", detail.got);
  if (!detail.action.empty()) line += fmt::format(" ({})", detail.action);
  return line;
}

/// Length of the valid UTF-8 sequence at the start of `text`, 0 if there is none or it is a control character.
size_t printable_sequence(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return lead >= 0x20 && lead != 0x7f ? 1 : 0;
  const size_t length = lead >= 0xf0 && lead < 0xf5 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0;
  if (length == 0 || lead >= 0xf5 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

Error::Error(ErrorKind kind, const ErrorDetail& detail) : std::runtime_error(message_line(detail)), kind_(kind) {}

std::string printable(std::string_view text, size_t max_bytes) {
  std::string out;
  while (!text.empty()) {
    if (out.size() >= max_bytes) return out + "…";
    const size_t length = printable_sequence(text);
    if (length == 0) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
      text.remove_prefix(1);
    } else {
      out += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return out;
}

Error system_error(int errno_value, const std::string& what, const std::filesystem::path& file,
                   const std::string& action) {
  const bool lack = errno_value == ENOSPC || errno_value == EDQUOT || errno_value == ENOMEM;
  return Error(lack ? ErrorKind::kNotEnough : ErrorKind::kIo,
               {.what = fmt::format("{}: {}", what, std::strerror(errno_value)), .file = file, .action = action});
}

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "moraine: internal error: %s does not hold (%s:%d); please report this\n", condition, file, line);
  std::abort();
}

}  // namespace moraine::quant
