#include "quant/safetensors_header.h"

#include <fmt/format.h>

#include <limits>
#include <utility>

#include "quant/error.h"
#include "quant/json_events.h"

namespace moraine::quant {
namespace {

constexpr const char* kMetadataName = "__metadata__";
constexpr size_t kMaxNameBytes = 512;
constexpr int kHeaderDepth = 3;  // the header, an entry, its shape or data_offsets
constexpr const char* kDamagedAction = "the file is damaged or incomplete: download it again";

std::string describe(const Json& value) {
  return value.is_string() ? fmt::format("\"{}\"", printable(value.get_ref<const std::string&>(), 60)) : value.dump();
}

/// Follows the header through its events; `place_` says what may come next.
class HeaderReader final : public JsonEvents {
 public:
  HeaderReader(std::string_view header, const std::filesystem::path& file, const JsonLimits& limits,
               uint64_t text_offset, BlockFormats block_formats)
      : JsonEvents(header, file, limits, text_offset), block_formats_(block_formats) {}
  std::vector<HeaderEntry> take() { return std::move(entries_); }

 private:
  enum class Place {
    kStart,          ///< before the header's {
    kNames,          ///< in the header: a tensor's name comes
    kEntry,          ///< behind a name: the entry's { comes
    kFields,         ///< in an entry: a field's name comes
    kDtype,          ///< the dtype's string comes
    kShape,          ///< the shape's [ comes
    kDimensions,     ///< in the shape
    kDataOffsets,    ///< the [ of data_offsets comes
    kBounds,         ///< in data_offsets
    kMetadata,       ///< behind "__metadata__": its { comes
    kMetadataKeys,   ///< in the metadata: a key comes
    kMetadataValue,  ///< a string comes
    kEnd,            ///< behind the header's }
  };

  [[noreturn]] void refuse(std::string what, std::string expected = {}, std::string got = {}) {
    fail({.what = std::move(what),
          .item = item_,
          .expected = std::move(expected),
          .got = std::move(got),
          .action = kDamagedAction});
  }

  [[noreturn]] void refuse_kind(const std::string& got) {
    switch (place_) {
      case Place::kEntry:
        refuse("a tensor's entry has the wrong type", "an object", got);
      case Place::kDtype:
        refuse("dtype has the wrong type", "a string", got);
      case Place::kShape:
        refuse("shape has the wrong type", "an array of unsigned integers", got);
      case Place::kDimensions:
        refuse("shape has a wrong value", "an unsigned integer below 2^63", got);
      case Place::kDataOffsets:
        refuse("data_offsets has the wrong type", "an array of two unsigned integers", got);
      case Place::kBounds:
        refuse("data_offsets has a wrong value", "an unsigned integer below 2^63", got);
      case Place::kMetadata:
        refuse("the metadata have the wrong type", "an object of strings", got);
      case Place::kMetadataValue:
        refuse("a metadata value has the wrong type", "a string", got);
      default:
        refuse("the header has the wrong type", "an object", got);
    }
  }

  void on_begin(bool is_object) override {
    const std::string got = is_object ? "an object" : "an array";
    if (is_object && place_ == Place::kStart) {
      place_ = Place::kNames;
    } else if (is_object && place_ == Place::kEntry) {
      has_dtype_ = has_shape_ = false;
      n_bounds_ = 0;
      place_ = Place::kFields;
    } else if (is_object && place_ == Place::kMetadata) {
      place_ = Place::kMetadataKeys;
    } else if (!is_object && place_ == Place::kShape) {
      entries_.back().shape.clear();  // a second "shape" is refused at the entry's end
      place_ = Place::kDimensions;
    } else if (!is_object && place_ == Place::kDataOffsets) {
      n_bounds_ = 0;
      place_ = Place::kBounds;
    } else {
      refuse_kind(got);
    }
  }

  void on_end() override {
    if (place_ == Place::kDimensions) {
      has_shape_ = true;
      place_ = Place::kFields;
    } else if (place_ == Place::kBounds) {
      if (n_bounds_ != 2) refuse("data_offsets has too few numbers", "two", fmt::format("{}", n_bounds_));
      place_ = Place::kFields;
    } else if (place_ == Place::kFields) {
      const char* missing = !has_dtype_ ? "dtype" : !has_shape_ ? "shape" : n_bounds_ != 2 ? "data_offsets" : nullptr;
      if (missing != nullptr) refuse(fmt::format("the entry has no {}", missing));
      item_.clear();
      place_ = Place::kNames;
    } else if (place_ == Place::kMetadataKeys) {
      item_.clear();
      place_ = Place::kNames;
    } else {
      place_ = Place::kEnd;
    }
  }

  void on_key(std::string& key) override {
    if (place_ == Place::kMetadataKeys) {
      place_ = Place::kMetadataValue;
    } else if (place_ == Place::kNames) {
      begin_entry(key);
    } else if (key == "dtype") {
      place_ = Place::kDtype;
    } else if (key == "shape") {
      place_ = Place::kShape;
    } else if (key == "data_offsets") {
      place_ = Place::kDataOffsets;
    } else {
      // A field we do not know could change what the bytes mean.
      refuse("the entry has an unknown field", "dtype, shape and data_offsets", '"' + printable(key, 60) + '"');
    }
  }

  void begin_entry(const std::string& name) {
    item_ = name;
    if (name == kMetadataName) {
      place_ = Place::kMetadata;
      return;
    }
    if (name.size() > kMaxNameBytes) {
      refuse("a tensor's name is too long", fmt::format("at most {} bytes", kMaxNameBytes),
             fmt::format("{} bytes", name.size()));
    }
    if (name.find('\0') != std::string::npos) refuse("a tensor's name holds a NUL byte");
    HeaderEntry& entry = entries_.emplace_back();
    entry.name = name;
    entry.header_offset = token_offset();
    place_ = Place::kEntry;
  }

  void on_value(Json value) override {
    if (place_ == Place::kDtype && value.is_string()) {
      read_dtype(value.get_ref<const std::string&>());
    } else if (place_ == Place::kMetadataValue && value.is_string()) {
      place_ = Place::kMetadataKeys;
    } else if (place_ == Place::kDimensions || place_ == Place::kBounds) {
      read_number(value);
    } else {
      refuse_kind(describe(value));
    }
  }

  void read_dtype(const std::string& name) {
    const std::optional<DType> dtype = dtype_from_name(name);
    // Block formats are GGUF's; a published safetensors file cannot hold them.
    if (!dtype || (block_elements(*dtype) != 1 && block_formats_ == BlockFormats::kRefused)) {
      refuse("unknown dtype",
             dtype ? "a block format only in a finished Moraine pack" : "one of the safetensors format, such as BF16",
             '"' + printable(name, 60) + '"');
    }
    entries_.back().dtype = *dtype;
    has_dtype_ = true;
    place_ = Place::kFields;
  }

  void read_number(const Json& value) {
    // Fractions and exponents arrive as floats and a minus sign as a signed integer, even if the value is whole.
    constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (!value.is_number_unsigned() || value.get<uint64_t>() > kMax) refuse_kind(describe(value));
    HeaderEntry& entry = entries_.back();
    if (place_ == Place::kDimensions) {
      entry.shape.push_back(value.get<int64_t>());
      return;
    }
    if (n_bounds_ == 2) refuse("data_offsets has too many numbers", "two");
    (n_bounds_ == 0 ? entry.begin : entry.end) = value.get<uint64_t>();
    ++n_bounds_;
  }

  BlockFormats block_formats_;
  Place place_ = Place::kStart;
  std::vector<HeaderEntry> entries_;
  std::string item_;  ///< the name of the entry being read, for messages
  bool has_dtype_ = false;
  bool has_shape_ = false;
  int n_bounds_ = 0;
};

}  // namespace

std::vector<HeaderEntry> read_header_entries(std::string_view header, uint64_t text_offset, uint64_t max_header_bytes,
                                             const std::filesystem::path& file, BlockFormats block_formats) {
  HeaderReader reader(header, file, {.max_bytes = max_header_bytes, .max_depth = kHeaderDepth}, text_offset,
                      block_formats);
  reader.parse();
  return reader.take();
}

}  // namespace moraine::quant
