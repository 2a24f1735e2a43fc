#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "fuzz/mutation.h"

namespace moraine::fuzz {

/// Where the fields of a GGUF header lie, as far as its structure can be followed (quant/gguf.h).
struct GgufFields {
  struct Field {
    size_t at;
    size_t n_bytes;
  };
  struct Record {  // a key with its value, or a tensor
    size_t begin;
    size_t end;
    bool is_tensor;
  };
  static constexpr size_t kTensorCountAt = 8, kKeyCountAt = 16;

  std::vector<Field> numbers;  // version, counts, lengths, types, dimensions, offsets, values
  std::vector<Field> strings;  // the bytes behind a length
  std::vector<Record> records;
};

/// Walks through a header. Whatever it does not understand ends the walk.
class GgufWalk {
 public:
  explicit GgufWalk(std::string_view file) : file_(file) {}

  GgufFields fields() {
    at_ = 4;
    number(4);
    const uint64_t tensors = number(8), keys = number(8);
    for (uint64_t i = 0; i < keys && sound_; ++i) record(false, [&] { value(number(4)); });
    for (uint64_t i = 0; i < tensors && sound_; ++i) {
      record(true, [&] {
        const uint64_t dims = number(4);
        for (uint64_t dim = 0; dim < dims && sound_; ++dim) number(8);
        number(4);
        number(8);
      });
    }
    return std::move(fields_);
  }

 private:
  uint64_t number(size_t n_bytes) {
    sound_ = sound_ && n_bytes <= file_.size() - at_;
    if (!sound_) return 0;
    uint64_t number = 0;
    std::memcpy(&number, file_.data() + at_, n_bytes);
    fields_.numbers.push_back({at_, n_bytes});
    at_ += n_bytes;
    return number;
  }
  void skip(uint64_t n_bytes) {
    sound_ = sound_ && n_bytes <= file_.size() - at_;
    if (sound_) at_ += n_bytes;
  }
  void string() {
    const uint64_t n_bytes = number(8);
    const size_t begin = at_;
    skip(n_bytes);
    if (sound_) fields_.strings.push_back({begin, n_bytes});
  }
  void value(uint64_t type) {
    constexpr std::array<uint8_t, 13> kBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    constexpr uint64_t kString = 8, kArray = 9;
    sound_ = sound_ && type < kBytes.size();
    if (!sound_) return;
    if (type == kString) return string();
    if (type != kArray) {
      number(kBytes[type]);
      return;
    }
    const uint64_t element = number(4), count = number(8);
    sound_ = sound_ && element < kBytes.size() && element != kArray && count <= file_.size();
    if (!sound_) return;
    for (uint64_t i = 0; i < count && sound_; ++i) {
      if (element == kString) {
        string();
      } else {
        number(kBytes[element]);
      }
    }
  }
  template <typename Rest>
  void record(bool is_tensor, Rest rest) {
    const size_t begin = at_;
    string();
    rest();
    if (sound_) fields_.records.push_back({begin, at_, is_tensor});
  }

  std::string_view file_;
  size_t at_ = 0;
  bool sound_ = true;
  GgufFields fields_;
};

/// Another number where one stands: a turning point, a neighbour, or what another field has.
inline void change_number(std::string& file, const GgufFields& fields, Random& random) {
  const GgufFields::Field field = fields.numbers[pick(random, fields.numbers.size())];
  uint64_t number = 0;
  std::memcpy(&number, file.data() + field.at, field.n_bytes);
  switch (pick(random, 4)) {
    case 0:
      number = kTurningPoints[pick(random, kTurningPoints.size())];
      break;
    case 1:
      number += pick(random, 2) == 0 ? 1 : ~uint64_t{0};
      break;
    case 2: {
      const GgufFields::Field other = fields.numbers[pick(random, fields.numbers.size())];
      number = 0;
      std::memcpy(&number, file.data() + other.at, other.n_bytes);
      break;
    }
    default:
      number = pick(random, 64);
  }
  std::memcpy(file.data() + field.at, &number, field.n_bytes);
}

/// Other bytes in a string, whose length is kept right.
inline void change_string(std::string& file, const GgufFields& fields, Random& random) {
  const GgufFields::Field field = fields.strings[pick(random, fields.strings.size())];
  const GgufFields::Field other = fields.strings[pick(random, fields.strings.size())];
  std::string text = file.substr(field.at, field.n_bytes);
  if (pick(random, 3) == 0) {
    text = file.substr(other.at, other.n_bytes);
  } else {
    mutate_bytes(text, 64);
  }
  const uint64_t n_bytes = text.size();
  file.replace(field.at, field.n_bytes, text);
  std::memcpy(file.data() + field.at - sizeof n_bytes, &n_bytes, sizeof n_bytes);
}

/// A record removed, repeated, or put in the place of another; counts follow, mostly.
inline void change_record(std::string& file, const GgufFields& fields, Random& random) {
  const GgufFields::Record record = fields.records[pick(random, fields.records.size())];
  const GgufFields::Record other = fields.records[pick(random, fields.records.size())];
  const std::string content = file.substr(record.begin, record.end - record.begin);
  uint64_t change = 0;
  switch (pick(random, 3)) {
    case 0:
      file.erase(record.begin, content.size());
      change = ~uint64_t{0};
      break;
    case 1:
      file.insert(record.end, content);
      change = 1;
      break;
    default:
      file.replace(other.begin, other.end - other.begin, content);
  }
  if (pick(random, 8) == 0) return;
  const size_t at = record.is_tensor ? GgufFields::kTensorCountAt : GgufFields::kKeyCountAt;
  uint64_t count = 0;
  std::memcpy(&count, file.data() + at, sizeof count);
  count += change;
  std::memcpy(file.data() + at, &count, sizeof count);
}

/// The mutation of an input that is a GGUF file, or nearly one.
inline size_t mutate_gguf_input(uint8_t* data, size_t n_bytes, size_t max_bytes, unsigned seed) {
  Random random(seed);
  std::string file(reinterpret_cast<const char*>(data), n_bytes);
  const size_t kind = pick(random, 4);
  if (n_bytes < 24 || kind == 0) return LLVMFuzzerMutate(data, n_bytes, max_bytes);
  const GgufFields fields = GgufWalk(file).fields();
  if (kind == 1 || fields.records.empty()) {
    change_number(file, fields, random);
  } else if (kind == 2) {
    change_string(file, fields, random);
  } else {
    change_record(file, fields, random);
  }
  return hand_over(file, data, n_bytes, max_bytes);
}

}  // namespace moraine::fuzz
