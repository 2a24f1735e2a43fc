#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moraine::runtime::jinja {

/// A UTF-8 string that knows, byte by byte, whether it was written by the template (trusted) or comes from the context
/// (untrusted). Every operation below keeps this. Bytes that are not UTF-8 count as one code point each.
class Text {
 public:
  /// Bytes up to `end` (from the end of the run before) have one origin.
  struct Run {
    size_t end;
    bool trusted;
  };

  Text() = default;
  Text(std::string bytes, bool trusted);

  std::string_view bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  const std::vector<Run>& runs() const { return runs_; }

  void append(std::string_view bytes, bool trusted);
  void append(const Text& other) { append_part(other, 0, other.size()); }
  /// Appends bytes [begin, end) of `from`; not from itself.
  void append_part(const Text& from, size_t begin, size_t end);

  /// Bytes [begin, end).
  Text part(size_t begin, size_t end) const;
  bool trusted_at(size_t offset) const;

  /// Memory it takes, for the Budget.
  size_t cost_bytes() const { return sizeof(Text) + bytes_.size() + runs_.size() * sizeof(Run); }

 private:
  size_t run_at(size_t offset) const;

  std::string bytes_;
  std::vector<Run> runs_;  ///< ascending ends, neighbours differ, the last ends at size()
};

/// The code point at `offset` and its length in bytes. A byte that starts no valid sequence becomes U+DC00 + byte, as
/// Python's surrogateescape.
struct CodePoint {
  char32_t value;
  size_t length;
};
CodePoint code_point_at(std::string_view text, size_t offset);

void append_utf8(std::string& out, char32_t code_point);
size_t count_code_points(std::string_view text);
/// Byte offset of each code point, and the size at the end.
std::vector<size_t> code_point_offsets(std::string_view text);

/// White space as Python's str.isspace() and str.strip() see it.
bool is_space(char32_t code_point);

/// First place of `needle` (under 4 GiB) at or after `from`; npos if there is none. Linear in both lengths, whatever
/// they hold.
size_t find_text(std::string_view text, std::string_view needle, size_t from = 0);

/// Byte range left of `text` after stripping white space, or the code points of `chars`, from the sides asked for.
std::pair<size_t, size_t> strip_range(std::string_view text, const std::optional<std::string_view>& chars, bool left,
                                      bool right);

enum class Case {
  kUpper,
  kLower,
  kTitle,       ///< upper after anything without case
  kCapitalize,  ///< upper at the start only
  kWords,       ///< Jinja's filter `title`: upper at the start and after white space or one of -({[<
};

/// Python's str.upper(), lower(), title(), capitalize() with one-to-one case mappings, save for ß → SS.
Text change_case(const Text& text, Case wanted);

/// Every `old` replaced, at most `max_count` times (all if negative). An empty `old` matches between code points.
/// `max_bytes`: the result stops growing one replacement beyond it.
Text replace_text(const Text& text, std::string_view old, const Text& replacement, long long max_count,
                  size_t max_bytes);

}  // namespace moraine::runtime::jinja
