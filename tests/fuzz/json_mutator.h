#pragma once

#include <algorithm>
#include <string_view>
#include <vector>

#include "fuzz/mutation.h"

namespace moraine::fuzz {

/// A part of a text.
struct Span {
  size_t begin = 0;
  size_t end = 0;
};

/// The parts of a JSON text: members of objects with their keys, elements of arrays, and values that are no container.
/// Texts that are not quite JSON have parts, too.
struct JsonParts {
  std::vector<Span> elements;
  std::vector<Span> scalars;
};

inline JsonParts find_json_parts(std::string_view text) {
  JsonParts parts;
  std::vector<size_t> begins;  // of the current element, per open container
  constexpr std::string_view kStructure = "{}[],:\" \t\r\n";
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at++;
    switch (text[begin]) {
      case '{':
      case '[':
        begins.push_back(at);
        break;
      case '}':
      case ']':
      case ',':
        if (begins.empty()) break;
        parts.elements.push_back({begins.back(), begin});
        begins.back() = at;
        if (text[begin] != ',') begins.pop_back();
        break;
      case '"':
        while (at < text.size() && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
        at = std::min(at + 1, text.size());
        parts.scalars.push_back({begin, at});
        break;
      case ':':
      case ' ':
      case '\t':
      case '\r':
      case '\n':
        break;
      default:
        at = std::min(text.find_first_of(kStructure, begin), text.size());
        parts.scalars.push_back({begin, at});
    }
  }
  return parts;
}

/// What a value may be instead: of another type, at the edge of its own.
inline std::string other_scalar(Random& random) {
  constexpr std::array<const char*, 16> kOthers = {"null",  "true",  "false", "\"\"",       "[]",    "{}",
                                                   "-1",    "-0",    "0.5",   "1e9",        "1e308", "1e-308",
                                                   "[[1]]", "\"a\"", "1e999", "\"\\ud800\""};
  if (pick(random, 2) == 0) return kOthers[pick(random, kOthers.size())];
  return std::to_string(kTurningPoints[pick(random, kTurningPoints.size())]);
}

/// One change to a JSON text that mostly leaves it JSON.
inline void mutate_json(std::string& text, Random& random) {
  const JsonParts parts = find_json_parts(text);
  if (parts.elements.empty() || parts.scalars.empty()) return mutate_bytes(text, 64);
  const Span element = parts.elements[pick(random, parts.elements.size())];
  const Span scalar = parts.scalars[pick(random, parts.scalars.size())];
  const std::string_view all = text;
  const auto replace = [&](Span span, const std::string& by) { text.replace(span.begin, span.end - span.begin, by); };
  const auto content = [&](Span span) { return std::string(all.substr(span.begin, span.end - span.begin)); };
  switch (pick(random, 6)) {
    case 0:
      return replace(scalar, other_scalar(random));
    case 1:
      return replace(scalar, content(parts.scalars[pick(random, parts.scalars.size())]));
    case 2:
      return replace(element, content(parts.elements[pick(random, parts.elements.size())]));
    case 3:
      return replace(element, content(element) + "," + content(element));
    case 4:
      return replace({element.begin, std::min(element.end + 1, text.size())}, "");
    default: {
      std::string inner = content(scalar);
      mutate_bytes(inner, 32);
      return replace(scalar, inner);
    }
  }
}

/// The mutation of an input that is a JSON text and nothing else.
inline size_t mutate_json_input(uint8_t* data, size_t n_bytes, size_t max_bytes, unsigned seed) {
  Random random(seed);
  if (n_bytes == 0 || pick(random, 3) == 0) return LLVMFuzzerMutate(data, n_bytes, max_bytes);
  std::string text(reinterpret_cast<const char*>(data), n_bytes);
  mutate_json(text, random);
  return hand_over(text, data, n_bytes, max_bytes);
}

}  // namespace moraine::fuzz
