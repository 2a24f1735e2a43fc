#include "runtime/jinja_text.h"

#include <utf8proc.h>

#include <algorithm>

namespace moraine::runtime::jinja {

Text::Text(std::string bytes, bool trusted) : bytes_(std::move(bytes)) {
  if (!bytes_.empty()) runs_.push_back({bytes_.size(), trusted});
}

size_t Text::run_at(size_t offset) const {
  const auto run =
      std::upper_bound(runs_.begin(), runs_.end(), offset, [](size_t at, const Run& r) { return at < r.end; });
  return static_cast<size_t>(run - runs_.begin());
}

void Text::append(std::string_view bytes, bool trusted) {
  if (bytes.empty()) return;
  bytes_ += bytes;
  if (!runs_.empty() && runs_.back().trusted == trusted) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), trusted});
  }
}

void Text::append_part(const Text& from, size_t begin, size_t end) {
  for (size_t run = from.run_at(begin); begin < end; ++run) {
    const size_t run_end = std::min(from.runs_[run].end, end);
    append(from.bytes().substr(begin, run_end - begin), from.runs_[run].trusted);
    begin = run_end;
  }
}

Text Text::part(size_t begin, size_t end) const {
  Text result;
  result.append_part(*this, begin, end);
  return result;
}

bool Text::trusted_at(size_t offset) const {
  return runs_[run_at(offset)].trusted;
}

CodePoint code_point_at(std::string_view text, size_t offset) {
  const auto lead = static_cast<unsigned char>(text[offset]);
  if (lead < 0x80) return {lead, 1};
  utf8proc_int32_t value = 0;
  const size_t rest = std::min<size_t>(text.size() - offset, 4);
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + offset,
                                       static_cast<utf8proc_ssize_t>(rest), &value);
  if (length <= 0) return {0xdc00u + lead, 1};
  return {static_cast<char32_t>(value), static_cast<size_t>(length)};
}

void append_utf8(std::string& out, char32_t code_point) {
  if (code_point >= 0xdc80 && code_point <= 0xdcff) {  // a stray byte, see code_point_at
    out += static_cast<char>(code_point - 0xdc00);
    return;
  }
  utf8proc_uint8_t buffer[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), buffer);
  out.append(reinterpret_cast<const char*>(buffer), static_cast<size_t>(length));
}

size_t count_code_points(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += code_point_at(text, at).length) ++count;
  return count;
}

std::vector<size_t> code_point_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  for (size_t at = 0; at < text.size(); at += code_point_at(text, at).length) offsets.push_back(at);
  offsets.push_back(text.size());
  return offsets;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t find_text(std::string_view text, std::string_view needle, size_t from) {
  constexpr size_t kShortNeedle = 16;  // up to here string_view::find's worst case is a small factor
  if (needle.size() <= kShortNeedle) return text.find(needle, from);
  if (from > text.size() || text.size() - from < needle.size()) return std::string_view::npos;

  // Knuth-Morris-Pratt: border[i] = length of the longest proper border of needle[0..i].
  std::vector<uint32_t> border(needle.size(), 0);
  for (uint32_t i = 1, length = 0; i < needle.size(); ++i) {
    while (length > 0 && needle[i] != needle[length]) length = border[length - 1];
    if (needle[i] == needle[length]) ++length;
    border[i] = length;
  }
  for (size_t i = from, length = 0; i < text.size(); ++i) {
    while (length > 0 && text[i] != needle[length]) length = border[length - 1];
    if (text[i] == needle[length]) ++length;
    if (length == needle.size()) return i + 1 - length;
  }
  return std::string_view::npos;
}

std::pair<size_t, size_t> strip_range(std::string_view text, const std::optional<std::string_view>& chars, bool left,
                                      bool right) {
  std::vector<char32_t> set;
  if (chars) {
    for (size_t at = 0; at < chars->size();) {
      const CodePoint point = code_point_at(*chars, at);
      set.push_back(point.value);
      at += point.length;
    }
    std::sort(set.begin(), set.end());
  }
  const auto strips = [&](char32_t c) { return chars ? std::binary_search(set.begin(), set.end(), c) : is_space(c); };

  size_t begin = 0;
  while (left && begin < text.size()) {
    const CodePoint point = code_point_at(text, begin);
    if (!strips(point.value)) break;
    begin += point.length;
  }
  size_t end = text.size();
  while (right && end > begin) {
    // Step back over one code point: at most three continuation bytes, or one stray byte.
    size_t start = end - 1;
    for (size_t back = 1; back <= 4 && back <= end - begin; ++back) {
      if (code_point_at(text, end - back).length == back) start = end - back;
    }
    if (!strips(code_point_at(text, start).value)) break;
    end = start;
  }
  return {begin, end};
}

Text change_case(const Text& text, Case wanted) {
  Text result;
  bool upper_next = true;  // for title and capitalize
  std::string mapped;
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = code_point_at(text.bytes(), at);
    const auto code = static_cast<utf8proc_int32_t>(point.value);
    const bool upper = wanted == Case::kUpper || (wanted != Case::kLower && upper_next);
    const utf8proc_int32_t changed = upper && wanted != Case::kUpper ? utf8proc_totitle(code)
                                     : upper                         ? utf8proc_toupper(code)
                                                                     : utf8proc_tolower(code);
    const bool cased = utf8proc_toupper(code) != code || utf8proc_tolower(code) != code;
    upper_next = wanted == Case::kTitle && !cased;
    if (wanted == Case::kWords) {
      upper_next =
          is_space(point.value) || std::u32string_view(U"-({[<").find(point.value) != std::u32string_view::npos;
    }
    mapped.clear();
    if (upper && point.value == U'ß') {
      mapped = wanted == Case::kUpper ? "SS" : "Ss";
    } else {
      append_utf8(mapped, static_cast<char32_t>(changed));
    }
    result.append(mapped, text.trusted_at(at));
    at += point.length;
  }
  return result;
}

Text replace_text(const Text& text, std::string_view old, const Text& replacement, long long max_count,
                  size_t max_bytes) {
  Text result;
  size_t done = 0;  // bytes of `text` already copied
  for (long long count = 0; max_count < 0 || count < max_count; ++count) {
    if (result.size() > max_bytes) return result;
    if (old.empty()) {
      result.append(replacement);
      if (done == text.size()) return result;
      const size_t next = done + code_point_at(text.bytes(), done).length;
      result.append_part(text, done, next);
      done = next;
      continue;
    }
    const size_t found = find_text(text.bytes(), old, done);
    if (found == std::string_view::npos) break;
    result.append_part(text, done, found);
    result.append(replacement);
    done = found + old.size();
  }
  result.append_part(text, done, text.size());
  return result;
}

}  // namespace moraine::runtime::jinja
