#include "quant/json.h"

#include <fmt/format.h>

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quant/file_io.h"
#include "quant/json_events.h"

namespace moraine::quant {
namespace {

/// Builds the value of a whole text. Members are appended without the search for an equal key that ordered_json would
/// make for each (quadratic in a vocabulary of 129,280 entries): JsonEvents refuses duplicates.
class ValueBuilder final : public JsonEvents {
 public:
  using JsonEvents::JsonEvents;
  Json take() { return std::move(root_); }

 private:
  /// The place of the value that comes next, now holding it.
  Json* place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (Json::array_t* array = open_.back()->get_ptr<Json::array_t*>()) return &array->emplace_back(std::move(value));
    // ordered_map is a vector of pairs; its own emplace() is the one that searches.
    auto& members = static_cast<Json::object_t::Container&>(open_.back()->get_ref<Json::object_t&>());
    return &members.emplace_back(std::move(key_), std::move(value)).second;
  }

  void on_value(Json value) override { place(std::move(value)); }
  void on_key(std::string& key) override { key_ = std::move(key); }
  // A parent's storage never grows while a child is open, so the pointers in open_ stay valid.
  void on_begin(bool is_object) override { open_.push_back(place(is_object ? Json::object() : Json::array())); }
  void on_end() override { open_.pop_back(); }

  Json root_;
  std::vector<Json*> open_;  // objects and arrays not yet closed, outermost first
  std::string key_;
};

}  // namespace

Json parse_json(std::string_view text, const std::filesystem::path& file, const JsonLimits& limits) {
  ValueBuilder builder(text, file, limits);
  builder.parse();
  return builder.take();
}

Json read_json(const std::filesystem::path& file, const JsonLimits& limits) {
  const std::string text = read_text(file, limits.max_bytes);
  refuse_lfs_pointer(text, file);
  return parse_json(text, file, limits);
}

std::string read_text(const std::filesystem::path& file, uint64_t max_bytes) {
  const UniqueFd fd = open_for_read(file);
  const uint64_t size_bytes = file_bytes(fd.get(), file);
  if (size_bytes > max_bytes) {
    throw Error(ErrorKind::kBadFile, {.what = "the file is too large",
                                      .file = file,
                                      .expected = fmt::format("at most {} bytes", max_bytes),
                                      .got = fmt::format("{} bytes", size_bytes),
                                      .action = "check that it is the file you meant"});
  }
  std::string text(size_bytes, '\0');
  pread_exact(fd.get(), std::as_writable_bytes(std::span(text)), 0, file);
  return text;
}

}  // namespace moraine::quant
