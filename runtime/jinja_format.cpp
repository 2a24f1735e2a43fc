#include "runtime/jinja_format.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace moraine::runtime::jinja {
namespace {

/// str.isprintable() for one code point.
bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

/// Grows one string out of a value; checks the budget as it goes.
class Writer {
 public:
  explicit Writer(Heap& heap) : heap_(heap) {}

  void structure(std::string_view bytes) { checked(bytes.size()), out_.append(bytes, false); }
  void part(const Text& text, size_t begin, size_t end) { checked(end - begin), out_.append_part(text, begin, end); }
  void escaped(std::string_view bytes, bool trusted) { checked(bytes.size()), out_.append(bytes, trusted); }
  Heap& heap() { return heap_; }
  Value take() { return heap_.text(std::move(out_)); }

 private:
  void checked(size_t more) { heap_.budget().check_text(out_.size() + more); }

  Heap& heap_;
  Text out_;
};

/// Copies `text`, with every code point for which `escape` returns something replaced.
template <typename Escape>
void write_escaped(Writer& out, const Text& text, const Escape& escape) {
  out.heap().budget().scan(text.size() * 4);
  size_t plain = 0;  // start of the stretch that needs no escape
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = code_point_at(text.bytes(), at);
    if (const std::string escaped = escape(point.value); !escaped.empty()) {
      out.part(text, plain, at);
      out.escaped(escaped, text.trusted_at(at));
      plain = at + point.length;
    }
    at += point.length;
  }
  out.part(text, plain, text.size());
}

void write_repr(Writer& out, const Text& text) {
  const std::string_view bytes = text.bytes();
  const bool double_quote = bytes.find('\'') != bytes.npos && bytes.find('"') == bytes.npos;
  const char quote = double_quote ? '"' : '\'';
  out.structure({&quote, 1});
  write_escaped(out, text, [&](char32_t c) -> std::string {
    if (c == static_cast<char32_t>(quote) || c == '\\') return {'\\', static_cast<char>(c)};
    if (c == '\n') return "\\n";
    if (c == '\r') return "\\r";
    if (c == '\t') return "\\t";
    if ((c >= 0x20 && c < 0x7f) || is_printable(c)) return {};
    const auto code = static_cast<uint32_t>(c);
    return code <= 0xff     ? fmt::format("\\x{:02x}", code)
           : code <= 0xffff ? fmt::format("\\u{:04x}", code)
                            : fmt::format("\\U{:08x}", code);
  });
  out.structure({&quote, 1});
}

void write_repr(Writer& out, const Value& value);

void write_repr(Writer& out, const List& list) {
  if (list.kind == ListKind::kGenerator || list.kind == ListKind::kView) {
    throw TemplateError("a generator or view of a dictionary can't be printed (use the filter 'list')");
  }
  const bool tuple = list.kind == ListKind::kTuple;
  out.structure(tuple ? "(" : "[");
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out.structure(", ");
    write_repr(out, list.items[i]);
  }
  if (tuple && list.items.size() == 1) out.structure(",");
  out.structure(tuple ? ")" : "]");
}

void write_repr(Writer& out, const Dict& dict) {
  out.structure("{");
  for (size_t i = 0; i < dict.items.size(); ++i) {
    if (i > 0) out.structure(", ");
    write_repr(out, dict.items[i].first);
    out.structure(": ");
    write_repr(out, dict.items[i].second);
  }
  out.structure("}");
}

/// Number, boolean or none; empty for anything else.
std::string scalar_repr(const Value& value) {
  if (is_none(value)) return "None";
  if (const auto* boolean = std::get_if<bool>(&value)) return *boolean ? "True" : "False";
  if (const auto* integer = std::get_if<int64_t>(&value)) return fmt::format("{}", *integer);
  if (const auto* real = std::get_if<double>(&value)) return format_float(*real);
  return {};
}

/// Depth of recursion is bounded by kMaxValueDepth.
void write_repr(Writer& out, const Value& value) {
  out.heap().budget().step();
  if (const Text* text = as_text(value)) return write_repr(out, *text);
  if (const auto* list = std::get_if<List*>(&value)) return write_repr(out, **list);
  if (const auto* dict = std::get_if<Dict*>(&value)) return write_repr(out, **dict);
  if (is_undefined(value)) return out.structure("Undefined");
  const std::string scalar = scalar_repr(value);
  if (scalar.empty()) throw TemplateError(fmt::format("a {} can't be printed", type_name(value)));
  out.structure(scalar);
}

std::string json_escape(char32_t c, bool ensure_ascii) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    default:
      break;
  }
  const auto code = static_cast<uint32_t>(c);
  if (code < 0x20 || (ensure_ascii && code >= 0x7f && code <= 0xffff)) {
    return fmt::format("\\u{:04x}", code);
  }
  if (!ensure_ascii || code < 0x80) return {};
  return fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff));
}

class JsonWriter {
 public:
  JsonWriter(Heap& heap, const JsonFormat& format)
      : out_(heap),
        format_(format),
        item_separator_(format.item_separator.value_or(format.indent ? "," : ", ")),
        key_separator_(format.key_separator.value_or(": ")) {}

  /// Depth of recursion is bounded by kMaxValueDepth.
  void value(const Value& value, int level) {
    out_.heap().budget().step();
    if (const Text* text = as_text(value)) return string(*text);
    if (const auto* dict = std::get_if<Dict*>(&value)) return object(**dict, level);
    if (const auto* list = std::get_if<List*>(&value);
        list && ((*list)->kind == ListKind::kList || (*list)->kind == ListKind::kTuple)) {
      return array(**list, level);
    }
    const std::string text = scalar(value);
    if (text.empty()) throw TemplateError(fmt::format("Object of type {} is not JSON serializable", type_name(value)));
    out_.structure(text);
  }

  Value take() { return out_.take(); }

 private:
  static std::string scalar(const Value& value) {
    if (is_none(value)) return "null";
    if (const auto* boolean = std::get_if<bool>(&value)) return *boolean ? "true" : "false";
    if (const auto* real = std::get_if<double>(&value); real && !std::isfinite(*real)) {
      return std::isnan(*real) ? "NaN" : *real > 0 ? "Infinity" : "-Infinity";
    }
    return scalar_repr(value);
  }

  void string(const Text& text) {
    out_.structure("\"");
    write_escaped(out_, text, [this](char32_t c) { return json_escape(c, format_.ensure_ascii); });
    out_.structure("\"");
  }

  void new_line(int level) {
    if (!format_.indent) return;
    out_.structure("\n");
    constexpr int64_t kMaxIndent = 1 << 20;  // far beyond use, small enough for the product below
    const size_t spaces =
        static_cast<size_t>(std::clamp<int64_t>(*format_.indent, 0, kMaxIndent)) * static_cast<size_t>(level);
    out_.heap().budget().check_text(spaces);
    out_.structure(std::string(spaces, ' '));
  }

  void array(const List& list, int level) {
    if (list.items.empty()) return out_.structure("[]");
    out_.structure("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_.structure(item_separator_);
      new_line(level + 1);
      value(list.items[i], level + 1);
    }
    new_line(level);
    out_.structure("]");
  }

  void object(const Dict& dict, int level) {
    if (dict.items.empty()) return out_.structure("{}");
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (format_.sort_keys) sort(items);
    out_.structure("{");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.structure(item_separator_);
      new_line(level + 1);
      if (const Text* key = as_text(items[i]->first)) {
        string(*key);
      } else {
        out_.structure("\"" + scalar(items[i]->first) + "\"");
      }
      out_.structure(key_separator_);
      value(items[i]->second, level + 1);
    }
    new_line(level);
    out_.structure("}");
  }

  void sort(std::vector<const std::pair<Value, Value>*>& items) {
    for (const auto* item : items) {
      const Text& key = require_text(item->first, "every key for sort_keys");
      out_.heap().budget().scan(key.size() * 16);
    }
    std::stable_sort(items.begin(), items.end(), [](const auto* left, const auto* right) {
      return as_text(left->first)->bytes() < as_text(right->first)->bytes();
    });
  }

  Writer out_;
  const JsonFormat& format_;
  std::string item_separator_;
  std::string key_separator_;
};

}  // namespace

Value to_text(Heap& heap, const Value& value) {
  if (as_text(value)) return value;
  if (is_undefined(value)) return heap.text({}, false);
  Writer out(heap);
  write_repr(out, value);
  return out.take();
}

std::string format_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string scientific(buffer, end);
  const size_t e = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return scientific;  // the same form as Python's: at least two exponent digits

  const bool negative = scientific[0] == '-';
  std::string digits;
  for (const char c : scientific.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  if (exponent < 0) {
    digits = "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  } else {
    const auto whole = static_cast<size_t>(exponent) + 1;
    if (digits.size() < whole + 1) digits.append(whole + 1 - digits.size(), '0');
    digits.insert(whole, ".");
  }
  return (negative ? "-" : "") + digits;
}

Value to_json(Heap& heap, const Value& value, const JsonFormat& format) {
  require_defined(value);
  JsonWriter out(heap, format);
  out.value(value, 0);
  return out.take();
}

}  // namespace moraine::runtime::jinja
