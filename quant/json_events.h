#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "quant/error.h"
#include "quant/json.h"

namespace moraine::quant {

/// Walks a JSON text once and tells a derived class what it meets, so that a reader can refuse a wrong value where it
/// stands and keep only what it needs. It refuses by itself what no reader of ours wants: text beyond the limits,
/// invalid UTF-8 or JSON, a key twice in an object, anything behind the value.
class JsonEvents {
 public:
  /// `text_offset` is where the text begins in `file`; offsets in errors count from the start of the file.
  JsonEvents(std::string_view text, std::filesystem::path file, const JsonLimits& limits, uint64_t text_offset = 0);
  virtual ~JsonEvents() = default;
  JsonEvents(const JsonEvents&) = delete;
  JsonEvents& operator=(const JsonEvents&) = delete;

  /// Throws Error(kBadFile) with file and byte offset.
  void parse();

 protected:
  /// A null, boolean, number or string. Integers without sign, fraction and exponent arrive as number_unsigned.
  virtual void on_value(Json value) = 0;
  virtual void on_key(std::string& key) = 0;  // may be moved from
  virtual void on_begin(bool is_object) = 0;
  virtual void on_end() = 0;

  /// Where the current event stands in the file.
  uint64_t token_offset() const { return text_offset_ + token_start_; }

  /// Throws `detail` with the file, and the offset of the current event unless it names one.
  [[noreturn]] void fail(ErrorDetail detail) const;

 private:
  struct Sax;
  struct Key {
    std::string name;
    uint64_t offset;
  };

  void refuse_duplicate_keys(size_t first_key);

  std::string_view text_;
  std::filesystem::path file_;
  JsonLimits limits_;
  uint64_t text_offset_;
  uint64_t token_start_ = 0;        ///< in text_, of the current event
  std::vector<Key> keys_;           // keys of all objects still open, outermost first
  std::vector<size_t> first_keys_;  // per open object or array: where its keys begin in keys_
};

}  // namespace moraine::quant
