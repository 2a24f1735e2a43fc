#pragma once

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "quant/safetensors.h"
#include "support/test_data.h"

namespace moraine::testing {

/// One file of reference outputs of tests/data/oracle (its README says how they were made).
class OracleCase {
 public:
  explicit OracleCase(const std::string& name) : file_(test_data("oracle/" + name + ".safetensors")) {
    for (quant::TensorInfo& tensor : quant::read_safetensors_header(file_)) tensors_.push_back(std::move(tensor));
  }

  bool has(const std::string& name) const { return find(name) != nullptr; }
  std::vector<float> floats(const std::string& name) const { return values<float>(name); }
  std::vector<int32_t> ints(const std::string& name) const { return values<int32_t>(name); }

 private:
  const quant::TensorInfo* find(const std::string& name) const {
    for (const quant::TensorInfo& tensor : tensors_) {
      if (tensor.name == name) return &tensor;
    }
    return nullptr;
  }

  template <typename Value>
  std::vector<Value> values(const std::string& name) const {
    const quant::TensorInfo* tensor = find(name);
    if (tensor == nullptr) throw std::runtime_error(file_.string() + " has no " + name);
    std::vector<Value> result(tensor->size_bytes / sizeof(Value));
    std::ifstream in(file_, std::ios::binary);
    in.seekg(static_cast<std::streamoff>(tensor->offset));
    in.read(reinterpret_cast<char*>(result.data()), static_cast<std::streamsize>(tensor->size_bytes));
    return result;
  }

  std::filesystem::path file_;
  std::vector<quant::TensorInfo> tensors_;
};

}  // namespace moraine::testing
