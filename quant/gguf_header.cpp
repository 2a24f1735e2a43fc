#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <unordered_set>

#include "quant/error.h"
#include "quant/gguf.h"
#include "quant/gguf_cursor.h"

namespace moraine::quant {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kDefaultAlignment = 32;
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;             // length, one letter, type, a u8
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;  // name, n_dims, one dim, type, offset
constexpr uint64_t kMaxTensorBytes = uint64_t{1} << 48;

/// Reads one header.
class Parser {
 public:
  Parser(const ReadAt& read, uint64_t file_bytes, const std::filesystem::path& file)
      : in_(read, file_bytes, file), file_bytes_(file_bytes), file_(file) {}

  GgufPart parse() {
    read_start();
    for (uint64_t i = 0; i < key_count_; ++i) read_key();
    read_alignment();
    part_.tensors.reserve(std::min<uint64_t>(tensor_count_, in_.left() / kMinTensorBytes));
    for (uint64_t i = 0; i < tensor_count_; ++i) read_tensor();
    place_tensors();
    return std::move(part_);
  }

 private:
  void read_start() {
    const uint32_t magic = in_.u32("the magic number");
    if (magic != kMagic) {
      in_.fail(
          "not a GGUF file", "\"GGUF\" as its first bytes", {},
          "give a .gguf file, or the directory of a model; parts cut with `split` must be joined first with `cat`");
    }
    const uint32_t version = in_.u32("the version");
    if ((version & 0xFFFF) == 0) in_.fail("a big-endian GGUF file", "version 2 or 3", {}, "use a little-endian file");
    if (version != 2 && version != 3) {
      in_.fail("a version of GGUF that this program does not know", "version 2 or 3", fmt::format("{}", version),
               version < 2 ? "convert the model again" : "update Moraine");
    }
    tensor_count_ = in_.u64("the number of tensors");
    key_count_ = in_.u64("the number of metadata keys");
    require_count(tensor_count_, GgufLimits::kMaxTensors, kMinTensorBytes, "the number of tensors");
    require_count(key_count_, GgufLimits::kMaxKeys, kMinKeyBytes, "the number of metadata keys");
  }

  void require_count(uint64_t count, uint64_t most, uint64_t min_bytes, const char* what) const {
    in_.require_room(count, min_bytes, what);
    if (count > most)
      in_.fail(fmt::format("{} is too large", what), fmt::format("at most {}", most), std::to_string(count));
  }

  GgufType type(const char* what) {
    const uint32_t number = in_.u32(what);
    if (number > static_cast<uint32_t>(GgufType::kF64)) {
      in_.fail("unknown type of a metadata value", "0 to 12", fmt::format("{}", number), "update Moraine");
    }
    return static_cast<GgufType>(number);
  }

  void read_key() {
    in_.set_item({});
    std::string key = in_.string("a metadata key", GgufLimits::kMaxKeyBytes);
    if (key.empty()) in_.fail("an empty metadata key");
    in_.set_item(key);
    if (part_.metadata.contains(key)) in_.fail("the same metadata key appears twice");
    const GgufType value_type = type("the type of a value");
    part_.metadata.emplace(std::move(key), value(value_type));
  }

  GgufValue value(GgufType value_type) {
    if (value_type == GgufType::kString) return GgufValue::string(in_.string("a string", GgufLimits::kMaxHeaderBytes));
    if (value_type == GgufType::kArray) return GgufValue::array(array());
    std::string bytes;
    in_.append(bytes, gguf_type_bytes(value_type), "a value");
    const auto number = GgufValue::scalar(value_type, bytes.data());
    if (!number) in_.fail("not a bool", "0 or 1", fmt::format("{}", static_cast<uint8_t>(bytes.front())));
    return *number;
  }

  GgufArray array() {
    GgufArray list;
    list.element = type("the type of an array's elements");
    if (list.element == GgufType::kArray) in_.fail("an array of arrays is not supported");
    list.count = in_.u64("the length of an array");
    if (list.element == GgufType::kString) {
      in_.require_room(list.count, sizeof(uint64_t), "the length of an array");
      for (uint64_t i = 0; i < list.count; ++i) {
        const uint64_t text_bytes = in_.u64("the length of a string");
        in_.append(list.bytes, text_bytes, "a string");
        list.ends.push_back(list.bytes.size());
      }
      return list;
    }
    const uint64_t element_bytes = gguf_type_bytes(list.element);
    in_.require_room(list.count, element_bytes, "the length of an array");
    in_.append(list.bytes, list.count * element_bytes, "an array");
    if (list.element == GgufType::kBool) {
      const auto bad =
          std::find_if(list.bytes.begin(), list.bytes.end(), [](char byte) { return byte != 0 && byte != 1; });
      if (bad != list.bytes.end()) in_.fail("not a bool", "0 or 1", fmt::format("{}", static_cast<uint8_t>(*bad)));
    }
    return list;
  }

  void read_alignment() {
    const auto found = part_.metadata.find("general.alignment");
    if (found == part_.metadata.end()) return;
    in_.set_item(found->first);
    const auto wanted = found->second.integer();
    if (!wanted || *wanted < 8 || *wanted > (1 << 30) || !std::has_single_bit(static_cast<uint64_t>(*wanted))) {
      in_.fail("not an alignment", "a power of two from 8 to 2^30", wanted ? fmt::format("{}", *wanted) : "no integer");
    }
    alignment_ = static_cast<uint64_t>(*wanted);
  }

  void read_tensor() {
    in_.set_item({});
    TensorInfo tensor;
    tensor.name = in_.string("a tensor's name", GgufLimits::kMaxNameBytes);
    if (tensor.name.empty()) in_.fail("a tensor without a name");
    in_.set_item(tensor.name);
    if (!names_.insert(tensor.name).second) in_.fail("two tensors have the same name");
    const uint32_t dim_count = in_.u32("the number of dimensions");
    if (dim_count < 1 || dim_count > 4) {
      in_.fail("impossible number of dimensions", "1 to 4", fmt::format("{}", dim_count));
    }
    std::vector<uint64_t> dims(dim_count);
    for (uint64_t& dim : dims) dim = in_.u64("a dimension");
    const uint32_t number = in_.u32("the type of a tensor");
    const auto dtype = dtype_from_ggml_type(number);
    if (!dtype) {
      in_.fail("a tensor type that this program does not know", {}, fmt::format("type number {}", number),
               "use a file of another quantization");
    }
    tensor.dtype = *dtype;
    tensor.size_bytes = tensor_bytes(*dtype, dims);
    tensor.shape.assign(dims.rbegin(), dims.rend());
    tensor.offset = in_.u64("the offset of a tensor");
    if (tensor.offset % alignment_ != 0) {
      in_.fail("a tensor's offset is not aligned", fmt::format("a multiple of {}", alignment_),
               fmt::format("{}", tensor.offset));
    }
    part_.tensors.push_back(std::move(tensor));
  }

  uint64_t tensor_bytes(DType dtype, const std::vector<uint64_t>& dims) const {
    const auto block = static_cast<uint64_t>(block_elements(dtype));
    if (dims.front() == 0 || dims.front() % block != 0) {
      in_.fail("a row can't be stored in blocks of the tensor's type",
               fmt::format("a multiple of {} for {}", block, dtype_name(dtype)), fmt::format("{}", dims.front()));
    }
    uint64_t bytes = dims.front() / block;
    bool overflow = __builtin_mul_overflow(bytes, static_cast<uint64_t>(block_bits(dtype) / 8), &bytes);
    for (size_t i = 1; i < dims.size(); ++i) overflow = overflow || __builtin_mul_overflow(bytes, dims[i], &bytes);
    if (overflow || bytes == 0 || bytes > kMaxTensorBytes) {
      in_.fail("impossible shape", {}, fmt::format("dimensions [{}]", fmt::join(dims, ", ")));
    }
    return bytes;
  }

  /// Turns offsets into places in the file and refuses tensors that overlap or lie beyond its end.
  void place_tensors() {
    const uint64_t data_start = (in_.offset() + alignment_ - 1) / alignment_ * alignment_;
    std::vector<const TensorInfo*> order;
    for (TensorInfo& tensor : part_.tensors) {
      // Neither sum can overflow once the offset is below the largest tensor's size.
      const bool far_off = tensor.offset > kMaxTensorBytes;
      if (!far_off) tensor.offset += data_start;
      if (far_off || tensor.offset + tensor.size_bytes > file_bytes_) {
        refuse("the tensor lies beyond the end of the file", tensor,
               fmt::format("{} bytes from there on", tensor.size_bytes), fmt::format("a file of {} bytes", file_bytes_),
               "the file is incomplete: download it again; one that was cut with `split` must be joined first with "
               "`cat`");
      }
      order.push_back(&tensor);
    }
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->offset < b->offset; });
    for (size_t i = 1; i < order.size(); ++i) {
      if (order[i]->offset >= order[i - 1]->offset + order[i - 1]->size_bytes) continue;
      refuse("two tensors overlap", *order[i], {}, fmt::format("bytes of {}", printable(order[i - 1]->name)),
             "download the file again");
    }
  }

  [[noreturn]] void refuse(const char* what, const TensorInfo& tensor, const std::string& expected,
                           const std::string& got, const char* action) const {
    throw Error(ErrorKind::kBadFile, {.what = what,
                                      .file = file_,
                                      .item = tensor.name,
                                      .offset = tensor.offset,
                                      .expected = expected,
                                      .got = got,
                                      .action = action});
  }

  GgufCursor in_;
  uint64_t file_bytes_;
  const std::filesystem::path& file_;
  uint64_t tensor_count_ = 0;
  uint64_t key_count_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  std::unordered_set<std::string> names_;
  GgufPart part_;
};

}  // namespace

GgufPart parse_gguf(const ReadAt& read, uint64_t file_bytes, const std::filesystem::path& file) {
  return Parser(read, file_bytes, file).parse();
}

}  // namespace moraine::quant
