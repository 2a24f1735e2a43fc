#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>

#include "quant/checksum.h"
#include "quant/error.h"
#include "quant/expert_pack.h"
#include "quant/file_io.h"
#include "quant/json.h"

namespace moraine::quant {
namespace {

constexpr const char* kFormatName = "moraine-pack";
constexpr int64_t kVersion = 1;
constexpr const char* kRemake = "make the pack again with 'moraine convert'";

/// Reads fields of the index; every fault names the file and the field's path in the JSON text.
class FieldReader {
 public:
  explicit FieldReader(const std::filesystem::path& file) : file_(file) {}

  [[noreturn]] void fail(const std::string& field, const std::string& expected, const std::string& got,
                         const std::string& what = "bad field in the pack's index",
                         const std::string& action = kRemake) const {
    throw Error(ErrorKind::kBadFile,
                {.what = what, .file = file_, .item = field, .expected = expected, .got = got, .action = action});
  }

  const Json& member(const Json& object, const char* key, const std::string& path) const {
    if (!object.is_object()) fail(path, "an object", object.type_name());
    const auto found = object.find(key);
    if (found == object.end()) fail(join(path, key), "a value", "nothing");
    return *found;
  }

  int64_t integer(const Json& object, const char* key, const std::string& path, int64_t low, int64_t high) const {
    const Json& value = member(object, key, path);
    const std::string expected = fmt::format("an integer from {} to {}", low, high);
    if (!value.is_number_integer()) fail(join(path, key), expected, value.type_name());
    const bool huge = value.is_number_unsigned() && value.get<uint64_t>() > std::numeric_limits<int64_t>::max();
    const int64_t number = huge ? high : value.get<int64_t>();
    if (huge || number < low || number > high) fail(join(path, key), expected, value.dump());
    return number;
  }

  std::string text(const Json& object, const char* key, const std::string& path) const {
    const Json& value = member(object, key, path);
    if (!value.is_string()) fail(join(path, key), "a string", value.type_name());
    return value.get<std::string>();
  }

  DType weight_type(const Json& object, const char* key, const std::string& path) const {
    const std::string name = text(object, key, path);
    const auto type = dtype_from_name(name);
    if (!type || !is_weight_dtype(*type)) fail(join(path, key), "the name of a weight format", printable(name));
    return *type;
  }

  /// A file name that stays inside the pack's directory.
  void check_plain_name(const std::string& name, const std::string& path) const {
    const bool plain = !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
                       name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
    if (!plain) fail(path, "a file name without directories", printable(name));
  }

  uint64_t checksum(const Json& value, const std::string& path) const {
    constexpr const char* kExpected = "16 lower-case hexadecimal digits";
    if (!value.is_string()) fail(path, kExpected, value.type_name());
    const auto& digits = value.get_ref<const std::string&>();
    uint64_t number = 0;
    bool valid = digits.size() == 16;
    for (const char c : digits) {
      const bool decimal = c >= '0' && c <= '9';
      valid = valid && (decimal || (c >= 'a' && c <= 'f'));
      number = number << 4 | static_cast<uint64_t>(decimal ? c - '0' : c - 'a' + 10);
    }
    if (!valid) fail(path, kExpected, printable(digits));
    return number;
  }

  static std::string join(const std::string& path, const char* key) {
    return path.empty() ? std::string(key) : path + "." + key;
  }

 private:
  const std::filesystem::path& file_;
};

MatrixDesc read_matrix(const FieldReader& reader, const Json& layer, const char* key, const std::string& path) {
  constexpr int64_t kMaxSide = int64_t{1} << 28;
  const Json& matrix = reader.member(layer, key, path);
  const std::string here = FieldReader::join(path, key);
  return {reader.weight_type(matrix, "type", here), reader.integer(matrix, "rows", here, 1, kMaxSide),
          reader.integer(matrix, "cols", here, 1, kMaxSide)};
}

ExpertLayout read_layout(const FieldReader& reader, const Json& layer, const std::string& path) {
  const MatrixDesc gate = read_matrix(reader, layer, "gate", path);
  const MatrixDesc up = read_matrix(reader, layer, "up", path);
  const MatrixDesc down = read_matrix(reader, layer, "down", path);
  ExpertLayout layout;
  try {
    layout = ExpertLayout::make(gate, up, down);
  } catch (const Error& error) {
    reader.fail(path, "an expert layout", error.what());
  }
  const auto record_bytes = reader.integer(layer, "record_bytes", path, 1, std::numeric_limits<int64_t>::max());
  if (static_cast<uint64_t>(record_bytes) != layout.record_bytes) {
    reader.fail(path + ".record_bytes", fmt::format("{}, from its types and shapes", layout.record_bytes),
                fmt::format("{}", record_bytes));
  }
  return layout;
}

PackedLayer read_layer(const FieldReader& reader, const Json& json, const std::string& path) {
  PackedLayer layer;
  layer.layer = static_cast<int>(reader.integer(json, "layer", path, 0, PackIndex::kMaxLayer));
  layer.file = reader.text(json, "file", path);
  reader.check_plain_name(layer.file, path + ".file");
  layer.layout = read_layout(reader, json, path);
  const Json& checksums = reader.member(json, "checksums", path);
  if (!checksums.is_array() || checksums.empty() || checksums.size() > PackIndex::kMaxExperts) {
    reader.fail(path + ".checksums", fmt::format("an array of 1 to {} checksums", PackIndex::kMaxExperts),
                checksums.is_array() ? fmt::format("{}", checksums.size()) : checksums.type_name());
  }
  for (const Json& value : checksums) {
    layer.checksums.push_back(reader.checksum(value, fmt::format("{}.checksums[{}]", path, layer.checksums.size())));
  }
  return layer;
}

std::vector<PackedLayer> read_layers(const FieldReader& reader, const Json& root) {
  const Json& list = reader.member(root, "layers", "");
  if (!list.is_array()) reader.fail("layers", "an array", list.type_name());
  std::vector<PackedLayer> layers;
  std::set<std::string> files;
  for (const Json& json : list) {
    const std::string path = fmt::format("layers[{}]", layers.size());
    PackedLayer layer = read_layer(reader, json, path);
    if (!layers.empty() && layer.layer <= layers.back().layer) {
      reader.fail(path + ".layer", fmt::format("more than {}", layers.back().layer), fmt::format("{}", layer.layer));
    }
    if (!files.insert(layer.file).second) reader.fail(path + ".file", "a file of its own", printable(layer.file));
    layers.push_back(std::move(layer));
  }
  return layers;
}

std::vector<std::pair<std::string, uint64_t>> read_checksums(const FieldReader& reader, const Json& root,
                                                             const char* key, bool file_names) {
  const Json& object = reader.member(root, key, "");
  if (!object.is_object()) reader.fail(key, "an object of checksums by name", object.type_name());
  std::vector<std::pair<std::string, uint64_t>> sums;
  for (const auto& [name, value] : object.items()) {
    const std::string path = FieldReader::join(key, name.c_str());
    if (file_names) reader.check_plain_name(name, path);
    sums.emplace_back(name, reader.checksum(value, path));
  }
  return sums;
}

void check_version(const FieldReader& reader, const Json& root) {
  if (reader.text(root, "format", "") != kFormatName) {
    reader.fail("format", kFormatName, printable(root["format"].get_ref<const std::string&>()), "not a Moraine pack",
                "check the path");
  }
  const int64_t version = reader.integer(root, "version", "", 1, std::numeric_limits<int64_t>::max());
  if (version > kVersion) {
    reader.fail("version", fmt::format("{}", kVersion), fmt::format("{}", version),
                "this pack was made by a newer Moraine", "update Moraine, or make the pack again with this version");
  }
}

Json matrix_json(const MatrixDesc& matrix) {
  return {{"type", dtype_name(matrix.type)}, {"rows", matrix.rows}, {"cols", matrix.cols}};
}

Json checksums_json(const std::vector<std::pair<std::string, uint64_t>>& sums) {
  Json object = Json::object();
  for (const auto& [name, sum] : sums) object[name] = checksum_text(sum);
  return object;
}

Json layer_json(const PackedLayer& layer) {
  Json checksums = Json::array();
  for (const uint64_t sum : layer.checksums) checksums.push_back(checksum_text(sum));
  return {{"layer", layer.layer},
          {"file", layer.file},
          {"record_bytes", layer.layout.record_bytes},
          {"gate", matrix_json(layer.layout.gate)},
          {"up", matrix_json(layer.layout.up)},
          {"down", matrix_json(layer.layout.down)},
          {"checksums", std::move(checksums)}};
}

}  // namespace

bool PackIndex::present(const std::filesystem::path& directory) {
  std::error_code error;
  return std::filesystem::is_regular_file(directory / kFileName, error);
}

PackIndex PackIndex::parse(std::string_view text, const std::filesystem::path& file) {
  const Json root = parse_json(text, file);
  const FieldReader reader(file);
  check_version(reader, root);
  PackIndex index;
  index.wanted_type = dtype_name(reader.weight_type(root, "experts", ""));
  index.layers = read_layers(reader, root);
  index.file_checksums = read_checksums(reader, root, "files", true);
  index.tensor_checksums = read_checksums(reader, root, "tensors", false);
  return index;
}

PackIndex PackIndex::read(const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / kFileName;
  if (!present(directory)) {
    throw Error(ErrorKind::kBadFile,
                {.what = "no such file: not a Moraine pack, or an unfinished one",
                 .file = file,
                 .action = "if 'moraine convert' was interrupted here, run the same command again; it resumes"});
  }
  PackIndex index = parse(read_text(file, JsonLimits{}.max_bytes), file);
  for (const PackedLayer& layer : index.layers) {
    const uint64_t expected = layer.checksums.size() * layer.layout.record_bytes;
    const uint64_t got = file_bytes(directory / layer.file);
    if (got != expected) {
      throw Error(ErrorKind::kBadFile,
                  {.what = got < expected ? "the expert file is truncated" : "the expert file is too long",
                   .file = directory / layer.file,
                   .expected = fmt::format("{} bytes ({} experts of {})", expected, layer.checksums.size(),
                                           layer.layout.record_bytes),
                   .got = fmt::format("{} bytes", got),
                   .action = "copy the pack again, or make it again with 'moraine convert'"});
    }
  }
  return index;
}

void PackIndex::write(const std::filesystem::path& directory) const {
  Json root = {{"format", kFormatName}, {"version", kVersion}, {"experts", wanted_type}, {"layers", Json::array()}};
  for (const PackedLayer& layer : layers) root["layers"].push_back(layer_json(layer));
  root["files"] = checksums_json(file_checksums);
  root["tensors"] = checksums_json(tensor_checksums);
  const std::string text = root.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
  parse(text, directory / kFileName);  // what read() would refuse must never be written
  write_file_atomically(directory / kFileName, text);
  for (const PackedLayer& layer : layers) {
    std::error_code ignored;  // a journal left behind does no harm
    std::filesystem::remove(directory / expert_journal_name(layer.layer), ignored);
  }
}

}  // namespace moraine::quant
