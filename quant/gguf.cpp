#include "quant/gguf.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_set>

#include "quant/error.h"

namespace moraine::quant {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCountKey = "split.count";
constexpr const char* kNumberKey = "split.no";
constexpr const char* kTensorsKey = "split.tensors.count";
constexpr size_t kMaxNamesListed = 20;

/// The file's place among the parts of a split model, as its name says it: STEM-00001-of-00009.gguf.
struct PartName {
  std::string stem;
  int64_t number = 1;  // from 1
  int64_t count = 1;
};

std::optional<int64_t> digits(std::string_view text) {
  int64_t value = 0;
  for (const char digit : text) {
    if (digit < '0' || digit > '9') return std::nullopt;
    value = 10 * value + (digit - '0');
  }
  return value;
}

std::optional<PartName> part_name(const fs::path& file) {
  constexpr std::string_view kPattern = "-00001-of-00001.gguf";
  const std::string name = file.filename().string();
  if (name.size() < kPattern.size()) return std::nullopt;
  const std::string_view tail = std::string_view(name).substr(name.size() - kPattern.size());
  const auto number = digits(tail.substr(1, 5));
  const auto count = digits(tail.substr(10, 5));
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || tail.substr(15) != ".gguf" || !number || !count) return {};
  if (*number < 1 || *number > *count) return std::nullopt;
  return PartName{name.substr(0, name.size() - kPattern.size()), *number, *count};
}

/// All parts of a split model, by the name of one. Throws naming those that are not there.
std::vector<fs::path> all_parts(const fs::path& file, const PartName& name) {
  std::vector<fs::path> parts;
  std::vector<std::string> missing;
  size_t missing_count = 0;
  for (int64_t number = 1; number <= name.count; ++number) {
    const std::string part = fmt::format("{}-{:05}-of-{:05}.gguf", name.stem, number, name.count);
    parts.push_back(file.parent_path() / part);
    std::error_code ignored;
    if (fs::exists(parts.back(), ignored)) continue;
    if (++missing_count <= kMaxNamesListed) missing.push_back(printable(part));
  }
  if (missing_count == 0) return parts;
  throw Error(ErrorKind::kBadFile,
              {.what = fmt::format("{} of {} parts are missing: {}{}", missing_count, name.count,
                                   fmt::join(missing, ", "), missing_count > missing.size() ? ", …" : ""),
               .file = file,
               .action = "finish the download"});
}

GgufPart read_part(const fs::path& file) {
  const UniqueFd fd = open_for_read(file);
  const uint64_t size_bytes = file_bytes(fd.get(), file);
  std::string start(std::min<uint64_t>(size_bytes, 64), '\0');
  pread_exact(fd.get(), std::as_writable_bytes(std::span(start)), 0, file);
  refuse_lfs_pointer(start, file);
  return parse_gguf([&](std::span<std::byte> out, uint64_t offset) { pread_exact(fd.get(), out, offset, file); },
                    size_bytes, file);
}

/// An integer of the metadata, `otherwise` if it is absent.
int64_t integer_or(const GgufMetadata& metadata, const char* key, int64_t otherwise, const fs::path& file) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return otherwise;
  if (const auto value = found->second.integer()) return *value;
  throw Error(
      ErrorKind::kBadFile,
      {.what = "not an integer", .file = file, .item = key, .got = std::string(gguf_type_name(found->second.type()))});
}

void require_equal(const GgufMetadata& metadata, const char* key, int64_t expected, int64_t otherwise,
                   const fs::path& file) {
  const int64_t got = integer_or(metadata, key, otherwise, file);
  if (got == expected) return;
  throw Error(ErrorKind::kBadFile, {.what = "the file is another part than its name says, or of another model",
                                    .file = file,
                                    .item = key,
                                    .expected = fmt::format("{}", expected),
                                    .got = fmt::format("{}", got),
                                    .action = "give the parts the names that they were published with"});
}

}  // namespace

Gguf Gguf::open(const fs::path& file) {
  const std::optional<PartName> name = part_name(file);
  std::vector<fs::path> files = name ? all_parts(file, *name) : std::vector{file};
  std::vector<GgufPart> parts;
  for (const fs::path& part : files) parts.push_back(read_part(part));
  return from_parts(std::move(files), std::move(parts));
}

Gguf Gguf::from_parts(std::vector<fs::path> files, std::vector<GgufPart> parts) {
  MORAINE_CHECK(!files.empty() && files.size() == parts.size());
  Gguf gguf;
  gguf.files_ = std::move(files);
  const auto count = static_cast<int64_t>(parts.size());
  std::unordered_set<std::string> names;
  for (int64_t number = 0; number < count; ++number) {
    const fs::path& part_file = gguf.files_[static_cast<size_t>(number)];
    GgufPart& part = parts[static_cast<size_t>(number)];
    // A file that parts were merged into keeps a count of 0.
    const int64_t absent = count == 1 ? 1 : 0;
    if (count > 1 || integer_or(part.metadata, kCountKey, 0, part_file) != 0) {
      require_equal(part.metadata, kCountKey, count, absent, part_file);
      require_equal(part.metadata, kNumberKey, number, -1, part_file);
    }
    for (TensorInfo& tensor : part.tensors) {
      tensor.file = static_cast<int>(number);
      if (!names.insert(tensor.name).second) {
        throw Error(ErrorKind::kBadFile,
                    {.what = "the same tensor is in two parts", .file = part_file, .item = tensor.name});
      }
      gguf.tensors_.push_back(std::move(tensor));
    }
    if (number == 0) gguf.metadata_ = std::move(part.metadata);
  }
  const auto tensor_count = static_cast<int64_t>(gguf.tensors_.size());
  if (count > 1) require_equal(gguf.metadata_, kTensorsKey, tensor_count, tensor_count, gguf.files_.front());
  return gguf;
}

}  // namespace moraine::quant
