#include "quant/error.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

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

/// Length of the printable UTF-8 character at the start of `text`; 0 if there is none (RFC 3629: no overlong forms, no
/// surrogates, nothing above U+10FFFF), or if it is a C0 or C1 control character, which a terminal would obey.
size_t printable_sequence(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return byte(0) >= 0x20 && byte(0) != 0x7f ? 1 : 0;
  const size_t length = byte(0) >= 0xf0 ? 4 : byte(0) >= 0xe0 ? 3 : 2;
  if (byte(0) < 0xc2 || byte(0) > 0xf4 || text.size() < length) return 0;
  uint32_t code = byte(0) & (0xffu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3fu);
  }
  const uint32_t least = length == 4 ? 0x10000u : length == 3 ? 0x800u : 0xa0u;  // 0x80 … 0x9f are controls
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  return code >= least && code <= 0x10ffff && !surrogate ? length : 0;
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
  std::fprintf(stderr, "moraine: internal error: %s does not hold (%s:%d); please report this\n", condition, file,
               line);
  std::abort();
}

}  // namespace moraine::quant
