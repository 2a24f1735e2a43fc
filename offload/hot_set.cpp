#include "offload/hot_set.h"

#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <string_view>
#include <system_error>
#include <unordered_set>

#include "quant/checksum.h"
#include "quant/error.h"
#include "quant/file_io.h"

namespace moraine::offload {
namespace {

constexpr std::string_view kMagic = "MRNHOT1\n";
constexpr size_t kHeaderBytes = kMagic.size() + 16;
constexpr uint64_t kLargestFile = 16u << 20;  // two million experts

template <class Number>
void put(std::string& bytes, Number number) {
  char raw[sizeof number];
  std::memcpy(raw, &number, sizeof number);
  bytes.append(raw, sizeof raw);
}

template <class Number>
Number get(std::string_view bytes, size_t offset) {
  Number number;
  std::memcpy(&number, bytes.substr(offset, sizeof number).data(), sizeof number);
  return number;
}

uint64_t checksum_of(std::string_view bytes) {
  return quant::checksum(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

/// Why these bytes are no hot set of the model with that key; empty if they are one.
std::string reason_to_ignore(std::string_view bytes, uint64_t key) {
  if (bytes.size() < kHeaderBytes + 8 || !bytes.starts_with(kMagic)) return "it is no such list";
  if (get<uint64_t>(bytes, bytes.size() - 8) != checksum_of(bytes.substr(0, bytes.size() - 8))) return "it is damaged";
  if (get<uint64_t>(bytes, kMagic.size()) != key) return "it belongs to another model";
  if ((bytes.size() - kHeaderBytes - 8) / 8 != get<uint64_t>(bytes, kMagic.size() + 8)) return "it is damaged";
  return {};
}

}  // namespace

uint64_t hot_set_key(const ExpertRecordSource& source) {
  std::string text;
  for (const std::filesystem::path& file : source.files()) {
    std::error_code ignored;
    const auto changed = std::filesystem::last_write_time(file, ignored).time_since_epoch().count();
    text += fmt::format("{}\n{}\n{}\n", file.filename().string(), quant::file_bytes(file), changed);
  }
  for (const ExpertId id : source.experts()) {
    for (const Extent& extent : source.extents(id)) {
      text += fmt::format("{} {} {} {} {}\n", id.layer, id.expert, extent.file, extent.offset, extent.size_bytes);
    }
  }
  return checksum_of(text);
}

void save_hot_set(const std::filesystem::path& file, uint64_t key, std::span<const ExpertId> hottest) {
  std::error_code error;
  std::filesystem::create_directories(file.parent_path(), error);
  if (error) throw quant::system_error(error.value(), "could not make the directory", file.parent_path());
  std::string bytes(kMagic);
  put(bytes, key);
  put(bytes, static_cast<uint64_t>(hottest.size()));
  for (const ExpertId id : hottest) {
    put(bytes, id.layer);
    put(bytes, id.expert);
  }
  put(bytes, checksum_of(bytes));
  quant::write_file_atomically(file, bytes);
}

std::vector<ExpertId> load_hot_set(const std::filesystem::path& file, uint64_t key,
                                   const std::function<void(const std::string&)>& inform) {
  const auto ignore = [&](const std::string& reason) {
    if (inform) inform(fmt::format("{}: the list of experts to read first is ignored: {}", file.string(), reason));
    return std::vector<ExpertId>{};
  };
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return {};
  std::string bytes;
  try {
    const quant::UniqueFd fd = quant::open_for_read(file);
    const uint64_t size_bytes = quant::file_bytes(fd.get(), file);
    if (size_bytes > kLargestFile) return ignore("it is too large");
    bytes.resize(size_bytes);
    quant::pread_exact(fd.get(), std::as_writable_bytes(std::span(bytes)), 0, file);
  } catch (const quant::Error& failed) {
    return ignore(failed.what());
  }
  if (const std::string reason = reason_to_ignore(bytes, key); !reason.empty()) return ignore(reason);
  std::vector<ExpertId> hottest;
  std::unordered_set<ExpertId> seen;
  for (size_t offset = kHeaderBytes; offset + 8 < bytes.size(); offset += 8) {
    const ExpertId id{.layer = get<int32_t>(bytes, offset), .expert = get<int32_t>(bytes, offset + 4)};
    if (seen.insert(id).second) hottest.push_back(id);
  }
  return hottest;
}

}  // namespace moraine::offload
