#include "quant/json_events.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>

namespace moraine::quant {
namespace {

constexpr const char* kDamagedAction = "the file is damaged or incomplete: get it again";

/// A text's characters with a count of those consumed: nlohmann-json tells its handlers no positions.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, uint64_t* consumed) : at_(at), consumed_(consumed) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    ++at_;
    ++*consumed_;
    return *this;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  uint64_t* consumed_;
};

/// "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error …" without all before "syntax".
std::string library_message(std::string_view text) {
  const size_t column = text.find("column ");
  const size_t colon = column == std::string_view::npos ? column : text.find(": ", column);
  if (colon != std::string_view::npos) text.remove_prefix(colon + 2);
  return printable(text, 200);
}

}  // namespace

/// The handler nlohmann-json calls. After a number it has consumed one character more than the number, so an event's
/// position is found as the first significant character behind the previous event.
struct JsonEvents::Sax final : nlohmann::json_sax<Json> {
  explicit Sax(JsonEvents& owner) : events(owner) {}

  void locate() {
    const size_t start = events.text_.find_first_not_of(" \t\r\n,:", previous_end);
    events.token_start_ = start == std::string_view::npos ? events.text_.size() : start;
    previous_end = consumed;
  }
  bool value(Json scalar) {
    locate();
    events.on_value(std::move(scalar));
    return true;
  }
  bool begin(bool is_object) {
    locate();
    events.first_keys_.push_back(events.keys_.size());
    if (events.first_keys_.size() > static_cast<size_t>(events.limits_.max_depth)) {
      events.fail({.what = "the JSON text is nested too deeply",
                   .expected = fmt::format("at most {} levels", events.limits_.max_depth),
                   .action = kDamagedAction});
    }
    events.on_begin(is_object);
    return true;
  }
  bool end() {
    locate();
    events.refuse_duplicate_keys(events.first_keys_.back());
    events.first_keys_.pop_back();
    events.on_end();
    return true;
  }

  bool null() override { return value(nullptr); }
  bool boolean(bool flag) override { return value(flag); }
  bool number_integer(number_integer_t number) override { return value(number); }
  bool number_unsigned(number_unsigned_t number) override { return value(number); }
  bool number_float(number_float_t number, const string_t&) override { return value(number); }
  bool string(string_t& text) override { return value(std::move(text)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return begin(true); }
  bool end_object() override { return end(); }
  bool start_array(size_t) override { return begin(false); }
  bool end_array() override { return end(); }
  bool key(string_t& name) override {
    locate();
    events.keys_.push_back({name, events.token_start_});
    events.on_key(name);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    events.fail({.what = "this is not valid JSON: " + library_message(error.what()),
                 .offset = events.text_offset_ + (position == 0 ? 0 : position - 1),
                 .action = kDamagedAction});
  }

  JsonEvents& events;
  uint64_t consumed = 0;
  uint64_t previous_end = 0;
};

JsonEvents::JsonEvents(std::string_view text, std::filesystem::path file, const JsonLimits& limits,
                       uint64_t text_offset)
    : text_(text), file_(std::move(file)), limits_(limits), text_offset_(text_offset) {}

void JsonEvents::parse() {
  if (text_.size() > limits_.max_bytes) {
    fail({.what = "the JSON text is too long",
          .offset = text_offset_,
          .expected = fmt::format("at most {} bytes", limits_.max_bytes),
          .got = fmt::format("{} bytes", text_.size())});
  }
  // The library takes a NUL byte for the end of the text and would not see what follows it.
  if (const size_t nul = text_.find('\0'); nul != std::string_view::npos) {
    fail({.what = "this is not valid JSON: a NUL byte", .offset = text_offset_ + nul, .action = kDamagedAction});
  }
  Sax sax(*this);
  const CountingIterator begin(text_.data(), &sax.consumed);
  const CountingIterator end(text_.data() + text_.size(), &sax.consumed);
  Json::sax_parse(begin, end, &sax);
}

void JsonEvents::fail(ErrorDetail detail) const {
  detail.file = file_;
  if (!detail.offset) detail.offset = token_offset();
  throw Error(ErrorKind::kBadFile, detail);
}

void JsonEvents::refuse_duplicate_keys(size_t first_key) {
  // Sorting, not hashing: no choice of keys makes it slow.
  const auto first = keys_.begin() + static_cast<std::ptrdiff_t>(first_key);
  std::sort(first, keys_.end(), [](const Key& a, const Key& b) {
    const int order = a.name.compare(b.name);
    return order != 0 ? order < 0 : a.offset < b.offset;
  });
  const auto twice =
      std::adjacent_find(first, keys_.end(), [](const Key& a, const Key& b) { return a.name == b.name; });
  if (twice != keys_.end()) {
    fail({.what = "the key stands twice in one object",
          .item = twice->name,
          .offset = text_offset_ + std::next(twice)->offset,
          .action = "remove one of the two or get the file again"});
  }
  keys_.erase(first, keys_.end());
}

}  // namespace moraine::quant
