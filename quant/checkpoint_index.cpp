#include "quant/checkpoint_index.h"

#include <fmt/format.h>

#include <map>
#include <string_view>

#include "quant/error.h"
#include "quant/json.h"

namespace moraine::quant {
namespace {

constexpr std::string_view kExtension = ".safetensors";
constexpr size_t kMaxFileNameBytes = 255;

[[noreturn]] void refuse(const std::filesystem::path& file, ErrorDetail detail) {
  detail.file = file;
  detail.action = "the index is damaged: download it again";
  throw Error(ErrorKind::kBadFile, detail);
}

/// A name that can only mean a file of the same directory.
bool is_plain_name(std::string_view name) {
  return name.size() > kExtension.size() && name.size() <= kMaxFileNameBytes && name.ends_with(kExtension) &&
         name.find("..") == std::string_view::npos && name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

/// The file names of weight_map, each with its place in CheckpointIndex::files.
std::map<std::string, size_t, std::less<>> distinct_files(const Json& weight_map, const std::filesystem::path& file) {
  std::map<std::string, size_t, std::less<>> places;
  for (const auto& [tensor, shard] : weight_map.items()) {
    const auto* name = shard.get_ptr<const std::string*>();
    if (name == nullptr) {
      refuse(file, {.what = "weight_map holds something that is not a file name",
                    .item = tensor,
                    .expected = "a string",
                    .got = shard.type_name()});
    }
    if (!is_plain_name(*name)) {
      refuse(file, {.what = "weight_map holds an unsafe file name",
                    .item = tensor,
                    .expected = "a *.safetensors name in the same directory",
                    .got = fmt::format("\"{}\"", printable(*name))});
    }
    places.emplace(*name, 0);
  }
  size_t next = 0;
  for (auto& [name, place] : places) place = next++;
  return places;
}

}  // namespace

CheckpointIndex read_checkpoint_index(const std::filesystem::path& file) {
  const Json root = read_json(file);
  if (!root.is_object()) refuse(file, {.what = "the index is no JSON object", .got = root.type_name()});
  const auto weight_map = root.find("weight_map");
  if (weight_map == root.end() || !weight_map->is_object() || weight_map->empty()) {
    refuse(file, {.what = "the index has no weight_map", .expected = "an object from tensor names to file names"});
  }
  CheckpointIndex index;
  const auto places = distinct_files(*weight_map, file);
  for (const auto& [name, place] : places) index.files.push_back(name);
  index.tensors.reserve(weight_map->size());
  for (const auto& [tensor, shard] : weight_map->items()) {
    index.tensors.emplace_back(tensor, places.find(shard.get_ref<const std::string&>())->second);
  }
  if (const auto metadata = root.find("metadata"); metadata != root.end() && metadata->is_object()) {
    const auto total = metadata->find("total_size");
    if (total != metadata->end() && total->is_number_unsigned()) index.total_size_bytes = total->get<uint64_t>();
  }
  return index;
}

}  // namespace moraine::quant
