#include "quant/gguf_cursor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace moraine::quant {
namespace {

constexpr uint64_t kPieceBytes = 64u << 10;

}  // namespace

GgufCursor::GgufCursor(const ReadAt& read, uint64_t file_bytes, const std::filesystem::path& file)
    : read_(read),
      file_(file),
      file_bytes_(file_bytes),
      end_(std::min<uint64_t>(file_bytes, GgufLimits::kMaxHeaderBytes)) {}

void GgufCursor::fail(const std::string& what, const std::string& expected, const std::string& got,
                      const std::string& action) const {
  throw Error(ErrorKind::kBadFile, {.what = what,
                                    .file = file_,
                                    .item = item_,
                                    .offset = offset_,
                                    .expected = expected,
                                    .got = got,
                                    .action = action.empty() ? "download the file again" : action});
}

void GgufCursor::require_room(uint64_t count, uint64_t min_bytes, const char* what) const {
  if (count <= left() / min_bytes) return;
  const bool at_limit = end_ < file_bytes_;
  fail(fmt::format("{} is beyond {}", what, at_limit ? "the longest header" : "the end of the file"),
       fmt::format("at most {}", left() / min_bytes), fmt::format("{}", count));
}

void GgufCursor::take(void* out, uint64_t count, const char* what) {
  require_room(count, 1, what);
  auto* to = static_cast<std::byte*>(out);
  while (count > 0) {
    if (offset_ >= buffer_offset_ + buffer_.size()) {
      buffer_.resize(std::min(kPieceBytes, end_ - offset_));
      buffer_offset_ = offset_;
      read_(buffer_, buffer_offset_);
    }
    const uint64_t at = offset_ - buffer_offset_;
    const uint64_t part = std::min(count, buffer_.size() - at);
    std::memcpy(to, buffer_.data() + at, part);
    to += part;
    offset_ += part;
    count -= part;
  }
}

uint32_t GgufCursor::u32(const char* what) {
  uint32_t value = 0;
  take(&value, sizeof value, what);
  return value;
}

uint64_t GgufCursor::u64(const char* what) {
  uint64_t value = 0;
  take(&value, sizeof value, what);
  return value;
}

void GgufCursor::append(std::string& out, uint64_t count, const char* what) {
  require_room(count, 1, what);
  const size_t old_bytes = out.size();
  out.resize(old_bytes + count);
  take(out.data() + old_bytes, count, what);
}

std::string GgufCursor::string(const char* what, uint64_t max_bytes) {
  const uint64_t count = u64(what);
  if (count > max_bytes) {
    fail(fmt::format("{} is too long", what), fmt::format("at most {} bytes", max_bytes), fmt::format("{}", count));
  }
  std::string text;
  append(text, count, what);
  return text;
}

}  // namespace moraine::quant
