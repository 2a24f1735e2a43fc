#include "runtime/pretokenizer.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "quant/error.h"
#include "runtime/unicode_tables.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace moraine::runtime {
namespace {

constexpr std::string_view kDeepSeekV3Regexes[] = {
    R"(\p{N}{1,3})",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|)"
    "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
    " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
};
constexpr std::string_view kQwen2Regexes[] = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
};
constexpr std::string_view kLlama3Regexes[] = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
};

/// What \p{name} lacks where the system's PCRE2 knows an older Unicode.
std::string_view newer_in_class(char name) {
  for (const NewerInClass& newer : kNewerInClasses) {
    if (newer.name == name) return newer.ranges;
  }
  MORAINE_CHECK(false);
  return {};
}

/// `regex` with \s and \S spelled out, and with Unicode 16's characters in \p{…}. \s means Unicode White_Space; PCRE2's
/// would also match U+180E.
std::string spell_out_classes(std::string_view regex) {
  constexpr std::string_view kWhiteSpace = R"(\x09-\x0d\x{85}\p{Z})";
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < regex.size(); ++i) {
    if (regex[i] == '\\') {
      const char escaped = regex[++i];
      if (escaped == 's') {
        out.append(in_class ? "" : "[").append(kWhiteSpace).append(in_class ? "" : "]");
      } else if (escaped == 'S') {
        MORAINE_CHECK(!in_class);
        out.append("[^").append(kWhiteSpace).append("]");
      } else if (escaped == 'p') {
        const std::string_view property = regex.substr(i - 1, 5);  // \p{X}
        MORAINE_CHECK(property.size() == 5 && property[2] == '{' && property[4] == '}');
        out.append(in_class ? "" : "[")
            .append(property)
            .append(newer_in_class(property[3]))
            .append(in_class ? "" : "]");
        i += 3;
      } else {
        out.append({'\\', escaped});
      }
      continue;
    }
    if (regex[i] == '[') in_class = true;
    if (regex[i] == ']') in_class = false;
    out += regex[i];
  }
  return out;
}

quant::Error match_error(int result) {
  PCRE2_UCHAR message[128] = {};
  pcre2_get_error_message(result, message, sizeof(message));
  return quant::Error(quant::ErrorKind::kNotEnough, {.what = "cutting the text into words failed",
                                                     .got = reinterpret_cast<const char*>(message),
                                                     .action = "give a shorter text"});
}

struct MatchDataDelete {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct MatchContextDelete {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

/// What PCRE2 needs for one text; not to be shared by threads.
class Matching {
 public:
  Matching() : data_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {
    if (!data_ || !context_) throw match_error(PCRE2_ERROR_NOMEMORY);
    // The limit is against regexes that take exponential time. Ours do not, but a run of spaces takes a step for each.
    pcre2_set_match_limit(context_.get(), UINT32_MAX);
  }

  pcre2_match_data* data() const { return data_.get(); }
  pcre2_match_context* context() const { return context_.get(); }

 private:
  std::unique_ptr<pcre2_match_data, MatchDataDelete> data_;
  std::unique_ptr<pcre2_match_context, MatchContextDelete> context_;
};

}  // namespace

std::span<const std::string_view> pre_tokenizer_regexes(PreTokenizerKind kind) {
  switch (kind) {
    case PreTokenizerKind::kDeepSeekV3:
      return kDeepSeekV3Regexes;
    case PreTokenizerKind::kQwen2:
      return kQwen2Regexes;
    case PreTokenizerKind::kLlama3:
      return kLlama3Regexes;
  }
  MORAINE_CHECK(false);
  return {};
}

/// A compiled regex; may be used by several threads at once.
class PreTokenizer::Regex {
 public:
  explicit Regex(std::string_view text) {
    const std::string spelled_out = spell_out_classes(text);
    int error_code = 0;
    PCRE2_SIZE error_offset = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelled_out.data()), spelled_out.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error_code, &error_offset, nullptr);
    MORAINE_CHECK(code_ != nullptr);
    // Where the system forbids executable memory this fails and pcre2_match interprets: slower, same matches.
    static_cast<void>(pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE));
  }
  ~Regex() { pcre2_code_free(code_); }
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  /// Appends the matches in `text` and the stretches between them.
  void isolate(std::string_view text, const Matching& matching, std::vector<std::string_view>& pieces) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    size_t done = 0;
    while (done < text.size()) {
      const int result =
          pcre2_match(code_, subject, text.size(), done, PCRE2_NO_UTF_CHECK, matching.data(), matching.context());
      if (result == PCRE2_ERROR_NOMATCH) break;
      if (result < 0) throw match_error(result);
      const PCRE2_SIZE* match = pcre2_get_ovector_pointer(matching.data());
      MORAINE_CHECK(match[1] > match[0]);  // no regex here matches the empty text
      if (match[0] > done) pieces.push_back(text.substr(done, match[0] - done));
      pieces.push_back(text.substr(match[0], match[1] - match[0]));
      done = match[1];
    }
    if (done < text.size()) pieces.push_back(text.substr(done));
  }

 private:
  pcre2_code* code_ = nullptr;
};

std::optional<PreTokenizerKind> find_pre_tokenizer(std::span<const std::string> regexes) {
  for (const auto kind : {PreTokenizerKind::kDeepSeekV3, PreTokenizerKind::kQwen2, PreTokenizerKind::kLlama3}) {
    if (std::ranges::equal(regexes, pre_tokenizer_regexes(kind))) return kind;
  }
  return std::nullopt;
}

PreTokenizer::PreTokenizer(PreTokenizerKind kind) : kind_(kind) {
  for (const std::string_view regex : pre_tokenizer_regexes(kind))
    regexes_.push_back(std::make_shared<const Regex>(regex));
}

std::vector<std::string_view> PreTokenizer::split(std::string_view text) const {
  std::vector<std::string_view> pieces;
  if (text.empty()) return pieces;
  const Matching matching;
  pieces.push_back(text);
  for (const auto& regex : regexes_) {
    std::vector<std::string_view> finer;
    finer.reserve(pieces.size());
    for (const std::string_view piece : pieces) regex->isolate(piece, matching, finer);
    pieces = std::move(finer);
  }
  return pieces;
}

}  // namespace moraine::runtime
